"""A friend joins: what led them here is found out, and they are bound by the campaign's mode.

Only touches that can be told for certain count: a click token, or a code that they typed.
"""

from __future__ import annotations

from dataclasses import dataclass

from campaign.models import Campaign, CampaignGrowth
from engine.lib.auth import Caller
from referrals.forest.binding import (
    BindResult,
    Touch,
    referral_bind,
    touch_of_click,
    touch_of_code,
)
from referrals.names import name_remember


@dataclass(frozen=True, slots=True)
class Lead:
    """What the friend hands over: one of the two."""

    code: str | None = None
    click_token: str | None = None

    def __post_init__(self) -> None:
        if (self.code is None) == (self.click_token is None):
            raise ValueError("either a code or a click token")


def friend_join(*, campaign: Campaign, friend: Caller, lead: Lead) -> BindResult:
    """Bind the caller by what led them here. Raises ForestBusy where nothing was decided."""
    growth = CampaignGrowth.objects.select_related("campaign").filter(campaign=campaign).first()
    if growth is None:
        return BindResult.UNKNOWN_CODE
    touch = _touch(growth, lead)
    if isinstance(touch, BindResult):
        return touch
    result = referral_bind(
        growth=growth,
        invitee=friend.participant,
        client_app_id=friend.client_app_id,
        touch=touch,
        is_new=friend.is_new,
    )
    if result is BindResult.BOUND:
        name_remember(friend)
    return result


def _touch(growth: CampaignGrowth, lead: Lead) -> Touch | BindResult:
    if lead.code is not None:
        return touch_of_code(growth, lead.code)
    assert lead.click_token is not None
    return touch_of_click(growth, lead.click_token)
