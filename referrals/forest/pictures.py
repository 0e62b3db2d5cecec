"""A person's place in the forest as a picture: who is above them, who is below, up to a bound.

Reads by the indexes of the edges, a level at a time; what doesn't fit is counted, not drawn.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from packets.models import Participant
from packets.selectors import masked
from referrals.forest import selectors
from referrals.models import Ban, Referral, Reward

MAX_ABOVE = 4
MAX_BELOW = 60
MAX_LEVELS = 6
MAX_FRIENDS = 12  # of one person, the newest: a hub of hundreds would hide everybody else
X_STEP = 54
Y_STEP = 74
MARGIN = 34


@dataclass(frozen=True, slots=True)
class Dot:
    """One person; `x` and `y` in the picture's units. `more`: friends who aren't drawn."""

    person: str  # hex
    name: str
    x: int
    y: int
    friends: int
    more: int
    rewards: int
    is_self: bool
    is_banned: bool


@dataclass(frozen=True, slots=True)
class Line:
    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True, slots=True)
class Picture:
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    width: int
    height: int


def picture(campaign_id: uuid.UUID, person: bytes) -> Picture:
    """The person, up to MAX_ABOVE people above and MAX_BELOW below them."""
    above = selectors.ancestors(campaign_id, person, MAX_ABOVE)
    children = _below(campaign_id, person)
    line = [*reversed(above), person]
    columns = _columns(person, children)
    rows = _rows(person, children, len(above))
    places = {who: (columns[who], rows[who]) for who in columns}
    places |= {who: (columns[person], number) for number, who in enumerate(above[::-1])}
    edges = list(itertools.pairwise(line))
    edges += [(upper, lower) for upper, below in children.items() for lower in below]
    spots = {
        who: (MARGIN + round(column * X_STEP), MARGIN + row * Y_STEP)
        for who, (column, row) in places.items()
    }
    return Picture(
        dots=_dots(campaign_id, person, spots, children),
        lines=tuple(Line(*spots[upper], *spots[lower]) for upper, lower in edges),
        width=2 * MARGIN + max(x for x, _ in spots.values()),
        height=2 * MARGIN + max(y for _, y in spots.values()) - MARGIN,
    )


def _below(campaign_id: uuid.UUID, person: bytes) -> dict[bytes, list[bytes]]:
    children: dict[bytes, list[bytes]] = {}
    level, left = [person], MAX_BELOW
    for _ in range(MAX_LEVELS):
        following: list[bytes] = []
        for who in level:
            if left <= 0:
                return children
            mine = Referral.objects.filter(campaign=campaign_id, inviter=who).order_by("-id")
            found = mine.values_list("invitee", flat=True)[: min(left, MAX_FRIENDS)]
            if friends := [bytes(friend) for friend in found]:
                children[who] = friends
                following += friends
                left -= len(friends)
        level = following
    return children


def _columns(person: bytes, children: Mapping[bytes, list[bytes]]) -> dict[bytes, float]:
    """People without friends stand side by side; everybody else over the middle of theirs."""
    columns: dict[bytes, float] = {}
    used = 0

    def place(who: bytes) -> float:
        nonlocal used
        below = [place(friend) for friend in children.get(who, ())]
        if below:
            columns[who] = (below[0] + below[-1]) / 2
        else:
            columns[who] = used
            used += 1
        return columns[who]

    place(person)
    return columns


def _rows(person: bytes, children: Mapping[bytes, list[bytes]], first: int) -> dict[bytes, int]:
    rows, waiting = {person: first}, [person]
    while waiting:
        who = waiting.pop()
        for friend in children.get(who, ()):
            rows[friend] = rows[who] + 1
            waiting.append(friend)
    return rows


def _dots(
    campaign_id: uuid.UUID,
    person: bytes,
    spots: Mapping[bytes, tuple[int, int]],
    children: Mapping[bytes, list[bytes]],
) -> tuple[Dot, ...]:
    people = list(spots)
    names = Participant.objects.filter(digest__in=people).values_list("digest", "subject")
    known = {bytes(digest): subject for digest, subject in names}
    counted = Referral.objects.filter(campaign=campaign_id, inviter__in=people)
    friends = _numbers(counted.values_list("inviter").annotate(n=Count("pk")))
    granted = Reward.objects.filter(
        participant__in=people, state=Reward.State.GRANTED, referral__campaign=campaign_id
    )
    rewards = _numbers(granted.values_list("participant").annotate(n=Count("pk")))
    banned = {
        bytes(ban.participant)
        for ban in Ban.objects.filter(participant__in=people, lifted_at=None)
        if ban.campaign_id in (None, campaign_id)
    }
    above = {who for who in people if who not in children and spots[who][1] < spots[person][1]}
    return tuple(
        Dot(
            person=who.hex(),
            name=masked(known[who]) if who in known else who.hex()[:6],
            x=x,
            y=y,
            friends=friends.get(who, 0),
            more=max(0, friends.get(who, 0) - (1 if who in above else len(children.get(who, ())))),
            rewards=rewards.get(who, 0),
            is_self=who == person,
            is_banned=who in banned,
        )
        for who, (x, y) in spots.items()
    )


def _numbers(rows: Iterable[tuple[Any, int]]) -> dict[bytes, int]:
    return {bytes(who): number for who, number in rows}
