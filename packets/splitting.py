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
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

from django.utils.translation import gettext_lazy as _

from engine.lib.money import yuan
from packets.splitting_rules import (
    CAP_EXCESS_LIMIT,
    EVENNESS_CHOICES,
    MAX_AMOUNT_FEN,
    MAX_LANE_COUNT,
    MAX_TIERS,
    Rules,
    SplittingError,
    Strategy,
    Tier,
    cuts_complement,
    effective,
    find_infeasible,
    first_portion_tail,
    refuse,
    tiers_sum,
    validate,
)

__all__ = [
    "CAP_EXCESS_LIMIT",
    "EVENNESS_CHOICES",
    "MAX_AMOUNT_FEN",
    "MAX_LANE_COUNT",
    "MAX_TIERS",
    "POWER_TOLERANCE",
    "LaneShare",
    "Portion",
    "Rules",
    "SplittingError",
    "State",
    "Strategy",
    "Tier",
    "advance",
    "cuts_complement",
    "draw_integers",
    "draws",
    "effective",
    "first_portion_tail",
    "lanes",
    "portion",
    "portion_accepts",
    "portions",
    "start",
    "tiers_sum",
    "validate",
]

# Libraries round powers differently in the last bit (2^-53 per factor, with room for a few).
POWER_TOLERANCE = 2.0**-50

_DRAW_DIGITS = 13
_DRAWS_PER_BLOCK = 3
_DRAW_RANGE = 2.0**52


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


# --- The stream of draws ------------------------------------------------------------------------


def draw_integers(key: str, index: int, n: int) -> list[int]:
    """The first `n` draws of portion `index`, whole numbers in [0, 2^52)."""
    found: list[int] = []
    block = 0
    while len(found) < n:
        digits = hashlib.sha1(f"{key}:{index}:{block}".encode(), usedforsecurity=False).hexdigest()
        for place in range(_DRAWS_PER_BLOCK):
            found.append(int(digits[place * _DRAW_DIGITS : (place + 1) * _DRAW_DIGITS], 16))
        block += 1
    return found[:n]


def draws(key: str, index: int, n: int) -> list[float]:
    """The first `n` draws of portion `index` as numbers strictly between 0 and 1."""
    return [(h + 0.5) / _DRAW_RANGE for h in draw_integers(key, index, n)]


# --- One portion --------------------------------------------------------------------------------


def start(rules: Rules, left_fen: int, left_count: int, tiers_left: Sequence[int]) -> State:
    """The state in which a lane's epoch begins with what is left. Raises SplittingError."""
    if len(tiers_left) != len(rules.tiers):
        refuse("tiers_left", "tiers_mismatch", _("There must be one quantity for every tier."))
    if left_count > MAX_LANE_COUNT:
        refuse(
            "left_count",
            "lane_too_large",
            _("A lane has at most %(most)s portions, not %(count)s."),
            most=f"{MAX_LANE_COUNT:,}",
            count=f"{left_count:,}",
        )
    prizes, prizes_fen = tiers_sum(rules.tiers, tiers_left)
    rest_fen, rest_count = left_fen - prizes_fen, left_count - prizes
    if rest_count < 0 or rest_fen < 0 or min(tiers_left, default=0) < 0:
        refuse("tiers_left", "tiers_exceed_left", _("The prizes left exceed what is left."))
    found = find_infeasible(rest_fen, rest_count, rules.min_fen, rules.max_fen)
    if found is not None:
        refuse(
            "left_fen", f"{found[0]}_infeasible", _("The lane can't be cut: %(why)s"), why=found[1]
        )
    if rest_count == 0 and rest_fen > 0:
        refuse(
            "left_fen",
            "max_infeasible",
            _("%(rest)s is left for no portion."),
            rest=yuan(rest_fen),
        )
    return State(left_fen, left_count, 0, tuple(tiers_left), rest_fen, rest_count)


def advance(state: State, portion: Portion) -> State:
    """The state after `portion` has been given at `state`."""
    tiers_left = state.tiers_left
    if portion.tier:
        at = portion.tier - 1
        tiers_left = (*tiers_left[:at], tiers_left[at] - 1, *tiers_left[at + 1 :])
    return State(
        state.left_fen - portion.amount_fen,
        state.left_count - 1,
        state.index + 1,
        tiers_left,
        state.start_fen,
        state.start_count,
    )


def _cut_fixed(start_fen: int, start_count: int, left_count: int) -> int:
    """Cumulative rounding: what is paid after i portions is always floor(i*T/n).

    Written with quotient and remainder, because i*T exceeds 2^53 where i*r cannot.
    """
    quotient, rest = divmod(start_fen, start_count)
    i = start_count - left_count
    return quotient + (i + 1) * rest // start_count - i * rest // start_count


