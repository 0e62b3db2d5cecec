"""A friend joins: what led them here is found out, and they are bound by the campaign's mode."""

from __future__ import annotations

from dataclasses import dataclass

from campaign.models import Campaign, CampaignGrowth
from engine.lib.auth import Caller
from referrals.forest.attribution import had_won, inviting, kept_clicks, waiting_codes
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
    """What the friend hands over: one of the two, and tokens that their app kept from before."""

    code: str | None = None
    click_token: str | None = None
    earlier_clicks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.code is None) == (self.click_token is None):
            raise ValueError("either a code or a click token")


def friend_join(*, campaign: Campaign, friend: Caller, lead: Lead) -> BindResult:
    """Bind the caller by what led them here. Raises ForestBusy where nothing was decided."""
    growth = CampaignGrowth.objects.select_related("campaign").filter(campaign=campaign).first()
    if growth is None:
        return BindResult.UNKNOWN_CODE
    person, handed = friend.participant, _touch(growth, lead)
    waiting = waiting_codes(growth, person)
    touches = [*kept_clicks(growth, lead.earlier_clicks), *waiting.touches]
    if isinstance(handed, Touch):
        touches.insert(0, handed)
    # Where nothing leads here, what was handed over says why not.
    touch = inviting(growth, person, friend.client_app_id, touches) or handed
    if isinstance(touch, BindResult):
        return touch
    is_new = friend.is_new
    if is_new is None and growth.new_only:
        is_new = not had_won(person, waiting.since)
    result = referral_bind(
        growth=growth,
        invitee=person,
        client_app_id=friend.client_app_id,
        touch=touch,
        is_new=is_new,
    )
    if result is BindResult.BOUND:
        name_remember(friend)
    return result


def _touch(growth: CampaignGrowth, lead: Lead) -> Touch | BindResult:
    if lead.code is not None:
        return touch_of_code(growth, lead.code)
    assert lead.click_token is not None
    return touch_of_click(growth, lead.click_token)
