"""Who counts as the inviter, where several have led somebody here: the campaign's mode decides.

Only touches that can be told for certain count, and all of them are looked at before somebody is
bound: the click tokens that their app hands over, a code that they typed, the codes with which they
claimed and which wait for the sweep. A click's moment is that of the visit, and it counts for the
campaign's window. A code's moment is when it was typed, or came with a claim: that is a joining.
All ages are by Postgres's clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Now

from campaign.models import CampaignGrowth
from packets.models import Claim
from referrals.forest.binding import Touch
from referrals.linking import clicks, codes
from referrals.linking.spread import spread_of
from referrals.models import Referral, ShareLink, Visit

MAX_EARLIER_CLICKS = 20  # handed over at once; whoever opened more links than that remembers few


def inviting(
    growth: CampaignGrowth, invitee: bytes, client_app_id: int, touches: Sequence[Touch]
) -> Touch | None:
    """The touch that counts; of two from one moment the one that was named first. Pure.

    One's own links and those of other apps lead nobody here, and hide no other touch.
    """
    others = [
        touch
        for touch in touches
        if bytes(touch.link.participant) != invitee and touch.link.client_app_id == client_app_id
    ]
    is_first = growth.attribution == CampaignGrowth.Attribution.FIRST
    pick = max if is_first else min
    return pick(others, key=lambda touch: touch.age) if others else None


def kept_clicks(growth: CampaignGrowth, tokens: Sequence[str]) -> list[Touch]:
    """The clicks among these that are genuine, young enough, and nobody's yet."""
    read = [click.id for token in tokens[:MAX_EARLIER_CLICKS] if (click := clicks.read(token))]
    if not read:
        return []
    used = Referral.objects.filter(click_id=OuterRef("click_id"))
    visits = (
        Visit.objects.filter(
            click_id__in=read,
            link__campaign=growth.campaign_id,
            link__revoked_at=None,
            at__gte=Now() - dt.timedelta(seconds=growth.window_s),
        )
        .exclude(Exists(used))
        .annotate(age=Now() - F("at"))
        .select_related("link")
        .order_by("at", "id")
    )
    return [
        Touch(visit.link, Referral.Source.CLICK, visit.click_id, age=visit.age) for visit in visits
    ]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Codes with which somebody has won and that aren't bound yet. `since`: the first such win."""

    touches: tuple[Touch, ...] = ()
    since: dt.datetime | None = None


_WAITING = """
SELECT touch.code, clock_timestamp() - touch.at, claim.committed_at
  FROM packets_claim AS claim
  JOIN packets_sharetouch AS touch ON touch.claim_id = claim.id
  JOIN campaign_campaignpacket AS part
    ON part.packet_id = claim.packet_id AND part.campaign_id = %(campaign)s
 WHERE claim.participant = %(person)s
 ORDER BY claim.committed_at, claim.id
"""


def waiting_codes(growth: CampaignGrowth, person: bytes) -> Waiting:
    """What this person's claims in the campaign have brought, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"campaign": growth.campaign_id, "person": person})
        rows = cursor.fetchall()
    wanted = {code: codes.canonical(code) for code, _age, _won_at in rows}
    links = {
        link.code: link
        for link in ShareLink.objects.filter(
            code__in=[code for code in wanted.values() if code],
            campaign=growth.campaign_id,
            revoked_at=None,
        )
        if is_open(growth, link)
    }
    found = [
        (Touch(link, Referral.Source.CLAIM, age=age), won_at)
        for typed, age, won_at in rows
        if (link := links.get(wanted[typed] or "")) is not None
    ]
    if not found:
        return Waiting()
    return Waiting(tuple(touch for touch, _won_at in found), found[0][1])


def is_open(growth: CampaignGrowth, link: ShareLink) -> bool:
    """Whether any way of the link's channel is on: a claim doesn't say by which one it came."""
    spread = spread_of(growth.campaign_id)
    return spread is not None and bool(spread.ways(link.channel))


def had_won(person: bytes, before: dt.datetime | None) -> bool:
    """Whether this person is an old one; `before`: what they won since is how they joined."""
    won = Claim.objects.filter(participant=person)
    return (won.filter(committed_at__lt=before) if before else won).exists()
