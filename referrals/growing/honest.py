"""Honest people: how they invite, when they come, what they share with others without any harm.

Whether somebody shares, how many they ask (Pareto 2.3, a few ask hundreds) and how long a friend
waits (log-normal: most within hours, some after a week) follow measured campaigns: Iribarren and
Moro 2009 for the waiting, Goel et al. 2012 and 2016 for mostly shallow trees, Anderson et al. 2015
for deep sign-up trees. What makes a detector err is here on purpose: hubs with a hundred invitees,
some within minutes; classes and offices behind one network; families with one phone and one account
for money; the phone that a shop lends to its customers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from referrals.growing.crowd import Crowd
from referrals.growing.shape import DAY_S, NOBODY, Bools, Floats, Ints, Preset


@dataclass(frozen=True, slots=True)
class Habits:
    shares: float  # the share of people who ask anybody
    converts: float  # the share of those asked who join
    cold: float  # the share of people who come by themselves


HABITS = {
    Preset.COLD: Habits(shares=0.35, converts=0.12, cold=0.85),
    Preset.VIRAL: Habits(shares=0.60, converts=0.42, cold=0.20),
}
PARETO = 2.3  # tail of the number asked
ASKED_MIN = 2  # the smallest number asked by somebody who shares
ASKED_MAX = 2_000  # nobody has more friends than that
OPENS = 0.7  # the share of those asked who open the link at all, at least
WAIT_MEDIAN_S, WAIT_SIGMA = 4 * 3600.0, 1.6
CAMPAIGN_S = 14 * DAY_S  # cold people come over two weeks, most at the start

HUB_EACH, HUB_CHILDREN = 5_000, (100, 150)  # a hub for so many people; its invitees
CLASS_EACH, CLASS_CHILDREN = 2_500, (25, 45)  # a class invited by one of it, within an hour
SHOP_EACH, SHOP_PEOPLE = 20_000, (40, 100)  # a lent phone for so many people; who used it
FAMILY, FAMILY_MAX, FAMILY_PURSE = 0.03, 3, 0.4  # invitees on the inviter's phone; one purse
ASKS_MONEY = 0.6
CLAIMS = 0.85

# Seen on day 1, 7 and 30: invited people stay longer than those who came by themselves.
STAYS_INVITED = (0.45, 0.28, 0.15)
STAYS_COLD = (0.35, 0.20, 0.10)


def grown(rng: np.random.Generator, preset: Preset, people: int) -> Crowd:
    """`people` honest people."""
    crowd = Crowd()
    groups = [
        *((HUB_CHILDREN, True) for _ in range(people // HUB_EACH)),
        *((CLASS_CHILDREN, False) for _ in range(people // CLASS_EACH)),
    ]
    sizes = [int(rng.integers(low, high + 1)) for (low, high), _ in groups]
    _spread(rng, crowd, HABITS[preset], people - sum(sizes))
    _settle(rng, crowd)
    for (_, is_hub), size in zip(groups, sizes, strict=True):
        _gather(rng, crowd, size, is_hub)
    _families(rng, crowd)
    _shops(rng, crowd, people // SHOP_EACH)
    return crowd


def _spread(rng: np.random.Generator, crowd: Crowd, habits: Habits, people: int) -> None:
    """Generation after generation, until those who joined first are `people`."""
    inviter, joined, asked = [], [], []
    cold = max(1, round(people * habits.cold))
    total = 0
    while total < people:
        count = max(1, min(cold, people - total))
        parents = np.full(count, NOBODY)
        times = CAMPAIGN_S * rng.beta(1.0, 2.5, count)
        while parents.size:
            friends = _asked(rng, habits, parents.size)
            inviter.append(parents)
            joined.append(times)
            asked.append(friends)
            rows = np.arange(total, total + parents.size)
            total += parents.size
            children = rng.binomial(friends, habits.converts)
            parents = np.repeat(rows, children)
            times = np.repeat(times, children) + waits(rng, parents.size)
            if total > 3 * people:  # what is born later is cut anyway
                break
    _keep_first(crowd, rng, people, np.concatenate(inviter), joined, asked)


def _keep_first(
    crowd: Crowd,
    rng: np.random.Generator,
    people: int,
    inviter: Ints,
    joined: list[Floats],
    asked: list[Ints],
) -> None:
    """The first to join: an inviter is always among them when an invitee is."""
    times = np.concatenate(joined)
    keep = np.sort(np.argsort(times, kind="stable")[:people])
    place = np.full(times.size, NOBODY)
    place[keep] = np.arange(keep.size)
    kept = inviter[keep]
    kept = np.where(kept == NOBODY, NOBODY, place[kept])
    _people(rng, crowd, kept, times[keep], np.concatenate(asked)[keep])


def _people(
    rng: np.random.Generator, crowd: Crowd, inviter: Ints, joined_s: Floats, asked: Ints
) -> Ints:
    count = inviter.size
    thinks_s = 4 + rng.lognormal(np.log(90.0), 1.0, count)
    stays = np.where((inviter != NOBODY)[:, None], STAYS_INVITED, STAYS_COLD)
    return crowd.add(
        inviter=inviter,
        joined_s=joined_s,
        claimed_s=np.where(rng.random(count) < CLAIMS, joined_s + thinks_s, np.nan),
        opened=rng.binomial(asked, OPENS),
        active=rng.random((count, 3)) < stays,
    )


def _asked(rng: np.random.Generator, habits: Habits, count: int) -> Ints:
    many = np.rint(ASKED_MIN * (1 + rng.pareto(PARETO, count)))
    asked = np.where(rng.random(count) < habits.shares, np.minimum(many, ASKED_MAX), 0)
    return asked.astype(np.int64)


def waits(rng: np.random.Generator, count: int) -> Floats:
    """Seconds from an invitation to joining."""
    return 30 + rng.lognormal(np.log(WAIT_MEDIAN_S), WAIT_SIGMA, count)


def _settle(rng: np.random.Generator, crowd: Crowd) -> None:
    """A phone and a purse of one's own; a network shared with neighbours, colleagues, or a city."""
    count = crowd.size
    crowd.device = crowd.fresh(count)
    crowd.payee = _purses(rng, crowd, count)
    where = rng.random(count)
    homes = crowd.fresh(count // 6 + 1)
    mobile = crowd.fresh(count // 400 + 1)
    offices = crowd.fresh(count // 500 + 1)
    crowd.network = np.select(
        [where < 0.55, where < 0.80],
        [rng.choice(homes, count), rng.choice(mobile, count)],
        rng.choice(offices, count),
    )


def _purses(rng: np.random.Generator, crowd: Crowd, count: int) -> Ints:
    return np.where(rng.random(count) < ASKS_MONEY, crowd.fresh(count), NOBODY)


def _gather(rng: np.random.Generator, crowd: Crowd, size: int, is_hub: bool) -> None:
    """One person brings `size` others: a hub by posting to many, or a class in one room."""
    head = int(rng.integers(crowd.size))
    if not is_hub:
        after = rng.uniform(30.0, 3600.0, size)
    elif rng.random() < 0.5:
        after = rng.uniform(20.0, 1200.0, size)  # a post in a large group
    else:
        after = waits(rng, size)
    joined_s = crowd.joined_s[head] + after
    rows = _people(rng, crowd, np.full(size, head), joined_s, np.zeros(size, np.int64))
    crowd.device[rows] = crowd.fresh(size)
    crowd.payee[rows] = _purses(rng, crowd, size)
    others = crowd.network[rng.integers(rows[0], size=size)]
    crowd.network[rows] = others if is_hub else crowd.network[head]
    crowd.is_hub[head] |= is_hub


def _families(rng: np.random.Generator, crowd: Crowd) -> None:
    """Some invite their family: on the same phone, and often with one purse."""
    invited = np.flatnonzero(crowd.inviter != NOBODY)
    rows = invited[rng.random(invited.size) < FAMILY]
    inviter = crowd.inviter[rows]
    by_inviter = np.argsort(inviter, kind="stable")
    sorted_inviter = inviter[by_inviter]
    rank = np.arange(rows.size) - np.searchsorted(sorted_inviter, sorted_inviter)
    rows = rows[by_inviter][rank < FAMILY_MAX]
    rows = rows[~np.isin(crowd.inviter[rows], rows)]  # children of children live elsewhere
    parents = crowd.inviter[rows]
    crowd.device[rows] = crowd.device[parents]
    crowd.network[rows] = crowd.network[parents]
    purse = _some(rng, rows.size, FAMILY_PURSE) & (crowd.payee[parents] != NOBODY)
    crowd.payee[rows[purse]] = crowd.payee[parents[purse]]


def _shops(rng: np.random.Generator, crowd: Crowd, count: int) -> None:
    """A shop's phone, on which customers without one of their own joined."""
    for phone in crowd.fresh(count):
        low, high = SHOP_PEOPLE
        crowd.device[rng.integers(crowd.size, size=int(rng.integers(low, high + 1)))] = phone


def _some(rng: np.random.Generator, count: int, share: float) -> Bools:
    chosen: Bools = rng.random(count) < share
    return chosen
