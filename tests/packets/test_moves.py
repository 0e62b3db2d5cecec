"""How portions move between lanes: the pure rules."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from packets import moves, splitting
from packets.moves import Standing
from packets.splitting import LaneShare, Rules, Strategy, Tier

KEY = b"a move's key"


@st.composite
def tables(draw: st.DrawFn) -> tuple[Rules, list[LaneShare]]:
    """Rules, and lanes at any stage: what they have left is what somebody could still be given."""
    low = draw(st.integers(1, 50))
    high = draw(st.none() | st.integers(low, low + 500))
    amounts = draw(st.lists(st.integers(low, high or 1_000), max_size=4))
    tiers = tuple(Tier(amount, 1) for amount in amounts)
    lefts = []
    for _ in range(draw(st.integers(2, 9))):
        count = draw(st.integers(0, 40))
        quantities, prizes = [], 0
        for _tier in tiers:
            quantities.append(draw(st.integers(0, count - prizes)))
            prizes += quantities[-1]
        rest = count - prizes
        rest_fen = draw(st.integers(rest * low, rest * (high or low + 500)))
        fen = rest_fen + splitting.tiers_sum(tiers, quantities)[1]
        lefts.append(LaneShare(fen, count, tuple(quantities)))
    kind = Strategy.TIERS if tiers else draw(st.sampled_from([Strategy.LUCKY, Strategy.FIXED]))
    return Rules(kind, 10**9, 10**4, low, high, tiers=tiers), lefts


@settings(max_examples=300, deadline=None)
@given(tables(), st.randoms(use_true_random=False), st.binary(max_size=8))
def test_a_deal_keeps_every_sum_and_every_lane_can_be_cut(
    table: tuple[Rules, list[LaneShare]], rng: random.Random, key: bytes
) -> None:
    rules, lefts = table
    pool = moves.pooled(lefts)
    edges = sorted(rng.randint(0, pool.count) for _ in range(len(lefts) - 1))
    numbers = [b - a for a, b in zip([0, *edges], [*edges, pool.count], strict=True)]
    shares = moves.deal(rules, pool, dict(enumerate(numbers)), key)
    assert moves.pooled(shares) == pool
    assert [share.count for share in shares] == numbers
    for share in shares:
        splitting.start(rules, share.total_fen, share.count, share.tiers)  # raises where it can't
    assert moves.deal(rules, pool, dict(enumerate(numbers)), key) == shares


def test_money_goes_with_the_portions() -> None:
    """⌊left·y/m⌋ fen for y of m portions."""
    rules = Rules(Strategy.LUCKY, 10_000, 100)
    shares = moves.deal(rules, LaneShare(1_003, 10, ()), {0: 7, 1: 3}, KEY)
    assert [share.total_fen for share in shares] == [1_003 * 7 // 10, 1_003 - 702]


def test_an_odd_prize_is_dealt_by_the_key_as_often_as_there_are_portions() -> None:
    rules = Rules(Strategy.TIERS, 10_000, 100, tiers=(Tier(500, 1), Tier(300, 2)))
    pool = LaneShare(2_000, 10, (1, 2))
    grand: Counter[int] = Counter()
    lesser: Counter[int] = Counter()
    for number in range(4_000):
        shares = moves.deal(rules, pool, {0: 1, 1: 2, 2: 7}, b"%d" % number)
        for lane, share in enumerate(shares):
            grand[lane] += share.tiers[0]
            lesser[lane] += share.tiers[1]
    for seen, each in ((grand, 400), (lesser, 800)):
        expected = [each, 2 * each, 7 * each]
        assert stats.chisquare([seen[lane] for lane in range(3)], expected).pvalue > 1e-4


def test_numbers_that_are_not_the_pools_are_refused() -> None:
    rules = Rules(Strategy.LUCKY, 10_000, 100)
    for counts in ({0: 5, 1: 6}, {0: 11, 1: -1}):
        with pytest.raises(ValueError, match="10 portions can't be dealt"):
            moves.deal(rules, LaneShare(1_000, 10, ()), counts, KEY)


# --- who gets how many ----------------------------------------------------------------------------


def test_lanes_with_enough_are_levelled_when_one_is_empty() -> None:
    lanes = [Standing(1, 20, 20), Standing(2, 0, 0, asks=3), Standing(3, 6, 6)]
    assert moves.plan(lanes) == {1: 9, 2: 9, 3: 8}
    lanes[1] = Standing(2, 1, 1, asks=3)
    assert moves.plan(lanes) == {}


def test_an_empty_lane_of_levelled_ones_is_left_to_those_who_hold_its_reservations() -> None:
    lanes = [Standing(1, 9, 9), Standing(2, 8, 0, asks=3), Standing(3, 8, 8)]
    assert moves.plan(lanes) == {}


def test_the_last_portions_go_to_those_who_ask_one_each_first() -> None:
    lanes = [
        Standing(1, 3, 3),
        Standing(2, 0, 0, asks=5),
        Standing(3, 0, 0, asks=1),
        Standing(4, 0, 0),
        Standing(5, 1, 1),
    ]
    assert moves.plan(lanes) == {1: 0, 2: 3, 3: 1, 5: 0}


def test_nobody_gives_what_is_reserved_or_asked_for_or_was_just_moved_there() -> None:
    lanes = [
        Standing(1, 3, 0),  # reserved, on its way to the commit
        Standing(2, 2, 2, asks=2),
        Standing(3, 1, 1, fresh=True),
        Standing(4, 0, 0, asks=1),
    ]
    assert moves.plan(lanes) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 9), st.booleans()),
        max_size=20,
    )
)
def test_a_plan_keeps_the_number_of_portions(rows: list[tuple[int, int, int, bool]]) -> None:
    lanes = [
        Standing(number, count, min(count, free), asks, fresh)
        for number, (count, free, asks, fresh) in enumerate(rows)
    ]
    planned = moves.plan(lanes)
    assert sum(planned.values()) == sum(lanes[number].count for number in planned)
    assert min(planned.values(), default=0) >= 0
    someone_waits = any(lane.asks and not lane.count for lane in lanes)
    spare = any(lane.free > lane.asks and not lane.fresh for lane in lanes)
    if someone_waits and spare:
        assert planned  # as long as anybody has something to give, whoever asks is served
