"""What a packet may promise: the rules of splitting, and the refusal of those nobody can keep.

This file owns the types of splitting, their validation and the two decisions that are made before
a packet opens: how even it must be so that a cap hardly ever binds, and which side of the cap is
cut. It is pure. The invariant it keeps: rules that pass `validate` can be honoured to the fen.
The cutting itself is in `packets/splitting.py`; the reasons are in docs/adr/0003-splitting.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NoReturn

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from engine.lib.money import yuan

# The largest whole number that a double holds without gaps; Lua has no other kind of number.
MAX_AMOUNT_FEN = 2**53 - 1
# Largest n with n*n < 2^53: `fixed` multiplies two numbers that are below the lane's count.
MAX_LANE_COUNT = 94_906_265
# Every claim walks the prize table inside Redis, so the table stays short.
MAX_TIERS = 32
# 16 is the most that a cap ever needs (the complement rule sees to it); 32 may be asked for.
EVENNESS_CHOICES = (1, 2, 4, 8, 16, 32)
# A cap that binds more often than this would push visible money to late positions.
CAP_EXCESS_LIMIT = 0.001


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
class Words:
    """A text with values in its `%(name)s` places, put into the reader's language when read."""

    text: str | Promise
    values: dict[str, Any]

    def __str__(self) -> str:
        return str(self.text) % self.values if self.values else str(self.text)


class SplittingError(ValueError):
    """Rules that cannot be honoured. `field` names the offending input, `code` is for programs."""

    def __init__(self, field: str, code: str, words: Words) -> None:
        super().__init__(field, code)
        self.field = field
        self.code = code
        self.words = words

    @property
    def message(self) -> str:
        return str(self.words)

    def __str__(self) -> str:
        return self.message


def refuse(field: str, code: str, text: str | Promise, **values: Any) -> NoReturn:
    """Raise the SplittingError; a function so that call sites stay short."""
    raise SplittingError(field, code, Words(text, values))


# --- Refusals -----------------------------------------------------------------------------------