def _cut_double_mean(
    rules: Rules, left_fen: int, left_count: int, key: str, index: int, skip: int
) -> int:
    """The classic: uniform in [min, 2*mean - min] of what is left, kept feasible for the others.

    Two minus one minimum, so that the last person cannot be left with less than the minimum. The
    modulo favours small values by at most range/2^52, which is nothing for amounts people send.
    """
    if left_count == 1:
        return left_fen
    high = 2 * left_fen // left_count - rules.min_fen
    low = rules.min_fen
    if rules.max_fen is not None:
        high = min(high, rules.max_fen)
        low = max(low, left_fen - (left_count - 1) * rules.max_fen)
    return low + draw_integers(key, index, skip + 1)[skip] % (high - low + 1)


@dataclass(frozen=True, slots=True)
class _LuckyCut:
    """One stick-breaking cut before rounding: `point` of `surplus_fen`, to be kept in [low, high].

    The amount is `base_fen + sign * cut`; the complement counts down from the cap.
    """

    point: float
    surplus_fen: int
    low: int
    high: int
    base_fen: int
    sign: int

    def amount(self, cut: int) -> int:
        return self.base_fen + self.sign * max(min(cut, self.high), self.low)


def _cut_lucky(rules: Rules, state: State, left: tuple[int, int], key: str, skip: int) -> _LuckyCut:
    """A symmetric Dirichlet (parameter `evenness`), streamed: break a Beta(k, k(m-1)) off the rest.

    B = 1 - prod U_j^(1/(km-1-j)) for j < k is that Beta: a product of independent powers of
    uniforms is a product of Beta(km-1-j, 1), which is Beta(k(m-1), k) (Jambunathan 1954).
    One more uniform rounds S*B without bias, so the mean is S/m at every position.
    """
    left_fen, left_count = left
    evenness = rules.evenness
    surplus_fen = left_fen - rules.min_fen * left_count
    low, high, base_fen, sign = 0, surplus_fen, rules.min_fen, 1
    if rules.max_fen is not None:
        room_fen = rules.max_fen - rules.min_fen
        if cuts_complement(rules, state.start_fen, state.start_count):
            surplus_fen = room_fen * left_count - surplus_fen
            base_fen, sign = rules.max_fen, -1
        low = max(0, surplus_fen - (left_count - 1) * room_fen)
        high = min(surplus_fen, room_fen)
    if left_count == 1:
        return _LuckyCut(float(surplus_fen), 0, surplus_fen, surplus_fen, base_fen, sign)
    if surplus_fen == 0:
        return _LuckyCut(0.0, 0, 0, 0, base_fen, sign)
    uniforms = draws(key, state.index, skip + evenness + 1)[skip:]
    product = 1.0
    for j in range(evenness):
        product *= uniforms[j] ** (1.0 / (evenness * left_count - 1 - j))
    point = float(surplus_fen) * (1.0 - product) + uniforms[evenness]
    return _LuckyCut(point, surplus_fen, low, high, base_fen, sign)


def _cut_rest(
    strategy: Strategy, rules: Rules, state: State, left: tuple[int, int], key: str, skip: int
) -> int:
    """The next amount of what lies outside the prize table; `left` is its (fen, count)."""
    match strategy:
        case Strategy.FIXED:
            return _cut_fixed(state.start_fen, state.start_count, left[1])
        case Strategy.DOUBLE_MEAN:
            return _cut_double_mean(rules, *left, key, state.index, skip)
        case Strategy.LUCKY:
            cut = _cut_lucky(rules, state, left, key, skip)
            return cut.amount(math.floor(cut.point))
        case Strategy.TIERS:
            raise ValueError("the rest of a prize table cannot be another prize table")
        case _:
            assert_never(strategy)


def _rest_left(rules: Rules, state: State) -> tuple[int, int]:
    prizes, prizes_fen = tiers_sum(rules.tiers, state.tiers_left)
    return state.left_fen - prizes_fen, state.left_count - prizes


def _draw_tier(state: State, key: str) -> int:
    """Which tier the next portion is, 0 for none: each of the portions left is equally likely."""
    ticket = draw_integers(key, state.index, 1)[0] % state.left_count
    for number, quantity in enumerate(state.tiers_left, start=1):
        if ticket < quantity:
            return number
        ticket -= quantity
    return 0


