"""When a referral has earned its rewards: the friend's first claim, or an event of theirs.

Both orders are seen. A claim that comes after the binding is found along its lane: positions there
have no gaps, so a cursor misses none. A claim from before the binding was written (it carried the
code, and the binding follows it) is found when the new edge is looked at. Whichever commits second
sees the other. Events wake edges in the transaction that stores them; looking at new edges waits
for such transactions (`EVENTS`), or an edge and an event could miss each other.

What counts happened after the binding, or at most `EARLY` before it: an app may report a person's
joining a moment before it binds them. Claims that brought the code count however early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction

from campaign.models import Campaign
from referrals.events import dues

# How long before the binding a claim or an event may lie: clocks of apps, and bodies on their way.
EARLY = "interval '10 minutes'"
# Claims of one lane a step: some ten milliseconds, in one short transaction.
CLAIMS_A_STEP = 1_000
LANES_A_RUN = 200
# Edges looked at in one transaction.
EDGES_A_STEP = 200
# The advisory lock that whoever stores events shares, and whoever looks at new edges has alone.
EVENTS = "growth:events"

# The rows are locked in the order of their ids, whoever wakes them. Each step is made once: where
# Postgres misjudges a table's size, it would find a thousand events anew for each of as many edges.
_WAKE = """
WITH asked AS MATERIALIZED ({asked}), found AS MATERIALIZED (
SELECT waits.referral_id, asked.what
  FROM referrals_qualification AS waits
  JOIN asked ON asked.referral_id = waits.referral_id
 WHERE waits.qualified_by = ''
 ORDER BY waits.referral_id FOR UPDATE OF waits)
UPDATE referrals_qualification AS edge
   SET qualified_by = found.what, next_attempt_at = clock_timestamp(), attempts = 0
  FROM found
 WHERE edge.referral_id = found.referral_id AND edge.qualified_by = ''
"""
_EVENT_COUNTS = f"""
       growth.qualifying = 'event' AND event.kind = growth.qualifying_event
   AND (event.campaign_id IS NULL OR event.campaign_id = edge.campaign_id)
   AND event.at >= edge.bound_at - {EARLY}
"""
_WHAT_EVENT = "'event:' || event.client_app_id || ':' || event.key"
_WHAT_CLAIM = "'claim:' || encode(uuid_send(claim.id), 'hex')"
_BY_EVENTS = f"""
SELECT edge.id AS referral_id, min({_WHAT_EVENT}) AS what
  FROM referrals_serverevent AS event
  JOIN referrals_referral AS edge
    ON edge.invitee = event.participant AND edge.client_app_id = event.client_app_id
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = edge.campaign_id
 WHERE event.id = ANY (%(ids)s) AND {_EVENT_COUNTS}
 GROUP BY edge.id
"""
_CLAIM_COUNTS = f"""
       growth.qualifying = 'first_claim' AND NOT {dues.IS_REWARD}
   AND (edge.source = 'claim' OR claim.committed_at >= edge.bound_at - {EARLY})
"""
_BY_CLAIMS = f"""
SELECT edge.id AS referral_id, min({_WHAT_CLAIM}) AS what
  FROM packets_claim AS claim
  JOIN campaign_campaignpacket AS link ON link.packet_id = claim.packet_id
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = link.campaign_id
  JOIN referrals_referral AS edge
    ON edge.campaign_id = link.campaign_id AND edge.invitee = claim.participant
 WHERE claim.lane_id = %(lane)s AND claim.position > %(from)s AND claim.position <= %(to)s
   AND {_CLAIM_COUNTS}
 GROUP BY edge.id
"""
_BY_LOOKING = f"""
SELECT DISTINCT ON (edge.id) edge.id AS referral_id, COALESCE(
       (SELECT {_WHAT_CLAIM} FROM packets_claim AS claim
          JOIN campaign_campaignpacket AS link ON link.packet_id = claim.packet_id
         WHERE claim.participant = edge.invitee AND link.campaign_id = edge.campaign_id
           AND {_CLAIM_COUNTS} ORDER BY claim.committed_at, claim.id LIMIT 1),
       (SELECT {_WHAT_EVENT} FROM referrals_serverevent AS event
         WHERE event.participant = edge.invitee AND event.client_app_id = edge.client_app_id
           AND {_EVENT_COUNTS} ORDER BY event.at, event.id LIMIT 1), '') AS what
  FROM referrals_referral AS edge
  JOIN campaign_campaigngrowth AS growth ON growth.campaign_id = edge.campaign_id
 WHERE edge.id = ANY (%(ids)s)
