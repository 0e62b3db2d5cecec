"""Rows as arrays, range by range.

Each range is a statement of its own, so no snapshot stays open for long however large a campaign
is (a long one slows the commits of hot lanes). The rows that are read are never changed, so ranges
of different moments fit together; what came after `until` is left out everywhere.

Postgres packs a range into one value, as its binary formats have the columns, so that a million
rows are a handful of values here and no loop.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from django.db import connection

Table = npt.NDArray[np.void]

ROWS_A_RANGE = 50_000  # a statement: some tens of milliseconds, some megabytes
# What a column may be: all of a fixed width, and none of them NULL.
DIGEST, WHOLE, FLOAT, SMALL, TRUTH = "V16", ">i8", ">f8", ">i4", "?"
_PACKED = {
    DIGEST: "{}",
    WHOLE: "int8send({}::bigint)",
    FLOAT: "float8send({}::float8)",
    SMALL: "int4send({}::integer)",
    TRUTH: "boolsend({}::boolean)",
}


class OddRows(ValueError):
    """Rows that aren't what was said: NULLs, another width, or out of order."""


def table(sql: str, params: dict[str, Any], columns: dict[str, str]) -> Table:
    """The rows of a query whose columns are of these types, in this order."""
    packed = " || ".join(_PACKED[kind].format(name) for name, kind in columns.items())
    names = ", ".join(columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*), string_agg({packed}, ''::bytea) FROM ({sql}) AS found ({names})",
            params,
        )
        count, raw = cursor.fetchone()
    row = np.dtype(list(columns.items()))
    body = b"" if raw is None else bytes(raw)
    if len(body) != count * row.itemsize:
        raise OddRows(f"{len(body)} bytes aren't {count} rows of {row.itemsize}")
    return np.frombuffer(body, row)


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
        before, after = after, found[key][-1].tobytes()
        if after <= before:
            raise OddRows("a range that isn't in the order of its key")


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