def portion(rules: Rules, state: State, key: str) -> tuple[Portion, State]:
    """The portion at `state` and the state after it. Needs `state.left_count >= 1`."""
    if state.left_count < 1:
        raise ValueError("no portion is left")
    if rules.strategy is not Strategy.TIERS:
        left = state.left_fen, state.left_count
        found = Portion(_cut_rest(rules.strategy, rules, state, left, key, 0), 0)
        return found, advance(state, found)
    tier = _draw_tier(state, key)
    if tier:
        found = Portion(rules.tiers[tier - 1].amount_fen, tier)
    else:
        rest = _rest_left(rules, state)
        found = Portion(_cut_rest(rules.remainder, rules, state, rest, key, 1), 0)
    return found, advance(state, found)


def portions(
    rules: Rules, key: str, left_fen: int, left_count: int, tiers_left: Sequence[int]
) -> Iterator[Portion]:
    """Every portion of an epoch in order: for previews and proofs."""
    state = start(rules, left_fen, left_count, tiers_left)
    while state.left_count:
        found, state = portion(rules, state, key)
        yield found


def portion_accepts(rules: Rules, state: State, key: str, amount_fen: int) -> bool:
    """Whether `amount_fen` is right for `state`, allowing for another library's powers.

    Powers are not exactly rounded, so the point S*B+U may differ in its last bits elsewhere. Where
    it lies within k*S*2^-50 of a whole number, the neighbour is accepted too.
    """
    expected, _after = portion(rules, state, key)
    if amount_fen == expected.amount_fen:
        return True
    tiers = rules.strategy is Strategy.TIERS
    strategy = rules.remainder if tiers else rules.strategy
    if expected.tier or strategy is not Strategy.LUCKY:
        return False
    cut = _cut_lucky(rules, state, _rest_left(rules, state), key, 1 if tiers else 0)
    slack = rules.evenness * cut.surplus_fen * POWER_TOLERANCE
    ends = cut.amount(math.floor(cut.point - slack)), cut.amount(math.floor(cut.point + slack))
    return min(ends) <= amount_fen <= max(ends)


# --- A packet in lanes --------------------------------------------------------------------------


def _deal_tiers(rules: Rules, counts: Sequence[int], seed: bytes) -> list[tuple[int, ...]]:
    """Prizes per lane: equal shares of every tier, the odd ones dealt round in an order by seed.

    One round runs through all tiers, so two lanes never differ by more than one prize in number.
    Where nearly every portion is a prize, the lanes with one portion more are dealt to first.
    """
    lane_count = len(counts)
    order = sorted(
        range(lane_count),
        key=lambda lane: hashlib.sha256(b"laisee.lanes:%d:" % lane + seed).digest(),
    )
    prizes = sum(tier.quantity for tier in rules.tiers)
    if prizes // lane_count == rules.count // lane_count:
        order.sort(key=lambda lane: -counts[lane])
    dealt = [[tier.quantity // lane_count for tier in rules.tiers] for _lane in range(lane_count)]
    turn = 0
    for at, tier in enumerate(rules.tiers):
        for _odd in range(tier.quantity % lane_count):
            dealt[order[turn % lane_count]][at] += 1
            turn += 1
    return [tuple(quantities) for quantities in dealt]


def lanes(rules: Rules, lane_count: int, seed: bytes = b"") -> list[LaneShare]:
    """Cut a packet into independent lanes: counts differ by at most one, every fen is in a lane.

    What the prizes leave over is shared by cumulative rounding over the portions outside the prize
    table, so every lane can honour `min_fen` and `max_fen`. `seed` decides who holds odd prizes.
    """
    validate(rules)
    if lane_count < 1 or lane_count > rules.count:
        refuse(
            "lanes",
            "lanes_out_of_range",
            _("This must lie between 1 and %(most)s."),
            most=f"{rules.count:,}",
        )
    if -(-rules.count // lane_count) > MAX_LANE_COUNT:
        refuse(
            "lanes",
            "lane_too_large",
            _("%(count)s portions in %(lanes)s lanes exceed %(most)s a lane."),
            count=f"{rules.count:,}",
            lanes=lane_count,
            most=f"{MAX_LANE_COUNT:,}",
        )
    edges = [lane * rules.count // lane_count for lane in range(lane_count + 1)]
    counts = [end - begin for begin, end in pairwise(edges)]
    prizes, prizes_fen = tiers_sum(rules.tiers, [tier.quantity for tier in rules.tiers])
    rest_fen, rest_count = rules.total_fen - prizes_fen, rules.count - prizes
    shares: list[LaneShare] = []
    done_count = done_fen = 0
    for count, quantities in zip(counts, _deal_tiers(rules, counts, seed), strict=True):
        lane_prizes, lane_prizes_fen = tiers_sum(rules.tiers, quantities)
        done_count += count - lane_prizes
        upto_fen = done_count * rest_fen // rest_count if rest_count else 0
        shares.append(LaneShare(lane_prizes_fen + upto_fen - done_fen, count, quantities))
        done_fen = upto_fen
    return shares
