"""What a person's cases mean for their rewards, and how a challenge ends.

A challenge asks something of the person that a farm doesn't like to do a hundred times: the app
decides what (a captcha, a phone number, a face), hears of it by the webhook `challenge.asked`, and
reports `challenge_passed`. Until then rewards wait; nothing else is kept from the person.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db import connection

from referrals.models import Decision

PASSED = "challenge_passed"  # the kind of the app's event
CLEARED_BY_CHALLENGE = "challenge"

_STANDING = """
SELECT found.decision
  FROM referrals_riskmember AS member
  JOIN referrals_riskcase AS found ON found.id = member.case_id
 WHERE member.campaign_id = %s AND member.participant = %s
   AND member.cleared_at IS NULL AND found.decision IN ('challenge', 'deny')
"""
# Only who was challenged: a case that asks for more isn't answered by this.
_PASSED = """
UPDATE referrals_riskmember AS member
   SET cleared_at = clock_timestamp(), cleared_by = %(by)s
  FROM (SELECT one.id
          FROM referrals_riskmember AS one
          JOIN referrals_riskcase AS found ON found.id = one.case_id
          JOIN referrals_serverevent AS event
            ON event.participant = one.participant
           AND (event.campaign_id IS NULL OR event.campaign_id = one.campaign_id)
         WHERE event.id = ANY (%(events)s) AND event.kind = %(kind)s
           AND found.decision = 'challenge' AND one.cleared_at IS NULL
         ORDER BY one.id FOR UPDATE OF one) AS passed
 WHERE member.id = passed.id
RETURNING member.campaign_id, member.participant
"""
# What waits for somebody is due again at once; rows are locked in the order of their ids.
_WAKE = """
UPDATE referrals_qualification AS waits
   SET next_attempt_at = clock_timestamp(), attempts = 0
  FROM (SELECT due.referral_id
          FROM unnest(%(campaigns)s::uuid[], %(people)s::bytea[]) AS freed (campaign_id, person)
          JOIN referrals_referral AS edge
            ON edge.campaign_id = freed.campaign_id
           AND (edge.inviter = freed.person OR edge.invitee = freed.person)
          JOIN referrals_qualification AS due
            ON due.referral_id = edge.id AND due.done_at IS NULL AND due.qualified_by <> ''
         ORDER BY due.referral_id FOR UPDATE OF due) AS found
 WHERE waits.referral_id = found.referral_id
"""


def why_waiting(campaign_id: uuid.UUID, participant: bytes) -> Decision | None:
    """Why this person is granted nothing just now: a challenge, or denied; None: they may."""
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, [campaign_id, participant])
        row = cursor.fetchone()
    return Decision(row[0]) if row else None


def challenges_passed(cursor: Any, event_ids: Sequence[int]) -> int:
    """End the challenges that these events answer, in the transaction that stores them."""
    cursor.execute(_PASSED, {"events": list(event_ids), "kind": PASSED, "by": CLEARED_BY_CHALLENGE})
    freed = cursor.fetchall()
    wake(cursor, [(campaign, bytes(person)) for campaign, person in freed])
    return len(freed)


def wake(cursor: Any, freed: Sequence[tuple[uuid.UUID, bytes]]) -> None:
    """Rewards that waited because of these people are due at once."""
    if freed:
        cursor.execute(
            _WAKE,
            {
                "campaigns": [campaign for campaign, _person in freed],
                "people": [person for _campaign, person in freed],
            },
        )
