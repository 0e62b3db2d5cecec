"""WeChat's fund bill of a day, read as statement lines.

A CSV in UTF-8 whose values begin with a backtick. Of its lines those about transfers are ours:
money that left is a payout, money that came back is one returned. The last two lines say how many
there are, so a bill that was cut off is noticed.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from typing import IO
from zoneinfo import ZoneInfo

from engine.lib.money import fen_of
from packets.providers.base import LineState, ProviderUnavailable, StatementLine

ZONE = ZoneInfo("Asia/Shanghai")
AT, REF, NUMBER = "记账时间", "微信支付业务单号", "业务凭证号"
NAME, KIND = "业务名称", "业务类型"
DIRECTION, AMOUNT = "收支类型", "收支金额（元）"
COLUMNS = (AT, REF, NUMBER, NAME, KIND, DIRECTION, AMOUNT)
COUNT = "资金流水总笔数"
TRANSFER = "转账"  # stands in the name or the kind of what moved by a merchant transfer
_STATES = {"支出": LineState.PAID, "收入": LineState.REFUNDED}


def lines(file: IO[bytes]) -> Iterator[StatementLine]:
    """Raises ProviderUnavailable for what isn't such a bill."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield from _lines(text)
    except (ValueError, csv.Error, KeyError) as wrong:
        raise ProviderUnavailable(f"the bill can't be read: {wrong}") from wrong
    finally:
        text.detach()


def _lines(text: IO[str]) -> Iterator[StatementLine]:
    names = _cells(text.readline())
    if any(column not in names for column in COLUMNS):
        raise ValueError("a column is missing")
    read, ended = 0, False
    for raw in text:
        if ended:
            if int(float(_cells(raw)[0])) != read:
                raise ValueError("lines are missing")
            return
        if not raw.startswith("`"):
            ended = raw.startswith(COUNT)
            continue
        read += 1
        row = dict(zip(names, _cells(raw), strict=True))
        if TRANSFER in row[NAME] or TRANSFER in row[KIND]:
            yield _line(read, row, raw)
    raise ValueError("it has no end")


def _line(number: int, row: dict[str, str], raw: str) -> StatementLine:
    return StatementLine(
        line_no=number,
        out_number=row[NUMBER],
        provider_ref=row[REF],
        amount_fen=abs(fen_of(row[AMOUNT])),
        state=_STATES[row[DIRECTION]],
        at=dt.datetime.fromisoformat(row[AT]).replace(tzinfo=ZONE),
        raw=raw.rstrip("\r\n"),
    )


def _cells(raw: str) -> list[str]:
    return [cell.removeprefix("`").strip() for cell in next(csv.reader([raw]))]
