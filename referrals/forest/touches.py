"""Codes that came with claims: whoever won with a friend's code is bound to that friend.

The claim path only writes the code down (packets' ShareTouch); this sweep reads it, binds, and
drops the row. Killed in between, the row is due again when its lease is over, and the bind answers
`already_bound`. A code whose claim was never won is dropped after a while.

A claim's campaign is that of the link. Of several codes that wait for one person the campaign's
mode picks one. What was won before the first of those claims makes its person an old one.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from django.db import connection

from campaign.models import CampaignGrowth
from packets.models import Claim, ShareTouch
from referrals.forest.attribution import had_won, inviting, waiting_codes
from referrals.forest.binding import BindResult, ForestBusy, referral_bind
from referrals.linking import codes
from referrals.models import ShareLink

# Rows of one lease; binding takes a few milliseconds each.
BATCH = 200
# How long whoever took rows may work on them before another does.
LEASE_S = 60
# A claim whose commit is unknown is decided within seconds; after a wiped server, within minutes.
UNWON_KEPT_S = 3600
SWEEP_FOR_S = 5.0

_TAKE = """
UPDATE packets_sharetouch AS touch
   SET due_at = clock_timestamp() + make_interval(secs => %(lease)s)
  FROM (SELECT claim_id FROM packets_sharetouch
         WHERE due_at <= clock_timestamp()
         ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED) AS due
 WHERE touch.claim_id = due.claim_id
RETURNING touch.claim_id, touch.client_app_id, touch.code,
          touch.at < clock_timestamp() - make_interval(secs => %(kept)s)
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A code that this sweep looks at. `old`: if its claim isn't won by now, it never was."""

    claim_id: uuid.UUID
    client_app_id: int
    code: str
    old: bool


def touches_bind_due(for_s: float = SWEEP_FOR_S) -> int:
    """Look at whatever is due, for a while; how many friends were bound."""
    until, bound = time.monotonic() + for_s, 0
    while time.monotonic() < until:
        due = _take()
        if not due:
            break
        claims = Claim.objects.in_bulk([one.claim_id for one in due])
        done = []
        for one in due:
            claim = claims.get(one.claim_id)
            if claim is None:
                done += [one.claim_id] if one.old else []
                continue
            try:
                bound += _bind(one, claim) is BindResult.BOUND
            except ForestBusy:
                continue  # again, when the lease is over
            done.append(one.claim_id)
        ShareTouch.objects.filter(claim_id__in=done).delete()
    return bound


def _take() -> list[Due]:
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, {"lease": LEASE_S, "most": BATCH, "kept": UNWON_KEPT_S})
        return [Due(*row) for row in cursor.fetchall()]


def _bind(due: Due, claim: Claim) -> BindResult:
    code = codes.canonical(due.code)
    link = ShareLink.objects.filter(code=code, revoked_at=None).first() if code else None
    if link is None or not claim.packet.campaigns.filter(pk=link.campaign_id).exists():
        return BindResult.UNKNOWN_CODE
    growth = CampaignGrowth.objects.select_related("campaign").filter(campaign=link.campaign_id)
    known = growth.first()
    if known is None:
        return BindResult.EXPIRED
    person = bytes(claim.participant)
    waiting = waiting_codes(known, person)
    touch = inviting(known, person, due.client_app_id, waiting.touches)
    if touch is None:
        return BindResult.UNKNOWN_CODE
    return referral_bind(
        growth=known,
        invitee=person,
        client_app_id=due.client_app_id,
        touch=touch,
        is_new=not had_won(person, waiting.since),
    )
