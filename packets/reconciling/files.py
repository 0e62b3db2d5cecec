"""A provider's statement as a file: which bytes are text, which column is which, what a row says.

Providers' portals export CSV in UTF-8 (with or without a mark) or in GBK, with remarks before the
header, tabs and backticks around numbers, and totals at the end. What is read here is a line in our
own words or a fault that names its row; a file with a fault is refused as a whole.
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TextIO
from zoneinfo import ZoneInfo

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN
from packets.models.reconciling import OUT_NUMBER_MAX_CHARS
from packets.providers.base import LineState, StatementLine

MAX_BYTES = 128 * 2**20  # a million lines of some hundred bytes
MAX_LINES = 1_000_000  # a day of the fastest rail; beyond it a file is not a day's statement
ROW_MAX_CHARS = 8_000  # longer rows are an unclosed quote, and must not fill the memory
PREAMBLE_MAX_ROWS = 50  # remarks before the header
FAULTS_SHOWN = 20  # who has twenty wrong rows has the wrong file
READ_BYTES = 64 * 1024
PROVIDER_REF_MAX_CHARS = 80

COLUMNS = {
    "out_number": "out_number out_bill_no out_biz_no 商户单号 商户订单号 商户转账单号 商家转账单号",
    "provider_ref": "provider_ref transfer_bill_no order_id 微信支付业务单号 微信转账单号 "
    "支付宝交易号 支付宝流水号 业务流水号",
    "amount_fen": "amount_fen",
    "amount_yuan": "amount amount_yuan 金额 转账金额 支出 支出金额 付款金额",
    "state": "state status 状态 转账状态 交易状态",
    "at": "at time 时间 转账时间 完成时间 发生时间 交易时间 入账时间",
}
STATES = {
    LineState.PAID: "paid success 成功 交易成功 转账成功 付款成功 已转账",
    LineState.FAILED: "failed fail 失败 交易失败 转账失败 付款失败",
    LineState.REFUNDED: "refunded refund 退款 已退款 已退回 已退票",
}
_COLUMN = {word: name for name, words in COLUMNS.items() for word in words.split()}
_STATE = {word: state for state, words in STATES.items() for word in words.split()}
_UNIT = re.compile(r"\([+-]?元\)$")
_YUAN = re.compile(r"-?(\d{1,14})(?:\.(\d{1,2}))?\Z")
_FEN = re.compile(r"\d{1,16}\Z")
_TOTALS = ("总", "合计")
_AROUND = " \t\u3000`'\ufeff"

FAULTS: dict[str, str | Promise] = {
    "cells": _("it has fewer columns than the header"),
    "number": _("the number is missing, too long or not printable"),
    "amount": _("the amount is not a positive amount of money"),
    "state": _("the outcome is neither paid, failed nor returned"),
    "time": _("the time can't be read"),
    "csv": _("it is not a row of a CSV file"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that can't be read; `code` is a key of FAULTS."""

    line_no: int
    code: str

    @property
    def why(self) -> str:
        return str(FAULTS[self.code])


class StatementUnreadable(ServiceError):
    """The file isn't a statement, or some of its rows aren't lines of one: nothing was kept."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(
            "file",
            "unreadable",
            _("Nothing was kept. Row %(line)s can't be read: %(why)s."),
            line=faults[0].line_no,
            why=FAULTS[faults[0].code],
        )
        self.faults = faults


@dataclass(frozen=True)
class Examined:
    """A file's hash and the encoding that all of it is valid in."""

    sha256: str
    encoding: str


def examine(file: BinaryIO) -> Examined:
    """Read the file once. ServiceError where it is too large or in no encoding that we read."""
    file.seek(0)
    digest, size = hashlib.sha256(), 0
    decoders = {name: codecs.getincrementaldecoder(name)() for name in ("utf-8", "gb18030")}
    while chunk := file.read(READ_BYTES):
        size += len(chunk)
        if size > MAX_BYTES:
            raise ServiceError(
                "file", "too_large", _("At most %(most)s MB."), most=MAX_BYTES // 2**20
            )
        digest.update(chunk)
        decoders = {name: one for name, one in decoders.items() if _decodes(one, chunk)}
    decoders = {name: one for name, one in decoders.items() if _decodes(one, b"", final=True)}
    if not size:
        raise ServiceError("file", "empty", _("The file is empty."))
    if not decoders:
        raise ServiceError("file", "encoding", _("Save the file as CSV in UTF-8 or GBK."))
    return Examined(digest.hexdigest(), next(iter(decoders)))


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bool:
    try:
        # A zero byte is in no CSV; UTF-16 is full of them.
        return "\0" not in decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False


