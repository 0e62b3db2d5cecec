"""A day's statement as CSV, with what the faults make of its lines.

Columns: line_no, out_number, provider_ref, amount_fen, state (paid, failed), at (RFC 3339). A day
is one of Beijing, as providers there count them.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
from typing import assert_never
from zoneinfo import ZoneInfo

from packets.providers.sandbox import faults
from packets.providers.sandbox.books import Books, Order, State
from packets.providers.sandbox.faults import Settings, StatementFault

ZONE = ZoneInfo("Asia/Shanghai")
COLUMNS = ("line_no", "out_number", "provider_ref", "amount_fen", "state", "at")
# Out-number of a line that stands for no order: as long as ours, and never one of them.
INVENTED = "INVENTED"
OUT_NUMBER_CHARS = 32

Line = tuple[str, str, int, str, float]


def of_day(books: Books, day: dt.date) -> str:
    start = dt.datetime.combine(day, dt.time(), ZONE).timestamp()
    end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), ZONE).timestamp()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    number = 0
    for order in books.orders_between(start, end):
        if order.state is State.CANCELLED:
            continue
        for out_number, ref, amount_fen, state, at in _lines(books.settings(), day, order):
            number += 1
            moment = dt.datetime.fromtimestamp(at, dt.UTC).isoformat().replace("+00:00", "Z")
            writer.writerow((number, out_number, ref, amount_fen, state, moment))
    return text.getvalue()


def _lines(settings: Settings, day: dt.date, order: Order) -> list[Line]:
    """An order's lines: one, unless a fault makes it none or two."""
    line = (order.out_number, order.ref, order.amount_fen, str(order.state), order.final_at)
    fault = faults.of_line(settings, day.isoformat(), order.ref)
    if fault is None:
        return [line]
    match fault:
        case StatementFault.LOST:
            return []
        case StatementFault.INVENTED:
            number = f"{INVENTED}{order.ref}".ljust(OUT_NUMBER_CHARS, "0")
            return [line, (number, f"{order.ref}X", *line[2:])]
        case StatementFault.AMOUNT:
            return [(line[0], line[1], order.amount_fen + 1, line[3], line[4])]
        case StatementFault.STATE:
            other = State.FAILED if order.state is State.PAID else State.PAID
            return [(*line[:3], str(other), line[4])]
        case StatementFault.DUPLICATE:
            return [line, line]
        case _:
            assert_never(fault)
