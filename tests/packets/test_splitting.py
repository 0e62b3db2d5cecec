"""Exact totals, bounds, determinism, lanes, refusals and the evenness rule: the pure reference."""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from packets import splitting
from packets.splitting import (
    MAX_AMOUNT_FEN,
    MAX_LANE_COUNT,
    Portion,
    Rules,
    SplittingError,
    State,
    Strategy,
    Tier,
)
from tests.packets.shapes import generated, shape, whole

LUCKY = Strategy.LUCKY

PINNED_LUCKY = [65, 48, 155, 143, 87, 192, 15, 42, 115, 138]
PINNED_DOUBLE_MEAN = [193, 154, 149, 73, 92, 123, 7, 21, 153, 35]
PINNED_TIERS = [
    (300, 1),
    (100, 2),
    (41, 0),
    (97, 0),
    (78, 0),
    (47, 0),
    (75, 0),
    (103, 0),
    (100, 2),
    (59, 0),
]


def amounts(rules: Rules, key: str = "key") -> list[int]:
    state = whole(rules)
    return [
        p.amount_fen
        for p in splitting.portions(rules, key, state.left_fen, state.left_count, state.tiers_left)
    ]


# --- totals, bounds, determinism ------------------------------------------------------------------


def test_every_packet_ends_exactly_at_its_total_and_inside_its_bounds() -> None:
    """3,600 packets: every strategy, every family of shapes up to 2^53 - 1."""
    for name, rules in generated(each=100, seed=1):
        state = whole(rules)
        handed_out: list[Portion] = []
        while state.left_count:
            portion, state = splitting.portion(rules, state, name)
            handed_out.append(portion)
        assert len(handed_out) == rules.count, name
        assert sum(p.amount_fen for p in handed_out) == rules.total_fen, name
        assert state.left_fen == 0, name
        assert state.tiers_left == (0,) * len(rules.tiers), name
        assert min(p.amount_fen for p in handed_out) >= rules.min_fen, name
        if rules.max_fen is not None:
            assert max(p.amount_fen for p in handed_out) <= rules.max_fen, name
        for number, tier in enumerate(rules.tiers, start=1):
            won = [p.amount_fen for p in handed_out if p.tier == number]
            assert won == [tier.amount_fen] * tier.quantity, name


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    total_fen=st.integers(1, MAX_AMOUNT_FEN),
    count=st.integers(1, 40),
    room_fen=st.none() | st.integers(0, 10**6),
    evenness=st.sampled_from(splitting.EVENNESS_CHOICES),
    strategy=st.sampled_from([Strategy.FIXED, Strategy.LUCKY, Strategy.DOUBLE_MEAN]),
    key=st.text(alphabet="0123456789abcdef", min_size=1, max_size=64),
)
def test_totals_and_bounds_hold_for_whatever_hypothesis_finds(
    total_fen: int,
    count: int,
    room_fen: int | None,
    evenness: int,
    strategy: Strategy,
    key: str,
) -> None:
    count = min(count, total_fen)
    mean_up = -(-total_fen // count)
    max_fen = None if room_fen is None else min(mean_up + room_fen, MAX_AMOUNT_FEN)
    rules = splitting.effective(
        Rules(strategy, total_fen, count, max_fen=max_fen, evenness=evenness)
    )
    found = amounts(rules, key)
    assert len(found) == count
    assert sum(found) == total_fen
    assert min(found) >= 1
    assert max(found) <= (max_fen or total_fen)


def test_forced_draws_at_both_ends_of_the_range_keep_total_and_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The smallest, the largest and mixed draws, where rounding is worst."""
    largest = 2**52 - 1
    for first, second in [(0, 0), (largest, largest), (0, largest), (largest, 0)]:
        monkeypatch.setattr(
            splitting,
            "draw_integers",
            lambda key, index, n, a=first, b=second: [a if i % 2 == 0 else b for i in range(n)],
        )
        for name, rules in generated(each=12, seed=2):
            found = amounts(rules)
            assert sum(found) == rules.total_fen, (name, first, second)
            assert min(found) >= rules.min_fen, (name, first, second)
            assert max(found) <= (rules.max_fen or MAX_AMOUNT_FEN), (name, first, second)


def test_the_same_key_gives_the_same_portions_and_another_key_gives_others() -> None:
    rules = Rules(LUCKY, 100_000, 50)
    assert amounts(rules, "a") == amounts(rules, "a")
    assert amounts(rules, "a") != amounts(rules, "b")


def test_a_few_portions_are_pinned_so_that_no_change_can_alter_a_packet_already_open() -> None:
    assert amounts(Rules(LUCKY, 1_000, 10), "pinned") == PINNED_LUCKY
    assert amounts(Rules(Strategy.DOUBLE_MEAN, 1_000, 10), "pinned") == PINNED_DOUBLE_MEAN
    rules = Rules(Strategy.TIERS, 1_000, 10, tiers=(Tier(300, 1), Tier(100, 2)))
    found = splitting.portions(rules, "pinned", 1_000, 10, (1, 2))
    assert [(p.amount_fen, p.tier) for p in found] == PINNED_TIERS


def test_three_draws_come_from_each_sha1() -> None:
    blocks = [hashlib.sha1(f"key:7:{b}".encode()).hexdigest() for b in (0, 1)]
    expected = [int(h[a : a + 13], 16) for h in blocks for a in (0, 13, 26)]
    assert splitting.draw_integers("key", 7, 6) == expected
    assert splitting.draw_integers("key", 7, 4) == expected[:4]
    assert splitting.draws("key", 7, 2) == [(h + 0.5) / 2**52 for h in expected[:2]]
    assert all(0.0 < u < 1.0 for u in splitting.draws("key", 7, 300))


def test_a_finished_lane_gives_nothing_more() -> None:
    with pytest.raises(ValueError, match="no portion is left"):
        splitting.portion(Rules(LUCKY, 5, 1), State(0, 0, 1, (), 5, 1), "key")


# --- fixed ----------------------------------------------------------------------------------------


def test_fixed_spreads_the_odd_fen_over_the_packet() -> None:
    assert amounts(Rules(Strategy.FIXED, 11, 4)) == [2, 3, 3, 3]
    assert amounts(Rules(Strategy.FIXED, 10, 5)) == [2, 2, 2, 2, 2]
    running = 0
    for i, amount in enumerate(amounts(Rules(Strategy.FIXED, 1_000_003, 997)), start=1):
        running += amount
        assert running == i * 1_000_003 // 997


def test_a_product_beyond_2_53_would_lose_a_fen_and_quotient_and_remainder_do_not() -> None:
    """4,121,339,238,892 fen in 10^8 portions; the control is the rule written with doubles."""
    total_fen, count = 4_121_339_238_892, 10**8
    assert int(float(count) * float(total_fen) / float(count)) != total_fen

    rules = Rules(Strategy.FIXED, total_fen, count)
    shares = splitting.lanes(rules, 2)
    assert sum(share.total_fen for share in shares) == total_fen
    for share in shares:
        first = splitting.start(rules, share.total_fen, share.count, ())
        for i in (0, 1, 12_345_678, share.count - 2, share.count - 1):
            paid_fen = i * share.total_fen // share.count
            state = replace(
                first, left_fen=share.total_fen - paid_fen, left_count=share.count - i, index=i
            )
            portion, after = splitting.portion(rules, state, "key")
            assert portion.amount_fen == (i + 1) * share.total_fen // share.count - paid_fen
        assert after.left_fen == 0


# --- a new epoch ----------------------------------------------------------------------------------


def test_a_lane_rebuilt_after_a_loss_still_ends_exactly_at_its_total() -> None:
    """Redis forgets; only some of what it handed out was committed; the next epoch goes on."""
    for name, rules in generated(each=25, seed=3):
        rng = random.Random(name)
        state = whole(rules)
        paid_fen, epoch = 0, 1
        while state.left_count:
            left_fen, left_count = state.left_fen, state.left_count
            tiers_left = list(state.tiers_left)
            for _ in range(rng.randint(1, left_count)):
                portion, state = splitting.portion(rules, state, f"{name}:{epoch}")
                if rng.random() < 0.7:  # Committed; the others were never told to anyone.
                    assert rules.min_fen <= portion.amount_fen, name
                    assert portion.amount_fen <= (rules.max_fen or MAX_AMOUNT_FEN), name
                    paid_fen += portion.amount_fen
                    left_fen -= portion.amount_fen
                    left_count -= 1
                    if portion.tier:
                        tiers_left[portion.tier - 1] -= 1
            state = splitting.start(rules, left_fen, left_count, tiers_left)
            epoch += 1
        assert paid_fen == rules.total_fen, name
        assert state.left_fen == 0, name


def test_an_epoch_refuses_to_start_with_what_cannot_be_cut() -> None:
    rules = Rules(LUCKY, 1_000, 10, min_fen=50, max_fen=150)
    for left_fen, left_count in [(499, 10), (1_501, 10), (7, 0)]:
        with pytest.raises(SplittingError) as refusal:
            splitting.start(rules, left_fen, left_count, ())
        assert refusal.value.field == "left_fen"
    with pytest.raises(SplittingError) as refusal:
        splitting.start(Rules(LUCKY, 10**9, 10**8), 10**9, MAX_LANE_COUNT + 1, ())
    assert refusal.value.code == "lane_too_large"
    tiers = Rules(Strategy.TIERS, 1_000, 10, tiers=(Tier(300, 1),))
    for quantities, code in [((), "tiers_mismatch"), ((4,), "tiers_exceed_left")]:
        with pytest.raises(SplittingError) as refusal:
            splitting.start(tiers, 1_000, 10, quantities)
        assert refusal.value.code == code


# --- refusals -------------------------------------------------------------------------------------

REFUSED = [
    (Rules(LUCKY, 0, 1), "total_fen", "not_positive"),
    (Rules(LUCKY, -5, 1), "total_fen", "not_positive"),
    (Rules(LUCKY, 100, 0), "count", "not_positive"),
    (Rules(LUCKY, 100, -1), "count", "not_positive"),
    (Rules(LUCKY, 100, 1, min_fen=0), "min_fen", "not_positive"),
    (Rules(LUCKY, 100, 1, max_fen=0), "max_fen", "not_positive"),
    (Rules(LUCKY, 1.5, 1), "total_fen", "not_whole"),  # type: ignore[arg-type]
    (Rules(LUCKY, 100, True), "count", "not_whole"),
    (Rules(LUCKY, 2**53, 1), "total_fen", "too_large"),
    (Rules(LUCKY, 100, 1, max_fen=2**53), "max_fen", "too_large"),
    (Rules(LUCKY, 100, 10, min_fen=5, max_fen=4), "max_fen", "max_below_min"),
    (Rules(LUCKY, 100, 101), "count", "count_exceeds_total"),
    (Rules(LUCKY, 100, 10, min_fen=11), "min_fen", "min_exceeds_total"),
    (Rules(LUCKY, 100, 10, max_fen=9), "max_fen", "max_below_total"),
    (Rules(LUCKY, 100, 10, evenness=3), "evenness", "unknown_evenness"),
    (Rules(LUCKY, 100, 10, evenness=0), "evenness", "unknown_evenness"),
    (Rules(LUCKY, 100, 10, tiers=(Tier(1, 1),)), "tiers", "tiers_unexpected"),
    (Rules(Strategy.TIERS, 100, 10), "tiers", "tiers_missing"),
    (Rules(Strategy.TIERS, 100, 10, tiers=(Tier(1, 1),) * 33), "tiers", "too_many_tiers"),
    (
        Rules(Strategy.TIERS, 100, 10, tiers=(Tier(1, 1),), remainder=Strategy.TIERS),
        "remainder",
        "remainder_is_tiers",
    ),
    (
        Rules(Strategy.TIERS, 100, 10, tiers=(Tier(0, 1),)),
        "tiers[1].amount_fen",
        "not_positive",
    ),
    (
        Rules(Strategy.TIERS, 100, 10, tiers=(Tier(5, 1), Tier(5, 0))),
        "tiers[2].quantity",
        "not_positive",
    ),
    (Rules(Strategy.TIERS, 100, 10, tiers=(Tier(1, 11),)), "tiers", "tiers_exceed_count"),
    (Rules(Strategy.TIERS, 100, 10, tiers=(Tier(60, 2),)), "tiers", "tiers_exceed_total"),
    (
        Rules(Strategy.TIERS, 100, 10, min_fen=5, tiers=(Tier(4, 1),)),
        "tiers",
        "tier_out_of_bounds",
    ),
    (
        Rules(Strategy.TIERS, 100, 10, max_fen=30, tiers=(Tier(31, 1),)),
        "tiers",
        "tier_out_of_bounds",
    ),
    # 1 fen for 9 people, 80 fen for at most 20 each, money that no portion would carry.
    (Rules(Strategy.TIERS, 100, 10, tiers=(Tier(99, 1),)), "tiers", "remainder_infeasible"),
    (
        Rules(Strategy.TIERS, 100, 5, max_fen=20, tiers=(Tier(10, 2),)),
        "tiers",
        "remainder_infeasible",
    ),
    (Rules(Strategy.TIERS, 100, 2, tiers=(Tier(40, 2),)), "tiers", "remainder_infeasible"),
]


@pytest.mark.parametrize(("rules", "field", "code"), REFUSED)
def test_rules_that_cannot_be_honoured_are_refused_with_field_and_reason(
    rules: Rules, field: str, code: str
) -> None:
    for refuse in (splitting.validate, splitting.effective, lambda r: splitting.lanes(r, 1)):
        with pytest.raises(SplittingError) as refusal:
            refuse(rules)
        assert (refusal.value.field, refusal.value.code) == (field, code)
        assert refusal.value.message == str(refusal.value)
        assert refusal.value.message.endswith(".")


def test_a_refusal_says_what_is_wrong_in_plain_words() -> None:
    with pytest.raises(SplittingError) as refusal:
        splitting.validate(Rules(LUCKY, 100, 10, min_fen=11))
    assert refusal.value.message == (
        "10 portions of at least ¥0.11 need ¥1.10, but there is ¥1.00."
    )


def test_the_edges_that_can_just_be_honoured_are_accepted() -> None:
    for rules in [
        Rules(LUCKY, 1, 1),
        Rules(LUCKY, MAX_AMOUNT_FEN, 1, min_fen=MAX_AMOUNT_FEN, max_fen=MAX_AMOUNT_FEN),
        Rules(LUCKY, 100, 10, min_fen=10, max_fen=10),
        Rules(LUCKY, MAX_AMOUNT_FEN, MAX_AMOUNT_FEN),
        Rules(Strategy.TIERS, 100, 2, tiers=(Tier(60, 1), Tier(40, 1))),
    ]:
        splitting.validate(rules)


# --- evenness and the cap -------------------------------------------------------------------------


@pytest.mark.parametrize("evenness", splitting.EVENNESS_CHOICES)
@pytest.mark.parametrize("count", [2, 3, 10, 1_000, 10**8])
def test_the_tail_is_the_beta_tail(evenness: int, count: int) -> None:
    for means in (0.5, 1.1, 1.7, 2.0, 3.0, 6.0):
        fraction = means / count
        if fraction < 1.0:
            expected = stats.beta.sf(fraction, evenness, evenness * (count - 1))
            found = splitting.first_portion_tail(evenness, count, fraction)
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-300)
    assert splitting.first_portion_tail(evenness, count, 1.0) == 0.0
    assert splitting.first_portion_tail(evenness, count, 0.0) == 1.0


def test_evenness_rises_to_the_first_that_keeps_the_cap_rare_and_no_further() -> None:
    """3,000 capped packets; the oracle is scipy's Beta."""
    raised = 0
    for number in range(3_000):
        rng = random.Random(f"cap:{number}")
        rules = shape(rng, LUCKY, rng.choice(["tight_max", "loose_max", "complement"]))
        asked = replace(rules, evenness=rng.choice(splitting.EVENNESS_CHOICES))
        found = splitting.effective(asked).evenness
        assert found >= asked.evenness
        assert found <= max(16, asked.evenness)
        assert replace(asked, evenness=found) == splitting.effective(asked)
        assert asked.max_fen is not None
        room_fen = asked.max_fen - asked.min_fen
        surplus_fen = asked.total_fen - asked.min_fen * asked.count
        surplus_fen = min(surplus_fen, room_fen * asked.count - surplus_fen)
        if surplus_fen <= room_fen:
            assert found == asked.evenness
            continue

        def tail(k: int, n: int = asked.count, x: float = room_fen / surplus_fen) -> float:
            return float(stats.beta.sf(x, k, k * (n - 1)))

        assert tail(found) < splitting.CAP_EXCESS_LIMIT
        if found > asked.evenness:
            raised += 1
            assert tail(found // 2) >= splitting.CAP_EXCESS_LIMIT
    assert raised > 200


def test_sixteen_is_always_even_enough_when_the_cap_is_twice_the_mean() -> None:
    """The complement rule never lets the cap come closer than that."""
    for count in [*range(2, 200), 1_000, 10**6, 10**8, MAX_AMOUNT_FEN]:
        tail = splitting.first_portion_tail(16, count, min(1.0, 2.0 / count))
        assert tail < splitting.CAP_EXCESS_LIMIT


def test_evenness_is_left_alone_where_no_cap_can_bind() -> None:
    for rules in [
        Rules(LUCKY, 1_000, 10, evenness=1),
        Rules(LUCKY, 1_000, 10, evenness=1, max_fen=1_000),
        Rules(Strategy.FIXED, 1_000, 10, evenness=1, max_fen=100),
        Rules(Strategy.DOUBLE_MEAN, 1_000, 10, evenness=1, max_fen=110),
    ]:
        assert splitting.effective(rules) == rules
    asked = Rules(LUCKY, 1_000, 10, evenness=1, max_fen=300)
    assert splitting.effective(asked).evenness > 1
    rest = Rules(Strategy.TIERS, 1_100, 11, evenness=1, max_fen=300, tiers=(Tier(100, 1),))
    assert splitting.effective(rest).evenness == splitting.effective(asked).evenness


# --- lanes ----------------------------------------------------------------------------------------


def test_lanes_hold_the_packet_to_the_fen_and_each_can_be_cut() -> None:
    for name, rules in generated(each=40, seed=4):
        rng = random.Random(name)
        for lane_count in {1, rules.count, rng.randint(1, rules.count)}:
            shares = splitting.lanes(rules, lane_count, b"seed")
            assert len(shares) == lane_count
            assert sum(s.total_fen for s in shares) == rules.total_fen, name
            assert sum(s.count for s in shares) == rules.count, name
            assert max(s.count for s in shares) - min(s.count for s in shares) <= 1, name
            for at, tier in enumerate(rules.tiers):
                dealt = [s.tiers[at] for s in shares]
                assert sum(dealt) == tier.quantity, name
                assert max(dealt) - min(dealt) <= 1, name
            prizes = [sum(s.tiers) for s in shares]
            assert max(prizes) - min(prizes) <= 1, name
            for s in shares:
                assert s.count >= 1
                cut = list(splitting.portions(rules, name, s.total_fen, s.count, s.tiers))
                assert sum(p.amount_fen for p in cut) == s.total_fen, name
                assert min(p.amount_fen for p in cut) >= rules.min_fen, name
                assert max(p.amount_fen for p in cut) <= (rules.max_fen or MAX_AMOUNT_FEN), name


def test_lanes_are_equal_up_to_a_fen_when_there_are_no_prizes() -> None:
    shares = splitting.lanes(Rules(LUCKY, 1_000_003, 1_000), 8)
    assert {s.count for s in shares} == {125}
    assert {s.total_fen for s in shares} == {125_000, 125_001}


def test_the_seed_decides_which_lane_holds_the_grand_prize_and_favours_none() -> None:
    rules = Rules(Strategy.TIERS, 1_000_000, 400, tiers=(Tier(500_000, 1), Tier(10_000, 6)))
    assert splitting.lanes(rules, 4, b"a") == splitting.lanes(rules, 4, b"a")
    holders = [0, 0, 0, 0]
    for number in range(4_000):
        shares = splitting.lanes(rules, 4, b"%d" % number)
        holders[[s.tiers[0] for s in shares].index(1)] += 1
    assert stats.chisquare(holders).pvalue > 0.001


def test_a_hundred_million_portions_need_more_than_one_lane() -> None:
    rules = Rules(LUCKY, 10**10, 10**8)
    with pytest.raises(SplittingError) as refusal:
        splitting.lanes(rules, 1)
    assert (refusal.value.field, refusal.value.code) == ("lanes", "lane_too_large")
    assert [s.count for s in splitting.lanes(rules, 2)] == [5 * 10**7, 5 * 10**7]
    for lane_count in (0, -1, 11):
        with pytest.raises(SplittingError) as refusal:
            splitting.lanes(Rules(LUCKY, 100, 10), lane_count)
        assert (refusal.value.field, refusal.value.code) == ("lanes", "lanes_out_of_range")


# --- what a verifier accepts ----------------------------------------------------------------------


class _ForeignUniform(float):
    """A draw whose powers another mathematics library rounds one unit up or down."""

    toward = 2.0

    def __pow__(self, exponent: float) -> float:  # type: ignore[override]
        return math.nextafter(float(self) ** exponent, self.toward)


@pytest.mark.parametrize("toward", [-1.0, 2.0])
def test_portions_of_another_mathematics_library_are_accepted(
    monkeypatch: pytest.MonkeyPatch, toward: float
) -> None:
    honest = splitting.draws
    monkeypatch.setattr(_ForeignUniform, "toward", toward)
    differing = 0
    for number in range(400):
        rng = random.Random(f"foreign:{number}")
        rules = shape(rng, LUCKY, rng.choice(["huge", "huge_with_max", "ordinary"]))
        state = whole(rules)
        while state.left_count:
            with monkeypatch.context() as patch:
                patch.setattr(
                    splitting, "draws", lambda k, i, n: list(map(_ForeignUniform, honest(k, i, n)))
                )
                foreign, after = splitting.portion(rules, state, "key")
            differing += foreign != splitting.portion(rules, state, "key")[0]
            assert splitting.portion_accepts(rules, state, "key", foreign.amount_fen)
            state = after
    assert differing > 50


def test_on_usual_packets_a_verifier_accepts_one_amount_only() -> None:
    for name, rules in generated(each=15, seed=5):
        if rules.total_fen > 10**9:
            continue
        state = whole(rules)
        while state.left_count:
            portion, after = splitting.portion(rules, state, name)
            accepted = [
                amount
                for amount in range(max(0, portion.amount_fen - 2), portion.amount_fen + 3)
                if splitting.portion_accepts(rules, state, name, amount)
            ]
            assert accepted == [portion.amount_fen], name
            state = after


def test_a_neighbour_is_accepted_exactly_where_the_point_is_close_to_a_whole_number() -> None:
    rules = Rules(LUCKY, 10**12 + 10, 10, evenness=16)
    slack = 16 * 10**12 * 2.0**-50
    near = far = 0
    for number in range(2_000):
        key = f"near:{number}"
        uniforms = splitting.draws(key, 0, 17)
        product = 1.0
        for j in range(16):
            product *= uniforms[j] ** (1.0 / (159 - j))
        part = ((10**12) * (1.0 - product) + uniforms[16]) % 1.0
        amount = splitting.portion(rules, whole(rules), key)[0].amount_fen
        below = splitting.portion_accepts(rules, whole(rules), key, amount - 1)
        above = splitting.portion_accepts(rules, whole(rules), key, amount + 1)
        assert below == (part < slack)
        assert above == (part >= 1.0 - slack)
        near += below or above
        far += not (below or above)
    assert near > 20
    assert far > 1_500


def test_prizes_and_exact_strategies_have_no_tolerance() -> None:
    huge = MAX_AMOUNT_FEN
    for rules in [
        Rules(Strategy.FIXED, huge, 7),
        Rules(Strategy.DOUBLE_MEAN, huge, 7),
        Rules(Strategy.TIERS, huge, 7, tiers=(Tier(huge // 8, 7 - 1),)),
    ]:
        state = whole(rules)
        portion, _ = splitting.portion(rules, state, "key")
        assert splitting.portion_accepts(rules, state, "key", portion.amount_fen)
        if rules.strategy is not Strategy.TIERS or portion.tier:
            assert not splitting.portion_accepts(rules, state, "key", portion.amount_fen + 1)
            assert not splitting.portion_accepts(rules, state, "key", portion.amount_fen - 1)
