"""Alipay's account bill of a day, read as statement lines.

A ZIP with two files in GBK, of which the details hold one line for each movement; lines that begin
with `#` are comments, the last ones among them the day's sums, which say how many there are. Money
that left is a payout, money that came back is one returned.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO
from zoneinfo import ZoneInfo

from engine.lib.money import fen_of
from packets.providers.base import LineState, ProviderUnavailable, StatementLine

ZONE = ZoneInfo("Asia/Shanghai")
DETAILS = "账务明细"
SUMMARY = "汇总"
REF, NUMBER, AT = "业务流水号", "商户订单号", "发生时间"
IN, OUT, KIND = "收入金额（+元）", "支出金额（-元）", "业务类型"
COLUMNS = (REF, NUMBER, AT, IN, OUT, KIND)
TRANSFER = "转账"
ENCODING = "gb18030"
# Of the unpacked details: a million lines are about a third of it.
MAX_BYTES = 1024 * 1024 * 1024

_COUNTS = re.compile(r"#(?:支出|收入)合计：(\d+)笔")


def lines(file: IO[bytes]) -> Iterator[StatementLine]:
    """Raises ProviderUnavailable for what isn't such a bill."""
    try:
        with zipfile.ZipFile(file) as packed, packed.open(_details(packed)) as member:
            yield from _lines(io.TextIOWrapper(member, encoding=ENCODING, newline=""))
    except (ValueError, csv.Error, KeyError, zipfile.BadZipFile) as wrong:
        raise ProviderUnavailable(f"the bill can't be read: {wrong}") from wrong


def _details(packed: zipfile.ZipFile) -> zipfile.ZipInfo:
    for info in packed.infolist():
        name = _name(info)
        if DETAILS in name and SUMMARY not in name and info.file_size <= MAX_BYTES:
            return info
    raise ValueError("no details in it")


def _name(info: zipfile.ZipInfo) -> str:
    """File names are in GBK without saying so, which `zipfile` takes for CP437."""
    if info.flag_bits & 0x800:
        return info.filename
    return info.filename.encode("cp437", "replace").decode(ENCODING, "replace")


def _lines(text: IO[str]) -> Iterator[StatementLine]:
    names: list[str] = []
    read = announced = 0
    for raw in text:
        if raw.startswith("#"):
            announced += sum(int(count) for count in _COUNTS.findall(raw))
        elif not names:
            names = _cells(raw)
            if any(column not in names for column in COLUMNS):
                raise ValueError("a column is missing")
        elif raw.strip():
            read += 1
            row = dict(zip(names, _cells(raw), strict=False))
            if TRANSFER in row[KIND]:
                yield _line(read, row, raw)
    if not names or read != announced:
        raise ValueError("lines are missing")


def _line(number: int, row: dict[str, str], raw: str) -> StatementLine:
    paid_fen = abs(fen_of(row[OUT])) if row[OUT] else 0
    back_fen = abs(fen_of(row[IN])) if row[IN] else 0
    return StatementLine(
        line_no=number,
        out_number=row[NUMBER],
        provider_ref=row[REF],
        amount_fen=paid_fen or back_fen,
        state=LineState.PAID if paid_fen else LineState.REFUNDED,
        at=dt.datetime.fromisoformat(row[AT]).replace(tzinfo=ZONE),
        raw=raw.rstrip("\r\n"),
    )


def _cells(raw: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([raw]))]