"""
_NEW = """
SELECT referral_id FROM referrals_qualification
 WHERE qualified_by = '' AND next_attempt_at <= clock_timestamp()
 ORDER BY referral_id LIMIT %s FOR UPDATE SKIP LOCKED
"""
# Where a claim may set something going: an edge that waits for claims, or a rule of daily tickets.
_LANES = """
SELECT lane.id FROM packets_lane AS lane
  JOIN campaign_campaignpacket AS link ON link.packet_id = lane.packet_id
  JOIN campaign_campaign AS campaign ON campaign.id = link.campaign_id
  LEFT JOIN referrals_claimcursor AS seen ON seen.lane_id = lane.id
 WHERE lane.claimed_count > COALESCE(seen.position, 0) AND campaign.state = ANY (%(states)s)
   AND (EXISTS (SELECT FROM campaign_campaigngrowth AS growth
                 WHERE growth.campaign_id = campaign.id AND growth.qualifying = 'first_claim')
     OR EXISTS (SELECT FROM referrals_ticketrule AS rule
                 WHERE rule.campaign_id = campaign.id AND rule.is_active AND rule.by = 'daily'))
 ORDER BY lane.id LIMIT %(most)s
"""
_LAST = """
SELECT max(position) FROM (
    SELECT position FROM packets_claim WHERE lane_id = %s AND position > %s
     ORDER BY position LIMIT %s) AS step
"""
RUNNING = [Campaign.State.LIVE, Campaign.State.PAUSED, Campaign.State.ENDED]


def by_events(cursor: Any, event_ids: Sequence[int]) -> int:
    """Wake the edges that these events qualify, in the transaction that stores them."""
    cursor.execute(_WAKE.format(asked=_BY_EVENTS), {"ids": list(event_ids)})
    return int(cursor.rowcount)


def edges_look() -> int:
    """Look at new edges: what counts from before they were written, and shared packets' tickets.

    Those without anything wait for a claim or an event from here on.
    """
    if not _any_new():
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        # guard:events begin
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [EVENTS])
        # guard:events end
        cursor.execute(_NEW, [EDGES_A_STEP])
        ids = [row[0] for row in cursor.fetchall()]
        if not ids:
            return 0
        cursor.execute(
            "UPDATE referrals_qualification SET next_attempt_at = NULL"
            " WHERE referral_id = ANY (%s)",
            [ids],
        )
        asked = f"SELECT * FROM ({_BY_LOOKING}) AS looked WHERE what <> ''"
        cursor.execute(_WAKE.format(asked=asked), {"ids": ids})
        dues.of_friends(cursor, ids)
    return len(ids)


def _any_new() -> bool:
    """Without a lock: while nothing is new, nobody waits for anybody."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM referrals_qualification"
            " WHERE qualified_by = '' AND next_attempt_at <= clock_timestamp())"
        )
        return bool(cursor.fetchone()[0])


def events_coming(cursor: Any) -> None:
    """Called first by the transaction that stores events."""
    cursor.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", [EVENTS])


def lanes_waiting() -> list[int]:
    """Lanes with claims that growth hasn't read."""
    with connection.cursor() as cursor:
        cursor.execute(_LANES, {"states": [str(one) for one in RUNNING], "most": LANES_A_RUN})
        return [row[0] for row in cursor.fetchall()]


def lane_read(lane_id: int) -> int:
    """Read the next claims of a lane; how many. The cursor moves with what it set going."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO referrals_claimcursor (lane_id) VALUES (%s) ON CONFLICT DO NOTHING",
            [lane_id],
        )
        cursor.execute(
            "SELECT position FROM referrals_claimcursor WHERE lane_id = %s FOR UPDATE", [lane_id]
        )
        seen = cursor.fetchone()[0]
        cursor.execute(_LAST, [lane_id, seen, CLAIMS_A_STEP])
        last = cursor.fetchone()[0]
        if last is None:
            return 0
        part = {"lane": lane_id, "from": seen, "to": last}
        cursor.execute(_WAKE.format(asked=_BY_CLAIMS), part)
        dues.of_claims(cursor, part)
        cursor.execute(
            "UPDATE referrals_claimcursor SET position = %s WHERE lane_id = %s", [last, lane_id]
        )
    return int(last - seen)
