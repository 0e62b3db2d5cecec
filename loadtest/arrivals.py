"""Who wants what, and when: a profile, a PEAK and a seed become a list of scheduled arrivals.

Pure and the same in every process: each of a drill's workers makes the whole list and takes the
people who are its own. One person always belongs to one worker, and the same person never wants two
things of one packet within `APART_S`, so that what a person heard of it has an order
(`loadtest.ledger_check` relies on it).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from loadtest.profiles import Profile, arrivals_of_second

FIRST_ROUND = 0  # the packet that is open from the beginning
NEW_SHARE = 0.75  # of the claims come from somebody new; the others tap again
TAIL = 0.5  # of the Pareto law by which some tap again much more often than others
APART_S = 3.0  # longer than a promised answer takes, so that a person's answers have an order
AT_ONCE_S = 0.1


class Errand(StrEnum):
    VIEW = "view"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Arrival:
    """`at_s`: seconds after the drill's beginning. `round`: which packet; see `rounds_of`."""

    at_s: float
    user: int
    errand: Errand
    round: int


def rounds_of(profile: Profile) -> list[float]:
    """When each packet opens: one from the beginning, and one for each moment that is a round."""
    return [0.0, *(moment.at_s for moment in profile.moments if moment.round)]


def arrivals(profile: Profile, peak_per_s: float, seed: int) -> Iterator[Arrival]:
    """In the order of their times."""
    dice = random.Random(seed)
    opens = rounds_of(profile)
    owed = 0.0
    people: list[int] = []
    last: dict[tuple[int, int], float] = {}
    current = FIRST_ROUND
    for second in range(int(profile.length_s)):
        owed += arrivals_of_second(profile, second, peak_per_s)
        count = int(round(owed, 6))  # sums of floats are a hair below whole numbers
        owed -= count
        width = AT_ONCE_S if second in profile.at_once else 1.0
        for at_s in sorted(second + dice.random() * width for _ in range(count)):
            while current + 1 < len(opens) and at_s >= opens[current + 1]:
                current += 1
            user = _who(dice, people, last, current, at_s)
            view = dice.random() < profile.view_share
            if not view:
                last[user, current] = at_s
            yield Arrival(at_s, user, Errand.VIEW if view else Errand.CLAIM, current)


def _who(
    dice: random.Random,
    people: list[int],
    last: dict[tuple[int, int], float],
    current: int,
    at_s: float,
) -> int:
    if people and dice.random() >= NEW_SHARE:
        rank = min(int(dice.paretovariate(TAIL)) - 1, len(people) - 1)
        user = people[rank]
        if at_s - last.get((user, current), -APART_S) >= APART_S:
            return user
    people.append(len(people))
    return people[-1]


def portions_of(profile: Profile, peak_per_s: float, seed: int) -> list[int]:
    """How many portions each round's packet has, so that the stated share of its claims wins."""
    claims = [0] * len(rounds_of(profile))
    for arrival in arrivals(profile, peak_per_s, seed):
        claims[arrival.round] += arrival.errand is Errand.CLAIM
    return [max(1, round(count * profile.win_share)) for count in claims]
