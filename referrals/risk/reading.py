"""A campaign's people as arrays, read in steps that each take a moment.

Networks come from the visits that friends were bound by, phones from what the doors have noted,
purses from payouts (by their keyed hashes), who was seen again from the app's events. Where an app
reports none, nobody is called dead, and nobody is on the first day.

What is kept here: no statement reads more than STEP people, so that no snapshot outlives a second
or two, however large the campaign; and a large campaign is read seldom enough to take a twentieth
of one worker's time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from django.db import connection

from referrals.models import CircleTry
from referrals.risk.identities import identities_of
from referrals.risk.people import NONE, Ints, Rows

# Larger campaigns are looked at by their newest people: a look must end.
PEOPLE_MAX = 500_000
STEP = 5_000  # people a statement: some 100 ms
CIRCLES_MAX = 100_000  # the newest; a farm's are all alike

_PEOPLE = """
WITH edge AS MATERIALIZED (
    SELECT id, invitee, inviter, bound_at, click_id FROM referrals_referral
     WHERE campaign_id = %(campaign)s
       AND (%(at)s::timestamptz IS NULL OR (bound_at, id) < (%(at)s::timestamptz, %(id)s))
     ORDER BY bound_at DESC, id DESC LIMIT %(step)s
)
SELECT edge.invitee, edge.inviter, extract(epoch FROM edge.bound_at)::float8,
       extract(epoch FROM claimed.at)::float8, visit.network_hash, paid.payee_hash,
       seen.at IS NOT NULL,
       edge.bound_at > clock_timestamp() - interval '1 day'
       OR COALESCE(seen.at >= edge.bound_at + interval '1 day', false), edge.bound_at, edge.id
  FROM edge
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = %(campaign)s
  LEFT JOIN referrals_visit AS visit ON visit.click_id = edge.click_id
  -- What we claim for somebody, a reward, is no act of theirs.
  LEFT JOIN LATERAL (SELECT min(committed_at) AS at FROM packets_claim AS claim
                      WHERE claim.participant = edge.invitee
                        AND claim.committed_at >= edge.bound_at
                        AND claim.packet_id IS DISTINCT FROM growth.inviter_packet_id
                        AND claim.packet_id IS DISTINCT FROM growth.invitee_packet_id)
       AS claimed ON true
  LEFT JOIN LATERAL (SELECT max(event.at) AS at FROM referrals_serverevent AS event
                      WHERE event.participant = edge.invitee AND event.kind = 'active')
       AS seen ON true
  LEFT JOIN LATERAL (SELECT payee_hash FROM packets_payout AS payout
                      WHERE payout.participant = edge.invitee
                      ORDER BY created_at DESC, id DESC LIMIT 1) AS paid ON true
 ORDER BY edge.bound_at DESC, edge.id DESC
"""
# Those whom nobody invited, or whose own invitation is older than what is read.
_TOPS = """
SELECT top.person, paid.payee_hash FROM unnest(%(people)s::bytea[]) AS top (person)
  LEFT JOIN LATERAL (SELECT payee_hash FROM packets_payout AS payout
                      WHERE payout.participant = top.person
                      ORDER BY created_at DESC, id DESC LIMIT 1) AS paid ON true
"""
Row: TypeAlias = tuple[bytes, bytes | None, float, float, str | None, str | None, bool, bool]
NEVER = float("nan")


def campaign_people(
    campaign_id: uuid.UUID,
    most: int = PEOPLE_MAX,
    seen: Callable[[int], None] = lambda _count: None,
) -> tuple[list[bytes], Rows]:
    """The digests, and for each a row of the arrays; the newest `most` of them. `seen` hears after
    each step how many more were read."""
    rows = _invited(campaign_id, most, seen)
    place = {row[0]: number for number, row in enumerate(rows)}
    tops = list(dict.fromkeys(row[1] for row in rows if row[1] and row[1] not in place))
    for start in range(0, len(tops), STEP):
        rows += _tops(tops[start : start + STEP])
    place = {row[0]: number for number, row in enumerate(rows)}
    active = np.array([[row[7]] for row in rows], np.bool_).reshape(-1, 1)
    reports = any(row[6] for row in rows)
    people = Rows(
        inviter=np.array([NONE if row[1] is None else place[row[1]] for row in rows], np.int64),
        joined_s=np.array([row[2] for row in rows], np.float64),
        claimed_s=np.array([row[3] for row in rows], np.float64),
        device=identities_of(list(place)).device,
        network=_numbered([row[4] for row in rows]),
        payee=_numbered([row[5] for row in rows]),
        active=active if reports else active[:, :0],
        refused=_refused(campaign_id, place),
    )
    return list(place), people


def _invited(campaign_id: uuid.UUID, most: int, seen: Callable[[int], None]) -> list[Row]:
    """The newest edges' people, oldest first."""
    names: dict[str, Any] = {"campaign": campaign_id, "at": None, "id": None}
    rows: list[Row] = []
    while len(rows) < most:
        with connection.cursor() as cursor:
            cursor.execute(_PEOPLE, {**names, "step": min(STEP, most - len(rows))})
            found = cursor.fetchall()
        if not found:
            break
        rows += [
            (
                bytes(person),
                bytes(inviter),
                joined_s,
                NEVER if claimed_s is None else claimed_s,
                network,
                payee,
                reported,
                active,
            )
            for person, inviter, joined_s, claimed_s, network, payee, reported, active, *_ in found
        ]
        names["at"], names["id"] = found[-1][8:]
        seen(len(found))
    return rows[::-1]


def _tops(people: Sequence[bytes]) -> list[Row]:
    with connection.cursor() as cursor:
        cursor.execute(_TOPS, {"people": list(people)})
        return [
            (bytes(person), None, NEVER, NEVER, None, payee, False, True)
            for person, payee in cursor.fetchall()
        ]


def _refused(campaign_id: uuid.UUID, place: dict[bytes, int]) -> Ints:
    """The newest circles that somebody tried to close."""
    tries = CircleTry.objects.filter(campaign=campaign_id).order_by("-id")[:CIRCLES_MAX]
    pairs = [
        (place[bytes(friend)], place[bytes(inviter)])
        for friend, inviter in tries.values_list("invitee", "inviter")
        if bytes(friend) in place and bytes(inviter) in place
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _numbered(hashes: list[str | None]) -> Ints:
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(one, len(numbers)) if one else NONE for one in hashes], np.int64
    )