def _require_whole(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(field, "not_whole", _("This must be a whole number, not %(value)s."), value=value)
    if value < 1:
        refuse(field, "not_positive", _("This must be more than zero."))
    if value > MAX_AMOUNT_FEN:
        refuse(field, "too_large", _("This is more than the system can hold."))


def find_infeasible(
    total_fen: int, count: int, min_fen: int, max_fen: int | None
) -> tuple[str, Words] | None:
    """The bound ("min" or "max") that `count` portions of `total_fen` would break, and why."""

    def numbers(each_fen: int) -> dict[str, Any]:
        return {
            "count": f"{count:,}",
            "each": yuan(each_fen),
            "sum": yuan(each_fen * count),
            "total": yuan(total_fen),
        }

    if min_fen * count > total_fen:
        return "min", Words(
            _("%(count)s portions of at least %(each)s need %(sum)s, but there is %(total)s."),
            numbers(min_fen),
        )
    if max_fen is not None and max_fen * count < total_fen:
        return "max", Words(
            _("%(count)s portions of at most %(each)s take %(sum)s, but there is %(total)s."),
            numbers(max_fen),
        )
    return None


def _validate_tiers(rules: Rules) -> None:
    if not rules.tiers:
        refuse("tiers", "tiers_missing", _("A packet with prize tiers needs at least one tier."))
    if len(rules.tiers) > MAX_TIERS:
        refuse("tiers", "too_many_tiers", _("At most %(most)s tiers are allowed."), most=MAX_TIERS)
    if rules.remainder is Strategy.TIERS:
        refuse("remainder", "remainder_is_tiers", _("The rest needs a strategy other than tiers."))
    for number, tier in enumerate(rules.tiers, start=1):
        _require_whole(f"tiers[{number}].amount_fen", tier.amount_fen)
        _require_whole(f"tiers[{number}].quantity", tier.quantity)
        if tier.amount_fen < rules.min_fen or tier.amount_fen > (rules.max_fen or MAX_AMOUNT_FEN):
            refuse(
                "tiers",
                "tier_out_of_bounds",
                _("Tier %(number)s gives %(amount)s, which is outside the portions' bounds."),
                number=number,
                amount=yuan(tier.amount_fen),
            )
    prizes, prizes_fen = tiers_sum(rules.tiers, [tier.quantity for tier in rules.tiers])
    if prizes > rules.count:
        refuse(
            "tiers",
            "tiers_exceed_count",
            _("The tiers hold %(prizes)s prizes, but the packet has %(count)s portions."),
            prizes=f"{prizes:,}",
            count=f"{rules.count:,}",
        )
    if prizes_fen > rules.total_fen:
        refuse(
            "tiers",
            "tiers_exceed_total",
            _("The tiers give %(prizes)s, but the packet holds %(total)s."),
            prizes=yuan(prizes_fen),
            total=yuan(rules.total_fen),
        )
    rest = rules.total_fen - prizes_fen, rules.count - prizes
    if rest[1] == 0 and rest[0] > 0:
        refuse(
            "tiers",
            "remainder_infeasible",
            _("The tiers use every portion, but %(rest)s would be left over."),
            rest=yuan(rest[0]),
        )
    found = find_infeasible(*rest, rules.min_fen, rules.max_fen)
    if found is not None:
        refuse("tiers", "remainder_infeasible", _("After the prizes: %(why)s"), why=found[1])


def validate(rules: Rules) -> None:
    """Raise SplittingError, naming the field, when these rules cannot be honoured to the fen."""
    _require_whole("total_fen", rules.total_fen)
    _require_whole("count", rules.count)
    _require_whole("min_fen", rules.min_fen)
    if rules.max_fen is not None:
        _require_whole("max_fen", rules.max_fen)
        if rules.max_fen < rules.min_fen:
            refuse(
                "max_fen",
                "max_below_min",
                _("The largest portion (%(high)s) is below the smallest (%(low)s)."),
                high=yuan(rules.max_fen),
                low=yuan(rules.min_fen),
            )
    if rules.evenness not in EVENNESS_CHOICES:
        refuse(
            "evenness",
            "unknown_evenness",
            _("This must be one of %(choices)s."),
            choices=", ".join(map(str, EVENNESS_CHOICES)),
        )
    if rules.count > rules.total_fen:
        refuse(
            "count",
            "count_exceeds_total",
            _("%(total)s cannot be cut into %(count)s portions of at least ¥0.01."),
            total=yuan(rules.total_fen),
            count=f"{rules.count:,}",
        )
    found = find_infeasible(rules.total_fen, rules.count, rules.min_fen, rules.max_fen)
    if found is not None:
        bound, why = found
        code = "min_exceeds_total" if bound == "min" else "max_below_total"
        refuse(f"{bound}_fen", code, why.text, **why.values)
    if rules.strategy is Strategy.TIERS:
        _validate_tiers(rules)
    elif rules.tiers:
        refuse("tiers", "tiers_unexpected", _("A packet of this strategy has no tiers."))


def tiers_sum(tiers: Sequence[Tier], quantities: Sequence[int]) -> tuple[int, int]:
    """Number and amount (fen) of the prizes that `quantities` of these tiers hold."""
    return sum(quantities), sum(t.amount_fen * q for t, q in zip(tiers, quantities, strict=True))


# --- Evenness and the cap -----------------------------------------------------------------------


def first_portion_tail(evenness: int, count: int, fraction: float) -> float:
    """P(B > fraction) for the first cut B ~ Beta(k, k(m-1)), k = `evenness`, m = `count`.

    For whole parameters the regularised incomplete beta function is a binomial sum
    (DLMF 8.17.5): P(B > x) = P(Binomial(k*m - 1, x) <= k - 1).
    """
    if count <= 1 or fraction >= 1.0:
        return 0.0
    if fraction <= 0.0:
        return 1.0
    trials = evenness * count - 1
    term = math.exp(trials * math.log1p(-fraction))
    odds = fraction / (1.0 - fraction)
    tail = term
    for successes in range(1, evenness):
        term *= (trials - successes + 1) / successes * odds
        tail += term
    return min(tail, 1.0)


def cuts_complement(rules: Rules, start_fen: int, start_count: int) -> bool:
    """Whether `lucky` cuts what is missing below the cap instead of what lies above the minimum.

    True when the surplus mean exceeds half of `max_fen - min_fen`. The side that is cut then has
    room for at least twice its mean, so the cap hardly ever binds and no position is favoured.
    In doubles, as in Lua: the product may exceed 2^53.
    """
    if rules.max_fen is None:
        return False
    surplus_fen = start_fen - rules.min_fen * start_count
    return float(surplus_fen) > float(start_count) * float(rules.max_fen - rules.min_fen) / 2.0


def effective(rules: Rules) -> Rules:
    """The rules as they will run: `evenness` raised until a cap binds a first portion rarely.

    Rarely means with probability below CAP_EXCESS_LIMIT. Store and commit to these rules; the
    preview compares them with what was asked for.
    """
    validate(rules)
    lucky = rules.strategy if rules.strategy is not Strategy.TIERS else rules.remainder
    if lucky is not Strategy.LUCKY or rules.max_fen is None:
        return rules
    prizes, prizes_fen = tiers_sum(rules.tiers, [tier.quantity for tier in rules.tiers])
    count, left_fen = rules.count - prizes, rules.total_fen - prizes_fen
    room_fen = rules.max_fen - rules.min_fen
    surplus_fen = left_fen - rules.min_fen * count
    if cuts_complement(rules, left_fen, count):
        surplus_fen = room_fen * count - surplus_fen
    if surplus_fen <= room_fen:
        return rules
    for evenness in EVENNESS_CHOICES:
        if evenness < rules.evenness:
            continue
        if first_portion_tail(evenness, count, room_fen / surplus_fen) < CAP_EXCESS_LIMIT:
            return replace(rules, evenness=evenness)
    raise AssertionError("the complement rule leaves room for evenness 16")  # pragma: no cover
