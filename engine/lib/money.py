"""Money is a whole number of fen; nothing else ever holds it."""

from __future__ import annotations

# The largest integer that Lua's doubles hold exactly: no amount in the system may exceed it.
MAX_FEN = 2**53 - 1
CURRENCY = "CNY"


def yuan(amount_fen: int) -> str:
    """`¥1,234.56`, for people."""
    sign = "-" if amount_fen < 0 else ""
    whole, rest = divmod(abs(amount_fen), 100)
    return f"{sign}¥{whole:,}.{rest:02d}"
