"""The occasions on which a rule gives somebody a ticket: written once, whatever reports them.

An occasion is a day (in the campaign's zone), a mission's name, or a referral; (rule, person,
occasion) is unique, so claims, events and repeats of both make one row. A rule looks ahead: what
happened before it was made gives nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from packets.tickets import OWN_KEYS

# Events of older days are for statistics; nobody waits for a ticket of last week.
LATE = "interval '2 days'"

_WRITE = """
INSERT INTO referrals_ticketdue (rule_id, participant, owner, client_app_id, occasion, day)
SELECT DISTINCT ON (rule_id, participant, occasion)
       rule_id, participant, owner, client_app_id, occasion, day
  FROM ({found}) AS found
 ORDER BY rule_id, participant, occasion
    ON CONFLICT (rule_id, participant, occasion) DO NOTHING
"""
# What we ourselves claim for somebody is no act of theirs. Its ticket says so, whichever packets
# the campaign pays rewards from by now.
IS_REWARD = f"""(claim.serial > 0 AND EXISTS (
       SELECT FROM packets_ticket AS granted
        WHERE granted.participant = claim.participant AND granted.packet_id = claim.packet_id
          AND granted.serial = claim.serial AND granted.key LIKE '{OWN_KEYS}reward:%%'))"""
_ACTIVE = "rule.is_active AND campaign.state = 'live'"
_OF_EVENTS = f"""
SELECT rule.id AS rule_id, event.participant, event.participant AS owner, event.client_app_id,
       CASE rule.by WHEN 'daily' THEN (event.at AT TIME ZONE campaign.timezone)::date::text
                    ELSE event.mission END AS occasion,
       (event.at AT TIME ZONE campaign.timezone)::date AS day
  FROM referrals_serverevent AS event
  JOIN campaign_campaign_client_apps AS app ON app.clientapp_id = event.client_app_id
  JOIN campaign_campaign AS campaign ON campaign.id = app.campaign_id
  JOIN referrals_ticketrule AS rule ON rule.campaign_id = campaign.id
 WHERE event.id = ANY (%(ids)s) AND {_ACTIVE}
   AND (event.campaign_id IS NULL OR event.campaign_id = campaign.id)
   AND (rule.by = 'daily' AND event.kind = 'active'
     OR rule.by = 'mission' AND event.kind = 'mission_done' AND event.mission = rule.mission)
   AND event.at >= greatest(rule.created_at - interval '10 minutes', campaign.starts_at,
                            clock_timestamp() - {LATE})
"""
_OF_CLAIMS = f"""
SELECT rule.id AS rule_id, claim.participant, claim.participant AS owner, person.client_app_id,
       (claim.committed_at AT TIME ZONE campaign.timezone)::date::text AS occasion,
       (claim.committed_at AT TIME ZONE campaign.timezone)::date AS day
  FROM packets_claim AS claim
  JOIN packets_participant AS person ON person.digest = claim.participant
  JOIN campaign_campaignpacket AS link ON link.packet_id = claim.packet_id
  JOIN campaign_campaign AS campaign ON campaign.id = link.campaign_id
  JOIN referrals_ticketrule AS rule ON rule.campaign_id = campaign.id AND rule.by = 'daily'
 WHERE claim.lane_id = %(lane)s AND claim.position > %(from)s AND claim.position <= %(to)s
   AND {_ACTIVE} AND claim.committed_at >= rule.created_at AND NOT {IS_REWARD}
"""
_OF_EDGES = f"""
SELECT rule.id AS rule_id, edge.{{who}} AS participant, edge.inviter AS owner, edge.client_app_id,
       edge.id::text AS occasion,
       (clock_timestamp() AT TIME ZONE campaign.timezone)::date AS day
  FROM referrals_referral AS edge
  JOIN campaign_campaign AS campaign ON campaign.id = edge.campaign_id
  JOIN referrals_ticketrule AS rule ON rule.campaign_id = campaign.id AND rule.by = '{{by}}'
 WHERE edge.id = ANY (%(ids)s) AND {_ACTIVE} AND edge.bound_at >= rule.created_at
"""


def of_events(cursor: Any, event_ids: Sequence[int]) -> None:
    cursor.execute(_WRITE.format(found=_OF_EVENTS), {"ids": list(event_ids)})


def of_claims(cursor: Any, part: Mapping[str, int]) -> None:
    """`part`: `lane`, and the positions `from` (not included) and `to`."""
    cursor.execute(_WRITE.format(found=_OF_CLAIMS), dict(part))


def of_friends(cursor: Any, referral_ids: Sequence[int]) -> None:
    """The friend's ticket of a shared packet; it counts against whoever shares it."""
    _of_edges(cursor, referral_ids, by="friend", who="invitee")


def of_invites(cursor: Any, referral_ids: Sequence[int]) -> None:
    """The inviter's ticket for a friend who has qualified."""
    _of_edges(cursor, referral_ids, by="invite", who="inviter")


def _of_edges(cursor: Any, referral_ids: Sequence[int], *, by: str, who: str) -> None:
    found = _OF_EDGES.format(by=by, who=who)
    cursor.execute(_WRITE.format(found=found), {"ids": list(referral_ids)})
