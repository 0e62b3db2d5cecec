"""A campaign's people as arrays, in one statement.

Networks come from the visits that friends were bound by, phones from what the doors have noted,
purses from payouts (by their keyed hashes), who was seen again from the app's events. Where an app
reports none, nobody is called dead, and nobody is on the first day.
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from django.db import connection

from referrals.risk.identities import identities_of
from referrals.risk.people import NONE, Ints, Rows

# Larger campaigns are looked at by their newest people: a sweep must end.
PEOPLE_MAX = 500_000

_PEOPLE = """
WITH edge AS MATERIALIZED (
    SELECT invitee, inviter, bound_at, click_id FROM referrals_referral
     WHERE campaign_id = %(campaign)s ORDER BY id DESC LIMIT %(most)s
), person AS (
    SELECT invitee AS id FROM edge UNION SELECT inviter FROM edge
)
SELECT person.id, edge.inviter, extract(epoch FROM edge.bound_at)::float8,
       extract(epoch FROM claimed.at)::float8, visit.network_hash, paid.payee_hash,
       edge.bound_at > clock_timestamp() - interval '1 day' OR edge.bound_at IS NULL
       OR EXISTS (SELECT FROM referrals_serverevent AS event
                   WHERE event.participant = person.id AND event.kind = 'active'
                     AND event.at >= edge.bound_at + interval '1 day')
  FROM person
  LEFT JOIN edge ON edge.invitee = person.id
  LEFT JOIN referrals_visit AS visit ON visit.click_id = edge.click_id
  LEFT JOIN LATERAL (SELECT min(committed_at) AS at FROM packets_claim AS claim
                      WHERE claim.participant = person.id
                        AND claim.committed_at >= edge.bound_at) AS claimed ON true
  LEFT JOIN LATERAL (SELECT payee_hash FROM packets_payout AS payout
                      WHERE payout.participant = person.id
                      ORDER BY created_at DESC, id DESC LIMIT 1) AS paid ON true
 ORDER BY edge.bound_at NULLS FIRST, person.id
"""
_REPORTS = """
SELECT EXISTS (SELECT FROM referrals_referral AS edge
                 JOIN referrals_serverevent AS event
                   ON event.participant = edge.invitee AND event.kind = 'active'
                WHERE edge.campaign_id = %(campaign)s)
"""


def campaign_people(campaign_id: uuid.UUID) -> tuple[list[bytes], Rows]:
    """The digests, and for each a row of the arrays."""
    names: dict[str, Any] = {"campaign": campaign_id, "most": PEOPLE_MAX}
    with connection.cursor() as cursor:
        cursor.execute(_REPORTS, names)
        (reports,) = cursor.fetchone()
        cursor.execute(_PEOPLE, names)
        found = cursor.fetchall()
    people = [bytes(row[0]) for row in found]
    place = {person: row for row, person in enumerate(people)}
    active = np.array([[bool(row[6])] for row in found], np.bool_).reshape(-1, 1)
    return people, Rows(
        inviter=np.array([NONE if row[1] is None else place[bytes(row[1])] for row in found], int),
        joined_s=np.array([_or_nan(row[2]) for row in found], np.float64),
        claimed_s=np.array([_or_nan(row[3]) for row in found], np.float64),
        device=identities_of(people).device,
        network=_numbered([row[4] for row in found]),
        payee=_numbered([row[5] for row in found]),
        active=active if reports else active[:, :0],
        refused=np.empty((0, 2), np.int64),
    )


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _numbered(hashes: list[str | None]) -> Ints:
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(one, len(numbers)) if one else NONE for one in hashes], np.int64
    )
