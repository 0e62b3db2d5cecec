"""How what is left of a packet moves between its lanes: who gets how many portions, and which.

Pure. The invariants it keeps: money, portions and prizes of the lanes that take part are the same
in sum before and after, and every lane can still be cut within the packet's bounds (invariant 2).

The *number* of portions goes where people ask (`plan`). Nobody chooses *which* they are: the lanes
that take part put together what they have left, and `deal` gives every lane its proportional part,
⌊left·y/m⌋ fen for y portions of m, the odd prizes by the packet's secret. The revealed record says
which lanes took part with how many portions each, so the proof deals again and compares.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from packets.splitting import LaneShare
from packets.splitting_rules import Rules, tiers_sum

# With so many portions left for each lane they are levelled: all lanes then run dry at about the
# same time again. With fewer, single portions go to where somebody waits for one.
LEVEL_FROM_EACH = 4


@dataclass(frozen=True, slots=True)
class Standing:
    """What a move needs to know of a lane. `free`: portions that nobody has reserved."""

    lane: int
    count: int
    free: int
    asks: int = 0  # people who met it empty lately
    fresh: bool = False  # what it has was moved here a moment ago, for somebody who will come back


def plan(lanes: Sequence[Standing]) -> dict[int, int]:
    """Portions per lane after the move, for the lanes that take part; empty: nothing is to move."""
    total = sum(lane.count for lane in lanes)
    if not total:
        return {}
    if total >= LEVEL_FROM_EACH * len(lanes):
        return _level(lanes, total)
    return _serve(lanes)


def _level(lanes: Sequence[Standing], total: int) -> dict[int, int]:
    """Equal numbers; the odd ones to those where most people ask."""
    each, odd = divmod(total, len(lanes))
    if all(lane.free for lane in lanes) or all(abs(lane.count - each) <= 1 for lane in lanes):
        return {}
    eager = sorted(lanes, key=lambda lane: (-lane.asks, lane.lane))
    return {lane.lane: each + (place < odd) for place, lane in enumerate(eager)}


def _serve(lanes: Sequence[Standing]) -> dict[int, int]:
    """A portion for everybody who asks at an empty lane, as far as other lanes have some to spare.

    In rounds, so that every lane gets one before any gets two.
    """
    counts = {lane.lane: lane.count for lane in lanes}
    takers = {lane.lane: lane.asks for lane in lanes if lane.asks and not lane.free}
    spare = {
        lane.lane: lane.free - lane.asks
        for lane in lanes
        if lane.lane not in takers and lane.free > lane.asks and not lane.fresh
    }
    touched: set[int] = set()
    while takers and spare:
        for taker in sorted(takers):
            if not spare:
                break
            giver = max(spare, key=lambda lane: (spare[lane], -lane))
            counts[giver] -= 1
            counts[taker] += 1
            touched |= {giver, taker}
            _take_one(spare, giver)
            _take_one(takers, taker)
    return {lane: counts[lane] for lane in sorted(touched)}


def _take_one(numbers: dict[int, int], lane: int) -> None:
    numbers[lane] -= 1
    if not numbers[lane]:
        del numbers[lane]


# --- which portions -------------------------------------------------------------------------------


def move_key(stream: bytes, packet_hex: str, move: int) -> bytes:
    """The secret that deals the odd prizes of a packet's move; `stream` as in packets/proof.py."""
    return hmac.new(stream, f"{packet_hex}:move:{move}".encode(), hashlib.sha256).digest()


def pooled(lefts: Sequence[LaneShare]) -> LaneShare:
    """What lanes have left, put together."""
    return LaneShare(
        sum(left.total_fen for left in lefts),
        sum(left.count for left in lefts),
        tuple(sum(column) for column in zip(*(left.tiers for left in lefts), strict=True)),
    )


def deal(rules: Rules, pool: LaneShare, counts: Mapping[int, int], key: bytes) -> list[LaneShare]:
    """Shares of a pool for lanes with these numbers of portions, in the mapping's order.

    The numbers must add up to the pool's. Prizes first: each lane's number of them is its
    proportional part, rounded by the key without bias, and so is each tier among those places. The
    rest of the money is shared by cumulative rounding over the portions outside the prize table.
    """
    if sum(counts.values()) != pool.count or min(counts.values()) < 0:
        raise ValueError(f"{pool.count} portions can't be dealt as {list(counts.values())}")
    places = list(counts.values())
    prizes, prizes_fen = tiers_sum(rules.tiers, pool.tiers)
    slots = _apportion(places, prizes, _offset(key, 0, pool.count))
    given: list[list[int]] = []
    open_slots = list(slots)
    for number, quantity in enumerate(pool.tiers, start=1):
        offset = _offset(key, number, sum(open_slots))
        given.append(_apportion(open_slots, quantity, offset))
        open_slots = [slot - got for slot, got in zip(open_slots, given[-1], strict=True)]
    rest = [place - slot for place, slot in zip(places, slots, strict=True)]
    rest_fen = _apportion(rest, pool.total_fen - prizes_fen, 0)
    shares = []
    for at, count in enumerate(places):
        quantities = tuple(column[at] for column in given)
        fen = tiers_sum(rules.tiers, quantities)[1] + rest_fen[at]
        shares.append(LaneShare(fen, count, quantities))
    return shares


def _apportion(weights: Sequence[int], amount: int, offset: int) -> list[int]:
    """`amount` in proportion to the weights, by cumulative rounding from an offset below their sum.

    While `amount` is at most the sum of the weights, nobody gets more than his weight.
    """
    total = sum(weights)
    shares, before, done = [], 0, 0  # the offset alone gives nobody anything
    for weight in weights:
        done += weight
        upto = (done * amount + offset) // total if total else 0
        shares.append(upto - before)
        before = upto
    return shares


def _offset(key: bytes, number: int, below: int) -> int:
    """A number below `below`, from the key."""
    digest = hmac.new(key, b"%d" % number, hashlib.sha256).digest()
    return int.from_bytes(digest, "big") % below if below else 0
