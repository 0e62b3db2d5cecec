"""CSV that spreadsheets open as it is: UTF-8 with a mark, no cell that runs as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

MARK = b"\xef\xbb\xbf"
# What a spreadsheet takes for a formula when it stands first in a cell (OWASP, CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(text: str) -> str:
    """A text that no spreadsheet runs: one that looks like a formula gets an apostrophe."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def rows_as_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV; numbers stay numbers, texts are made safe, None is an empty cell."""
    out = io.StringIO()
    csv.writer(out).writerows(
        [cell(value) if isinstance(value, str) else value for value in row] for row in rows
    )
    return out.getvalue().encode()
