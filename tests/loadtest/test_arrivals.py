"""Curves of a night, and the arrivals they become."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from loadtest import arrivals as scheduling
from loadtest.arrivals import APART_S, Errand, arrivals, portions_of, rounds_of
from loadtest.profiles import MIDNIGHT_S, PROFILES, STAMPEDE_AT_S, Profile, arrivals_of_second

EVERY = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@EVERY
def test_a_curve_is_a_share_of_the_peak_and_reaches_it(profile: Profile) -> None:
    shares = [profile.share(second / 10) for second in range(int(profile.length_s * 10))]
    assert all(0 < share <= 1 for share in shares)
    assert max(shares) == 1
    assert profile.share(-0.1) == profile.share(profile.length_s) == 0


@EVERY
def test_as_many_arrive_as_the_curve_says(profile: Profile) -> None:
    peak = 97.0
    seconds = Counter(int(one.at_s) for one in arrivals(profile, peak, seed=3))
    owed = 0.0
    for second in range(int(profile.length_s)):
        owed += arrivals_of_second(profile, second, peak)
        assert abs(sum(seconds[at] for at in range(second + 1)) - owed) <= 1 - 1e-7


@EVERY
def test_the_same_seed_makes_the_same_night(profile: Profile) -> None:
    first = list(arrivals(profile, 40, seed=7))
    assert first == list(arrivals(profile, 40, seed=7))
    assert first != list(arrivals(profile, 40, seed=8))
    assert [one.at_s for one in first] == sorted(one.at_s for one in first)


@EVERY
def test_nobody_has_two_claims_of_one_packet_under_way(profile: Profile) -> None:
    last: dict[tuple[int, int], float] = {}
    tapped_again = 0
    for one in arrivals(profile, 200, seed=1):
        if one.errand is Errand.CLAIM:
            before = last.get((one.user, one.round))
            assert before is None or one.at_s - before >= APART_S
            tapped_again += before is not None
            last[one.user, one.round] = one.at_s
    assert tapped_again > 0


def test_midnight_stands_above_the_night() -> None:
    night = PROFILES["lny_eve"]
    assert night.share(MIDNIGHT_S) == 1
    assert all(night.share(second) < 1 for second in range(int(MIDNIGHT_S)))
    afternoon, tail = night.share(0), night.share(night.length_s - 1)
    assert afternoon < 0.15 and tail < 0.15


def test_a_stampede_comes_at_one_instant() -> None:
    instant = [
        one.at_s
        for one in arrivals(PROFILES["stampede"], 500, seed=1)
        if int(one.at_s) == STAMPEDE_AT_S
    ]
    assert len(instant) > 350
    assert max(instant) - min(instant) <= scheduling.AT_ONCE_S


def test_each_round_has_a_packet_and_wins_its_share() -> None:
    rain = PROFILES["rain"]
    assert rounds_of(rain) == [0.0, 2.0, 22.0, 42.0, 62.0, 82.0]
    claims = Counter(one.round for one in arrivals(rain, 300, seed=5) if one.errand is Errand.CLAIM)
    portions = portions_of(rain, 300, seed=5)
    assert portions == [max(1, round(claims[number] / 21)) for number in range(6)]


def test_views_are_a_third_of_the_night() -> None:
    night = list(arrivals(replace(PROFILES["lny_eve"], length_s=60.0), 300, seed=2))
    views = sum(one.errand is Errand.VIEW for one in night)
    assert views / len(night) == pytest.approx(10 / 31, abs=0.03)
