"""Rows as arrays: Postgres's binary COPY, range by range.

Each range is a statement of its own, so no snapshot stays open for long however large a campaign
is (a long one slows the commits of hot lanes). The rows that are read are never changed, so ranges
of different moments fit together; what came after `until` is left out everywhere.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection

Table = npt.NDArray[np.void]

# Rows a statement: some tens of milliseconds.
ROWS_A_RANGE = 50_000
# Postgres's binary format: a signature and two lengths, then rows, then a row of -1 fields.
_HEADER_BYTES, _TRAILER_BYTES = 19, 2
# What a column may be: all of a fixed width, and none of them NULL.
DIGEST, WHOLE, FLOAT, SMALL, TRUTH = "V16", ">i8", ">f8", ">i4", "?"


class OddRows(ValueError):
    """Rows that are not as wide as was said."""


def table(sql: str, params: dict[str, Any], columns: dict[str, str]) -> Table:
    """The rows of a query whose columns are of these types, by their names."""
    with connection.cursor() as cursor, cursor.copy(_copy(sql), params) as copy:
        raw = b"".join(bytes(block) for block in copy)
    parts = [("fields", ">i2")]
    for name, kind in columns.items():
        parts += [(f"{name}_bytes", ">i4"), (name, kind)]
    row = np.dtype(parts)
    body = raw[_HEADER_BYTES:-_TRAILER_BYTES]
    if len(body) % row.itemsize:
        raise OddRows(f"{len(body)} bytes aren't rows of {row.itemsize}")
    found = np.frombuffer(body, row)
    fits = found["fields"] == len(columns)
    for name in columns:
        fits &= found[f"{name}_bytes"] == row[name].itemsize
    if not fits.all():
        raise OddRows("a column is NULL or of another width")
    return found[list(columns)]


def by_key(sql: str, params: dict[str, Any], columns: dict[str, str], key: str) -> Iterator[Table]:
    """Ranges of a query that is ordered by a digest: it says `%(after)s` and `%(rows)s`."""
    after = b""
    while True:
        found = table(sql, {**params, "after": after, "rows": ROWS_A_RANGE}, columns)
        if not found.size:
            return
        yield found
        if found.size < ROWS_A_RANGE:
            return
        after = found[key][-1].tobytes()


def by_time(
    boundary: str, params: dict[str, Any], start: dt.datetime, until: dt.datetime
) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """From `start` to `until` in spans of `ROWS_A_RANGE` rows: `boundary` asks for the moment of
    the row `%(rows)s` further than `%(start)s`."""
    while start < until:
        with connection.cursor() as cursor:
            cursor.execute(
                boundary, {**params, "start": start, "until": until, "rows": ROWS_A_RANGE}
            )
            row = cursor.fetchone()
        # A microsecond further, so that many rows of one moment can't hold it up.
        end = max(row[0], start + dt.timedelta(microseconds=1)) if row else until
        yield start, end
        start = end


def _copy(sql: str) -> str:
    return f"COPY ({sql}) TO STDOUT (FORMAT BINARY)"