def lines_of(file: BinaryIO, encoding: str, zone: str) -> Iterator[StatementLine]:
    """The file's lines, one after another. Raises StatementUnreadable (after the last row that it
    read) with the first faults, ServiceError where there is no header. Naive times are of `zone`.
    """
    file.seek(0)
    text = io.TextIOWrapper(file, encoding, newline="")
    try:
        yield from _lines(text, ZoneInfo(zone))
    finally:
        text.detach()  # the file is the caller's


def _lines(text: TextIO, zone: ZoneInfo) -> Iterator[StatementLine]:
    reader = csv.reader(_bounded(text), strict=True)
    header, faults, count = dict[str, int](), list[Fault](), 0
    for line_no, row in _rows(reader, faults):
        if not header:
            header = _header(row)
            if not header and line_no > PREAMBLE_MAX_ROWS:
                break
            continue
        if row[0].strip(_AROUND).startswith(_TOTALS):
            break
        found = _line(line_no, row, header, zone)
        if isinstance(found, Fault):
            faults.append(found)
        elif not faults:
            yield found
        count += 1
        if count > MAX_LINES:
            raise ServiceError("file", "too_long", _("At most %(most)s lines."), most=MAX_LINES)
        if len(faults) >= FAULTS_SHOWN:
            break
    if faults:
        raise StatementUnreadable(faults)
    if not header:
        raise ServiceError(
            "file",
            "no_header",
            _("There is no header with a number, an amount, an outcome and a time."),
        )


def _bounded(text: TextIO) -> Iterator[str]:
    while row := text.readline(ROW_MAX_CHARS):
        yield row


def _rows(reader: Iterator[list[str]], faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    """(line number in the file, cells); remarks and empty rows are left out."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            faults.append(Fault(reader.line_num, "csv"))  # type: ignore[attr-defined]
            return
        if any(cell.strip(_AROUND) for cell in row) and not row[0].strip(_AROUND).startswith("#"):
            yield reader.line_num, row  # type: ignore[attr-defined]


def _plain(cell: str) -> str:
    return unicodedata.normalize("NFKC", cell).strip(_AROUND)


def _header(row: list[str]) -> dict[str, int]:
    """Where each column stands; nothing, where this row is no header."""
    places: dict[str, int] = {}
    for place, cell in enumerate(row):
        word = _UNIT.sub("", _plain(cell).lower().replace(" ", ""))
        if name := _COLUMN.get(word):
            places.setdefault(name, place)
    needed = {"out_number", "state", "at"} <= places.keys()
    return places if needed and {"amount_fen", "amount_yuan"} & places.keys() else {}


def _line(
    line_no: int, row: list[str], header: dict[str, int], zone: ZoneInfo
) -> StatementLine | Fault:
    if len(row) <= max(header.values()):
        return Fault(line_no, "cells")
    cells = {name: _plain(row[place]) for name, place in header.items()}
    number, reference = cells["out_number"], cells.get("provider_ref", "")
    if not (number.isprintable() and 0 < len(number) <= OUT_NUMBER_MAX_CHARS):
        return Fault(line_no, "number")
    if not (reference.isprintable() and len(reference) <= PROVIDER_REF_MAX_CHARS):
        return Fault(line_no, "number")
    amount_fen = (
        _fen(cells["amount_fen"]) if "amount_fen" in cells else _fen_of_yuan(cells["amount_yuan"])
    )
    if not 0 < amount_fen <= MAX_FEN:
        return Fault(line_no, "amount")
    state = _STATE.get(cells["state"].lower())
    if state is None:
        return Fault(line_no, "state")
    try:
        at = dt.datetime.fromisoformat(cells["at"].replace("/", "-"))
        at = at if at.tzinfo else at.replace(tzinfo=zone)
        at = at.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return Fault(line_no, "time")
    return StatementLine(line_no, number, reference, amount_fen, state, at, raw="")


def _fen(text: str) -> int:
    return int(text) if text.isascii() and _FEN.match(text) else 0


def _fen_of_yuan(text: str) -> int:
    """Whole fen of `1,234.5`; what was spent may stand with a minus."""
    plain = text.replace(",", "").strip("¥元 ")
    found = _YUAN.match(plain) if plain.isascii() else None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
