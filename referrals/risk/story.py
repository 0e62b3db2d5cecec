"""What happened to a case, in order of time: for whoever has to decide about it."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass

from django.db import connection

from referrals.models import RiskCase

# Of each kind the newest so many are read, and so many in all are told.
TOLD = 100


class Happened(enum.StrEnum):
    JOINED = "joined"
    EARNED = "earned"
    FOUND = "found"
    HELD = "held"
    RELEASED = "released"
    FORFEITED = "forfeited"
    PASSED = "passed"
    ACT = "act"
    BANNED = "banned"


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing. `note`: who, or which act; `reason`: what they said."""

    at: dt.datetime
    what: Happened
    person: str = ""  # the digest in hex; empty: about all of them
    amount_fen: int | None = None
    note: str = ""
    reason: str = ""


_MEMBERS = "SELECT participant FROM referrals_riskmember WHERE case_id = %(case)s"
_STORY = f"""
WITH member AS MATERIALIZED ({_MEMBERS})
(SELECT edge.bound_at, 'joined', edge.invitee, NULL::bigint, '', ''
   FROM member JOIN referrals_referral AS edge
     ON edge.campaign_id = %(campaign)s AND edge.invitee = member.participant
  ORDER BY edge.bound_at DESC LIMIT %(most)s)
UNION ALL
(SELECT reward.at, 'earned', reward.participant, claim.amount_fen, '', ''
   FROM member JOIN referrals_reward AS reward ON reward.participant = member.participant
   JOIN referrals_referral AS edge
     ON edge.id = reward.referral_id AND edge.campaign_id = %(campaign)s
   JOIN packets_claim AS claim ON claim.id = reward.claim_id
  ORDER BY reward.at DESC LIMIT %(most)s)
UNION ALL
(SELECT hold.opened_at, 'held', hold.participant, hold.amount_fen, '', ''
   FROM referrals_riskmember AS one JOIN referrals_riskreward AS looked ON looked.member_id = one.id
   JOIN packets_hold AS hold ON hold.id = looked.hold_id
  WHERE one.case_id = %(case)s ORDER BY hold.opened_at DESC LIMIT %(most)s)
UNION ALL
(SELECT hold.resolved_at, hold.state, hold.participant, hold.amount_fen, hold.resolved_by,
        hold.reason
   FROM referrals_riskmember AS one JOIN referrals_riskreward AS looked ON looked.member_id = one.id
   JOIN packets_hold AS hold ON hold.id = looked.hold_id
  WHERE one.case_id = %(case)s AND hold.resolved_at IS NOT NULL
  ORDER BY hold.resolved_at DESC LIMIT %(most)s)
UNION ALL
(SELECT cleared_at, 'passed', participant, NULL, '', '' FROM referrals_riskmember
  WHERE case_id = %(case)s AND cleared_by = 'challenge' ORDER BY cleared_at DESC LIMIT %(most)s)
UNION ALL
(SELECT asked_at, 'act', NULL, NULL, actor || '|' || kind, reason FROM referrals_riskact
  WHERE case_id = %(case)s ORDER BY asked_at DESC LIMIT %(most)s)
UNION ALL
(SELECT ban.banned_at, 'banned', ban.participant, NULL, ban.banned_by, ban.reason
   FROM member JOIN referrals_ban AS ban ON ban.participant = member.participant
  WHERE ban.campaign_id IS NULL OR ban.campaign_id = %(campaign)s
  ORDER BY ban.banned_at DESC LIMIT %(most)s)
UNION ALL
SELECT opened_at, 'found', NULL, NULL, '', '' FROM referrals_riskcase WHERE id = %(case)s
 ORDER BY 1 DESC LIMIT %(most)s
"""


def story(case: RiskCase) -> list[Moment]:
    """The newest first."""
    with connection.cursor() as cursor:
        cursor.execute(_STORY, {"case": case.pk, "campaign": case.campaign_id, "most": TOLD})
        return [
            Moment(
                at=at,
                what=Happened(what),
                person=bytes(person).hex() if person else "",
                amount_fen=fen,
                note=note,
                reason=reason,
            )
            for at, what, person, fen, note, reason in cursor.fetchall()
        ]
