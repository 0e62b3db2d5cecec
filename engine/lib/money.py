"""Money is a whole number of fen; nothing else ever holds it."""

from __future__ import annotations

import re

# The largest integer that Lua's doubles hold exactly: no amount in the system may exceed it.
MAX_FEN = 2**53 - 1
CURRENCY = "CNY"


def yuan(amount_fen: int) -> str:
    """`¥1,234.56`, for people."""
    sign = "-" if amount_fen < 0 else ""
    whole, rest = divmod(abs(amount_fen), 100)
    return f"{sign}¥{whole:,}.{rest:02d}"


_YUAN = re.compile(r"([+-]?)(\d{1,14})(?:\.(\d{1,2}))?\Z", re.ASCII)


def fen_of(text: str) -> int:
    """The fen in a provider's `1234.5` or `-0.07` yuan. ValueError for anything else."""
    match = _YUAN.match(text)
    if match is None:
        raise ValueError("not an amount in yuan")
    sign, whole, rest = match.groups()
    amount_fen = int(whole) * 100 + int((rest or "").ljust(2, "0"))
    if amount_fen > MAX_FEN:
        raise ValueError("too large an amount")
    return -amount_fen if sign == "-" else amount_fen


def yuan_of(amount_fen: int) -> str:
    """`1234.56`: the plain decimal that providers take."""
    whole, rest = divmod(amount_fen, 100)
    return f"{whole}.{rest:02d}"
