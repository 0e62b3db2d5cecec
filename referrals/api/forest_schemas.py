"""The shapes of referrals, in and out. The OpenAPI document is made from these."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.lib.clock import rfc3339
from engine.lib.schema import Body
from packets.api.schemas import NO_NUL, SHARE_CODE_MAX_CHARS, ClaimStatus, Currency, Fen, Id, Time
from packets.api.shapes import claim_status
from referrals.forest import selectors
from referrals.forest.attribution import MAX_EARLIER_CLICKS
from referrals.forest.binding import BindResult

CLICK_TOKEN_MAX_CHARS = 128  # a token of ours is 81 at most
ClickToken = Annotated[str, Meta(max_length=CLICK_TOKEN_MAX_CHARS, pattern=NO_NUL)]


class ReferralBody(Body):
    """What led you here: a code or a click token, not both. `click_token`: as the share page handed
    it out. `earlier_clicks`: tokens of links that were opened before, which the app has kept; the
    campaign says whether the first or the last who invited counts."""

    code: Annotated[str, Meta(max_length=SHARE_CODE_MAX_CHARS, pattern=NO_NUL)] | UnsetType = UNSET
    click_token: ClickToken | UnsetType = UNSET
    earlier_clicks: Annotated[list[ClickToken], Meta(max_length=MAX_EARLIER_CLICKS)] = []


class ReferralAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`already_bound` is said of a repeat too: a person has one inviter, for ever."""

    result: BindResult


class RewardState(enum.StrEnum):
    """`granted`: see `status` of its claim. The others were earned too late, and are worth nothing:
    `capped`: you have earned as many as one can; `sold_out`: the budget was used up."""

    GRANTED = "granted"
    CAPPED = "capped"
    SOLD_OUT = "sold_out"


class MyReward(msgspec.Struct, frozen=True, kw_only=True):
    """What you earned by one friend. `claim`, `amount_fen`, `status`: of a granted one."""

    state: RewardState
    claim: Id | None
    amount_fen: Fen | None
    currency: Currency | None
    status: ClaimStatus | None
    at: Time


class MyReferral(msgspec.Struct, frozen=True, kw_only=True):
    """A friend who came by a link of yours. `who`: masked."""

    id: Annotated[str, Meta(pattern="^[0-9]+$")]
    campaign: str
    channel: str
    who: str
    bound_at: Time
    rewards: list[MyReward]


class ReferralPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[MyReferral]
    next: str | None


def my_referral(friend: selectors.Friend) -> MyReferral:
    return MyReferral(
        id=str(friend.id),
        campaign=friend.campaign,
        channel=friend.channel,
        who=friend.who,
        bound_at=rfc3339(friend.bound_at),
        rewards=[_reward(one) for one in friend.rewards],
    )


def _reward(earned: selectors.Earned) -> MyReward:
    granted = earned.claim is not None
    return MyReward(
        state=RewardState(earned.state),
        claim=earned.claim.hex if earned.claim else None,
        amount_fen=earned.amount_fen,
        currency=earned.currency,
        status=claim_status(earned.claim_state) if granted else None,
        at=rfc3339(earned.at),
    )
