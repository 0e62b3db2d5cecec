"""How a packet is cut into portions, one claim at a time.

This file owns the arithmetic of splitting and its refusals. It is the reference: the Lua fragment
`packets/lua/splitting.lua` runs the same rules inside Redis and must give the same portions.
It is pure: values go in, values come out; randomness is a key that the caller passes in.

The invariant it keeps: whatever the draws are, every portion lies between `min_fen` and `max_fen`,
and the portions of a lane add up to exactly what the lane started with. The state is O(1) per lane
(what is left, how many are left, the next index, the prizes left); no list of amounts exists.

Randomness: portion `i` of a lane's epoch draws from SHA1(f"{key}:{i}:{b}"), three draws of 13
hexadecimal digits (52 bits) per block `b`. The key differs for every lane and every epoch, so that
nobody learns the portions of one lane from those of another. See docs/adr/0003-splitting.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NoReturn, assert_never

# The largest whole number that a double holds without gaps; Lua has no other kind of number.
MAX_AMOUNT_FEN = 2**53 - 1
# Largest n with n*n < 2^53: `fixed` multiplies an index by a remainder, both below the lane's count.
MAX_LANE_COUNT = 94_906_265
# Every claim walks the prize table inside Redis, so the table stays short.
MAX_TIERS = 32
# 16 is the most that a cap ever needs (the complement rule sees to it); 32 may be asked for.
EVENNESS_CHOICES = (1, 2, 4, 8, 16, 32)
# A cap that binds more often than this would push visible money to late positions.
CAP_EXCESS_LIMIT = 0.001
# Libraries round powers differently in the last bit (2^-53 per factor, with room for a few).
POWER_TOLERANCE = 2.0**-50

_DRAW_DIGITS = 13
_DRAWS_PER_BLOCK = 3
_DRAW_RANGE = 2.0**52


class Strategy(StrEnum):
    """The ways to cut a packet."""

    FIXED = "fixed"
    LUCKY = "lucky"
    DOUBLE_MEAN = "double_mean"
    TIERS = "tiers"


@dataclass(frozen=True, slots=True)
class Tier:
    """One line of a prize table: `quantity` portions of exactly `amount_fen`."""

    amount_fen: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What a packet promises. `max_fen` None means no cap; `remainder` is used by `tiers` only."""

    strategy: Strategy
    total_fen: int
    count: int
    min_fen: int = 1
    max_fen: int | None = None
    evenness: int = 2
    tiers: tuple[Tier, ...] = ()
    remainder: Strategy = Strategy.LUCKY


@dataclass(frozen=True, slots=True)
class State:
    """Where a lane's epoch stands before the portion `index` (0-based) is cut.

    `start_fen` and `start_count` are the epoch's start *without its tier prizes*: `fixed` rounds
    against them and `lucky` decides once per epoch by them which side of the cap it cuts.
    """

    left_fen: int
    left_count: int
    index: int
    tiers_left: tuple[int, ...]
    start_fen: int
    start_count: int


@dataclass(frozen=True, slots=True)
class Portion:
    """The amount one claim receives; `tier` is 0, or the 1-based line of the prize table."""

    amount_fen: int
    tier: int


@dataclass(frozen=True, slots=True)
class LaneShare:
    """One lane's part of a packet; `tiers` holds the lane's quantity of each line of the table."""

    total_fen: int
    count: int
    tiers: tuple[int, ...]


class SplittingError(ValueError):
    """Rules that cannot be honoured. `field` names the offending input, `code` is for programs."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.message = message


def _refuse(field: str, code: str, message: str) -> NoReturn:
    raise SplittingError(field, code, message)


# --- Refusals -----------------------------------------------------------------------------------


def _require_whole(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(field, "not_whole", f"{field} must be a whole number, not {value!r}.")
    if value < 1:
        _refuse(field, "not_positive", f"{field} must be at least 1, not {value}.")
    if value > MAX_AMOUNT_FEN:
        _refuse(field, "too_large", f"{field} must be at most {MAX_AMOUNT_FEN}, not {value}.")


def _require_feasible(
    field: str, what: str, total_fen: int, count: int, min_fen: int, max_fen: int | None
) -> None:
    """Refuse a total that `count` portions between the bounds cannot add up to."""
    low, high = (f"min_{field}", f"max_{field}") if field == "remainder" else ("min_fen", "max_fen")
    if min_fen * count > total_fen:
        _refuse(
            field if field == "remainder" else "min_fen",
            f"{low}_exceeds_total" if field == "remainder" else "min_exceeds_total",
            f"{what}: {count} portions of at least {min_fen} fen need {min_fen * count} fen, "
            f"but there are only {total_fen} fen.",
        )
    if max_fen is not None and max_fen * count < total_fen:
        _refuse(
            field if field == "remainder" else "max_fen",
            f"{high}_below_total" if field == "remainder" else "max_below_total",
            f"{what}: {count} portions of at most {max_fen} fen hold {max_fen * count} fen, "
            f"but {total_fen} fen must be given away.",
        )
