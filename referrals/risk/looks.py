"""Which campaigns are looked at: where something came since the last look, and not all the time.

A cluster is seen only in its whole campaign, and by time passing too (nobody came back), so a look
reads all its people. What bounds it: a campaign rests RESTS times as long as its last look took.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from django.db import connection

RESTS = 20  # a look takes at most a twentieth of one worker
RESTS_FROM_S = 1.0  # shorter looks need no rest: the sweep's own pace is enough
AGAIN_H = 1  # without new friends: phones are noted, and time tells who didn't come back

_DUE = """
SELECT growth.campaign_id
  FROM campaign_campaigngrowth AS growth
  JOIN campaign_campaign AS campaign ON campaign.id = growth.campaign_id
  LEFT JOIN referrals_risklook AS look ON look.campaign_id = growth.campaign_id
 WHERE campaign.state IN ('live', 'paused', 'ended')
   AND (look.campaign_id IS NULL
     OR look.rests_until <= clock_timestamp()
    AND (look.looked_at < clock_timestamp() - make_interval(hours => %(again)s)
      OR look.policy_id < (SELECT max(id) FROM referrals_riskpolicy)
      -- A minute back: what was written then may have been committed after the last look.
      OR EXISTS (SELECT FROM referrals_referral AS edge
                  WHERE edge.campaign_id = growth.campaign_id
                    AND edge.bound_at > look.looked_at - interval '1 minute')
      OR EXISTS (SELECT FROM packets_payout AS payout
                   JOIN referrals_referral AS edge
                     ON edge.campaign_id = growth.campaign_id
                    AND (edge.invitee = payout.participant OR edge.inviter = payout.participant)
                  WHERE payout.created_at > look.looked_at - interval '1 minute')))
 ORDER BY look.looked_at NULLS FIRST, growth.campaign_id
"""
_LOOKED = """
INSERT INTO referrals_risklook (campaign_id, looked_at, rests_until, policy_id)
VALUES (%(campaign)s, %(began)s, clock_timestamp() + make_interval(secs => %(rests)s), %(policy)s)
    ON CONFLICT (campaign_id) DO UPDATE
   SET looked_at = EXCLUDED.looked_at, rests_until = EXCLUDED.rests_until,
       policy_id = EXCLUDED.policy_id
"""


def campaigns_due() -> list[uuid.UUID]:
    with connection.cursor() as cursor:
        cursor.execute(_DUE, {"again": AGAIN_H})
        return [row[0] for row in cursor.fetchall()]


@contextmanager
def look(campaign_id: uuid.UUID, policy_id: int) -> Iterator[None]:
    """Remember that the campaign was looked at; whoever is killed meanwhile has not looked."""
    started = monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        began = cursor.fetchone()[0]
    yield
    took_s = monotonic() - started
    with connection.cursor() as cursor:
        cursor.execute(
            _LOOKED,
            {
                "campaign": campaign_id,
                "began": began,
                "rests": RESTS * took_s if took_s >= RESTS_FROM_S else 0,
                "policy": policy_id,
            },
        )
