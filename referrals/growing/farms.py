"""Farmers: accounts made to be rewarded. What gives each kind away is stated here, kind by kind.

Every farm pays for being one: its accounts' money has to reach a few purses, and its accounts are
left alone once they were paid. Everything else a farm may hide: a phone for each account, the
network of a whole city, the pace of honest people.

A farm's head came by themselves or was invited by an honest person, and now and then an honest
person comes through a farmer's link.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from referrals.growing.crowd import Crowd
from referrals.growing.shape import DAY_S, KINDS, NOBODY, FarmKind, Ints

Range = tuple[float, float]
Count = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Ways:
    """How one kind works; ranges are drawn per farm."""

    people: Count
    gap_s: Range  # mean time between two accounts
    jitter: float  # of that time: 0 a clock, 1 as irregular as people
    per_device: Range
    per_payee: Range
    networks: Count
    hides: float  # the share of farms in networks of honest people
    claims_s: Range  # from joining to the first claim
    stays: tuple[float, float, float]  # seen on day 1, 7, 30


DEAD = (0.03, 0.01, 0.005)
WAYS = {
    FarmKind.STAR: Ways((20, 200), (15, 120), 0.2, (1, 5), (4, 20), (1, 3), 0.3, (1, 4), DEAD),
    FarmKind.CHAIN: Ways((10, 40), (60, 900), 0.4, (1, 3), (3, 10), (1, 3), 0.3, (1, 6), DEAD),
    FarmKind.RING: Ways((8, 30), (300, 3600), 0.6, (1, 2), (3, 8), (1, 4), 0.5, (2, 20), DEAD),
    FarmKind.DEVICE: Ways((8, 80), (120, 1800), 0.6, (8, 60), (3, 12), (1, 4), 0.5, (2, 30), DEAD),
    FarmKind.DRIP: Ways(
        (15, 60), (4 * 3600, 30 * 3600), 1.0, (1, 1), (4, 8), (15, 60), 1.0, (20, 300),
        (0.12, 0.04, 0.01),
    ),
}  # fmt: skip
# Farms whose head an honest person invited; with lieutenants between; with an honest guest.
INVITED, LAYERED, GUEST = 0.3, 0.25, 0.5
HEAD_ACTIVE = 0.6  # a head looks after the others
ASKS_MONEY = 0.95


def planted(rng: np.random.Generator, crowd: Crowd, kind: FarmKind, people: int) -> None:
    """Farms of one kind with `people` accounts in all, among the honest people already there."""
    honest = np.flatnonzero(crowd.farm == NOBODY)
    low, high = WAYS[kind].people
    while people:
        size = min(people, int(rng.integers(low, high + 1)))
        if people - size < low:
            size = people  # what is left is too few for a farm of its own
        _plant(rng, crowd, kind, size, honest)
        people -= size


def _plant(rng: np.random.Generator, crowd: Crowd, kind: FarmKind, size: int, honest: Ints) -> None:
    ways = WAYS[kind]
    rows = np.arange(crowd.size, crowd.size + size)
    above, after_s = _above(rng, crowd, honest)
    gap = rng.uniform(*ways.gap_s)
    gaps = gap * (1 - ways.jitter + ways.jitter * rng.exponential(1.0, size)) + 1.0
    joined_s = after_s + np.cumsum(gaps)
    active = rng.random((size, 3)) < ways.stays
    active[0] = rng.random(3) < HEAD_ACTIVE
    crowd.add(
        inviter=_shape(rng, kind, rows, above),
        joined_s=joined_s,
        claimed_s=joined_s + rng.uniform(*ways.claims_s, size),
        opened=np.zeros(size, np.int64),
        device=_shared(rng, crowd, size, ways.per_device),
        network=_networks(rng, crowd, honest, size, ways),
        payee=np.where(
            rng.random(size) < ASKS_MONEY, _shared(rng, crowd, size, ways.per_payee), NOBODY
        ),
        active=active,
        farm=np.full(size, crowd.farms),
        kind=np.full(size, KINDS.index(kind)),
    )
    crowd.farms += 1
    if kind is FarmKind.RING:
        crowd.refused.append((int(rows[0]), int(rows[-1])))
    if honest.size and rng.random() < GUEST:
        _invite_guest(rng, crowd, honest, head=int(rows[0]))


def _above(rng: np.random.Generator, crowd: Crowd, honest: Ints) -> tuple[int, float]:
    """Who invited the head, if anybody, and the time before which nothing happened."""
    if honest.size and rng.random() < INVITED:
        above = int(rng.choice(honest))
        return above, float(crowd.joined_s[above])
    return NOBODY, float(rng.uniform(0, 10 * DAY_S))


def _shape(rng: np.random.Generator, kind: FarmKind, rows: Ints, above: int) -> Ints:
    """Who invites whom inside the farm."""
    size, nth = rows.size, np.arange(rows.size)
    if kind is FarmKind.CHAIN:
        inviter = rows - 1
    elif kind is FarmKind.RING or kind is FarmKind.DEVICE:
        # Anybody who is already in, rather one of the last few.
        back = np.minimum(1 + rng.geometric(0.4, size) - 1, np.maximum(nth, 1))
        inviter = rows - np.maximum(back, 1)
    else:
        lieutenants = size // 10 if rng.random() < LAYERED else 0
        under = rng.integers(0, lieutenants + 1, size)
        inviter = rows[0] + np.where(nth > lieutenants, under, 0)
    inviter[0] = above
    return inviter


def _shared(rng: np.random.Generator, crowd: Crowd, size: int, each: Range) -> Ints:
    """Identifiers for `size` accounts, so that about `each` accounts have the same."""
    count = max(1, round(size / rng.uniform(*each)))
    dealt: Ints = crowd.fresh(count)[rng.permutation(np.arange(size) % count)]
    return dealt


def _networks(rng: np.random.Generator, crowd: Crowd, honest: Ints, size: int, ways: Ways) -> Ints:
    count = min(size, int(rng.integers(ways.networks[0], ways.networks[1] + 1)))
    if honest.size and rng.random() < ways.hides:
        pool = crowd.network[rng.choice(honest, count)]
    else:
        pool = crowd.fresh(count)
    drawn: Ints = pool[rng.integers(count, size=size)]
    return drawn


def _invite_guest(rng: np.random.Generator, crowd: Crowd, honest: Ints, head: int) -> None:
    """An honest person who had come by themselves comes through a farmer's link instead."""
    guest = int(rng.choice(honest))
    is_later: bool = crowd.joined_s[guest] > crowd.joined_s[head]
    if crowd.inviter[guest] == NOBODY and is_later:
        crowd.inviter[guest] = head
