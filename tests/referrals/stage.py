"""A live campaign that people may share, and people with links in it."""

from __future__ import annotations

from typing import Any

from campaign.models import Campaign, CampaignGrowth, Channel
from engine.models import ClientApp
from referrals.forest.binding import BindResult, referral_bind, touch_of_code
from referrals.linking import codes
from referrals.models import ShareLink
from tests.campaign import stage
from tests.world import person


def sharing(app: ClientApp | None = None, **fields: Any) -> CampaignGrowth:
    """The growth of a live campaign with one packet; old people may be invited too."""
    campaign = stage.live(app)
    fields.setdefault("new_only", False)
    return CampaignGrowth.objects.create(campaign=campaign, **fields)


def app_of(campaign: Campaign) -> int:
    return int(campaign.client_apps.get().pk)


def link_of(growth: CampaignGrowth, name: str, channel: str = Channel.WECHAT) -> ShareLink:
    app = app_of(growth.campaign)
    link, _ = ShareLink.objects.get_or_create(
        campaign=growth.campaign,
        participant=person(name, app).participant,
        channel=channel,
        defaults={"client_app_id": app, "code": codes.draw()},
    )
    return link


def bind(growth: CampaignGrowth, friend: str, inviter: str, **said: Any) -> BindResult:
    """The friend types the inviter's code."""
    app = app_of(growth.campaign)
    touch = touch_of_code(growth, link_of(growth, inviter).code)
    assert not isinstance(touch, BindResult)
    return referral_bind(
        growth=growth,
        invitee=person(friend, app).participant,
        client_app_id=app,
        touch=touch,
        **said,
    )
