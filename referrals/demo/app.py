"""What the demo's app does for its people: joins and claims for a friend, counts for an inviter.

It holds no right of its own: it mints the token that a client app would have signed, reads it as
every door does, and calls the services behind those doors. A friend is whoever holds a click: the
same click is the same person, so that pressing twice is asking twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings
from django.core import signing
from django.db.models import QuerySet

from campaign.demo import APP_SLUG
from campaign.models import Campaign, CampaignGrowth, Channel
from engine.lib import auth, clock
from engine.lib.auth import Caller
from engine.lib.errors import ServiceError
from engine.models import ClientApp
from engine.services import mint_client_token
from packets.claiming import sync
from packets.claiming.effects import ClaimRequest, Outcome, Result, Unavailable
from packets.claiming.limits import OverLimit
from packets.models import Packet
from referrals.forest.binding import BindResult, ForestBusy
from referrals.forest.joining import Lead, friend_join
from referrals.linking import clicks
from referrals.linking.links import Shared, SharingBlocked, SharingPaused, link_share
from referrals.models import ShareLink, Visit

PATH = "/demo/app"
PAGE_SALT = "laisee.demo.page"
# Why another packet of the campaign is tried: this one has nothing for anybody, or not for them.
NEXT = (Result.SOLD_OUT, Result.ENDED, Result.NOT_STARTED, Result.NOT_ELIGIBLE)


@dataclass(frozen=True, slots=True)
class Played:
    """How it went: None where nothing was decided yet, and asking again is right."""

    friend: Caller
    campaign: Campaign
    joined: BindResult | None
    claimed: Outcome | None


def demo_app() -> ClientApp | None:
    """The demo's client app, where the demo may play one."""
    if not settings.DEMO_APP:
        return None
    return ClientApp.objects.filter(slug=APP_SLUG, active=True).first()


def shared_campaign(app: ClientApp) -> CampaignGrowth | None:
    """The newest campaign of the demo that people may share now."""
    shared_now = CampaignGrowth.objects.filter(
        campaign__client_apps=app, campaign__state=Campaign.State.LIVE, is_on=True
    )
    return shared_now.select_related("campaign").order_by("-campaign__created_at").first()


def button_of(link: ShareLink, token: str, language: str) -> str:
    """Where the button of this link's page leads in the demo; empty: to the campaign's own app."""
    app = demo_app()
    if app is None or link.client_app_id != app.pk:
        return ""
    named = {"click": token} if token else {}
    return f"{PATH}?" + urlencode({**named, "lang": "zh" if language.startswith("zh") else "en"})


def caller_of(app: ClientApp, subject: str) -> Caller:
    """This person as the doors know them: by a token of the app."""
    token = mint_client_token(
        client_app_id=app.pk, subject=subject, device=f"phone-{subject}", is_new=True
    )
    return auth.verify_client_token(token, auth.key_ring, clock.now())


def friend_plays(app: ClientApp, token: str) -> Played | None:
    """Whoever holds this click joins and claims; None: it leads nowhere here."""
    click = clicks.read(token)
    visit = (
        Visit.objects.filter(click_id=click.id, link__client_app_id=app.pk)
        .select_related("link__campaign")
        .first()
        if click
        else None
    )
    if visit is None:
        return None
    campaign, friend = visit.link.campaign, caller_of(app, f"friend-{visit.click_id.hex[:16]}")
    try:
        joined = friend_join(campaign=campaign, friend=friend, lead=Lead(click_token=token))
    except ForestBusy:
        joined = None
    return Played(friend, campaign, joined, _claim(campaign, friend))


def _claim(campaign: Campaign, friend: Caller) -> Outcome | None:
    """The first of the campaign's packets that has something for them."""
    outcome = None
    for packet in _packets(campaign):
        try:
            answer = sync.claim(packet.pk, friend, ClaimRequest())
        except (OverLimit, Unavailable):
            return None
        if answer is not None:
            outcome = answer[0]
            if outcome.result not in NEXT:
                break
    return outcome


def _packets(campaign: Campaign) -> QuerySet[Packet]:
    mine = Packet.objects.filter(campaign_link__campaign=campaign, needs_ticket=False)
    return mine.filter(state=Packet.State.OPEN).order_by("campaign_link__order")


def shared_by(
    campaign: Campaign, person: Caller, channel: Channel = Channel.OTHER
) -> Shared | None:
    """The person's own link, if they may share."""
    try:
        return link_share(campaign=campaign, caller=person, channel=channel)
    except (ServiceError, SharingBlocked, SharingPaused):
        return None


def page_of(subject: str) -> str:
    """The address of this person's own page: whoever has it is taken for them."""
    return f"/demo/me/{signing.dumps(subject, salt=PAGE_SALT)}"


def subject_of(signed: str) -> str | None:
    try:
        return str(signing.loads(signed, salt=PAGE_SALT))
    except signing.BadSignature:
        return None
