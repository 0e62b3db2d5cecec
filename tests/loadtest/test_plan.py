"""The crowd's plan: everybody once, a fifth again, everybody at the end, nobody twice at a time."""

from __future__ import annotations

import random
from collections import Counter

from loadtest.answers import Kind
from loadtest.plan import AGAIN_AT_MOST, REPEAT_AFTER_AT_LEAST, Errand, Plan, people_of


def carry_out(plan: Plan, hands: int = 1) -> list[Errand]:
    """All errands in the order of their beginning; `hands` of them under way at a time."""
    dice = random.Random(7)
    begun: list[Errand] = []
    under_way: list[Errand] = []
    while not plan.finished:
        errand = plan.next_errand() if len(under_way) < hands else None
        if errand is not None:
            assert errand.user not in {other.user for other in under_way}
            begun.append(errand)
            under_way.append(errand)
        else:
            plan.done(under_way.pop(dice.randrange(len(under_way))))
    return begun


def test_people_of_two_runs_are_strangers() -> None:
    monday, tuesday = people_of("monday", 1000), people_of("tuesday", 1000)
    assert len(set(monday) | set(tuesday)) == 2000


def test_everybody_claims_once_a_fifth_repeats_and_everybody_asks_at_the_end() -> None:
    people = people_of("run", 5000)
    errands = carry_out(Plan(people, seed=1), hands=100)
    kinds = Counter(errand.kind for errand in errands)
    assert kinds[Kind.FIRST] == 5000
    assert kinds[Kind.AGAIN] == 5000
    # 20 % of 5,000 within five standard deviations (28 each).
    assert 860 <= kinds[Kind.REPEAT] <= 1140
    for kind in (Kind.FIRST, Kind.AGAIN):
        assert sorted(errand.user for errand in errands if errand.kind is kind) == people


def test_the_last_round_begins_when_the_first_is_over() -> None:
    errands = carry_out(Plan(people_of("run", 500), seed=1), hands=30)
    first_again = next(i for i, errand in enumerate(errands) if errand.kind is Kind.AGAIN)
    assert all(errand.kind is Kind.AGAIN for errand in errands[first_again:])


def test_a_repeat_comes_later_not_at_once() -> None:
    errands = carry_out(Plan(people_of("run", 2000), seed=3))
    newcomers_before: dict[str, int] = {}
    newcomers = 0
    for errand in errands:
        if errand.kind is Kind.FIRST:
            newcomers += 1
            newcomers_before[errand.user] = newcomers
        elif errand.kind is Kind.REPEAT and newcomers < 2000:
            assert newcomers - newcomers_before[errand.user] >= REPEAT_AFTER_AT_LEAST


def test_the_same_seed_makes_the_same_crowd() -> None:
    people = people_of("run", 300)
    assert carry_out(Plan(people, seed=5)) == carry_out(Plan(people, seed=5))
    assert carry_out(Plan(people, seed=5)) != carry_out(Plan(people, seed=6))


def test_asking_again_alone_brings_nobody_new() -> None:
    people = people_of("run", 300)
    errands = carry_out(Plan(people, seed=1, first=False), hands=10)
    assert {errand.kind for errand in errands} == {Kind.AGAIN}
    assert sorted(errand.user for errand in errands) == people


def test_a_very_large_crowd_is_asked_again_by_sample() -> None:
    people = people_of("run", AGAIN_AT_MOST + 1)
    errands = carry_out(Plan(people, seed=1), hands=10)
    again = [errand.user for errand in errands if errand.kind is Kind.AGAIN]
    assert len(again) == len(set(again)) == AGAIN_AT_MOST


def test_a_crowd_of_one() -> None:
    kinds = [errand.kind for errand in carry_out(Plan(["alice"], seed=1))]
    assert kinds[0] is Kind.FIRST
    assert kinds[-1] is Kind.AGAIN
