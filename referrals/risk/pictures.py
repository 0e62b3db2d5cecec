"""A case as a picture: its people by steps of invitation, and the purses that they share."""

from __future__ import annotations

from dataclasses import dataclass

from packets.models import Payout
from referrals.models import Referral, RiskCase

PEOPLE_SHOWN = 60
STEP_X, STEP_Y, MARGIN = 110, 34, 30


@dataclass(frozen=True, slots=True)
class Spot:
    x: int
    y: int
    person: str = ""  # the digest in hex; empty: a purse
    shared: int = 0  # by so many of those shown


@dataclass(frozen=True, slots=True)
class Line:
    x1: int
    y1: int
    x2: int
    y2: int
    is_purse: bool


@dataclass(frozen=True, slots=True)
class Picture:
    people: list[Spot]
    purses: list[Spot]
    lines: list[Line]
    width: int
    height: int


def picture(case: RiskCase) -> Picture:
    """The first people of the case, left to right by who invited whom; purses at the right."""
    members = case.members.order_by("id").values_list("participant", flat=True)[:PEOPLE_SHOWN]
    people = [bytes(one) for one in members]
    edges = dict.fromkeys(people, b"")
    for friend, inviter in Referral.objects.filter(
        campaign=case.campaign_id, invitee__in=people
    ).values_list("invitee", "inviter"):
        if bytes(inviter) in edges:
            edges[bytes(friend)] = bytes(inviter)
    rows: dict[int, int] = {}
    spots: dict[bytes, Spot] = {}
    for person in people:
        depth = _depth(edges, person)
        rows[depth] = rows.get(depth, 0) + 1
        y = MARGIN + STEP_Y * (rows[depth] - 1)
        spots[person] = Spot(MARGIN + STEP_X * depth, y, person.hex())
    right = MARGIN + STEP_X * (max(rows, default=0) + 1)
    lines = [
        Line(spots[inviter].x, spots[inviter].y, spots[friend].x, spots[friend].y, False)
        for friend, inviter in edges.items()
        if inviter
    ]
    purses = []
    for place, owners in enumerate(_purses(people)):
        purse = Spot(right, MARGIN + STEP_Y * place, shared=len(owners))
        purses.append(purse)
        lines += [Line(spots[one].x, spots[one].y, purse.x, purse.y, True) for one in owners]
    tallest = max([*rows.values(), len(purses), 1])
    return Picture(
        people=list(spots.values()),
        purses=purses,
        lines=lines,
        width=right + 2 * MARGIN,
        height=2 * MARGIN + STEP_Y * tallest,
    )


def _depth(edges: dict[bytes, bytes], person: bytes) -> int:
    depth = 0
    while edges[person]:
        person, depth = edges[person], depth + 1
    return depth


def _purses(people: list[bytes]) -> list[list[bytes]]:
    """Whoever shares a purse, purse by purse, the most shared first."""
    owners: dict[str, set[bytes]] = {}
    for person, purse in Payout.objects.filter(participant__in=people).values_list(
        "participant", "payee_hash"
    ):
        owners.setdefault(purse, set()).add(bytes(person))
    shared = [sorted(some) for some in owners.values() if len(some) > 1]
    return sorted(shared, key=lambda some: (-len(some), some))
