"""The shapes of what is sent, as the OpenAPI document shows them.

Additive changes are free: a receiver ignores fields that it doesn't know. Emitted are they by
packets/events.py, packets/payouts/sending.py, campaign/services/ and referrals/; the tests hold
what is emitted against these.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from engine.webhooks.models import EventKind

Fen = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="In fen, whole.")]
Currency = Annotated[str, msgspec.Meta(examples=["CNY"])]
User = Annotated[str, msgspec.Meta(description="The app's own user id.")]
Moment = Annotated[str, msgspec.Meta(description="RFC 3339, UTC.")]


class ClaimSettled(msgspec.Struct, kw_only=True):
    """A claim's money has come into its participant's wallet."""

    claim: str
    packet: str
    user: User
    amount_fen: Fen
    currency: Currency
    claimed_at: Moment


class RewardGranted(msgspec.Struct, kw_only=True):
    """A participant was granted a reward for a referral."""

    claim: str
    packet: str
    user: User
    amount_fen: Fen
    currency: Currency


class ChallengeAsked(msgspec.Struct, kw_only=True):
    """A person's rewards wait until your back end reports `challenge_passed` of them."""

    campaign: Annotated[str, msgspec.Meta(description="The campaign's slug.")]
    user: User


class PayoutPaid(msgspec.Struct, kw_only=True):
    """The provider says that the money arrived."""

    payout: str
    user: User | None
    state: Literal["paid"]
    amount_fen: Fen
    currency: Currency
    provider: str


class PayoutFailed(msgspec.Struct, kw_only=True):
    """The payout is finally failed or cancelled, and its money is back in the wallet."""

    payout: str
    user: User | None
    state: Literal["failed", "cancelled"]
    amount_fen: Fen
    currency: Currency
    provider: str
    failure: Annotated[str, msgspec.Meta(description="The provider's code, or ours.")]


class CampaignLaunched(msgspec.Struct, kw_only=True):
    """The campaign is live: its packets can be claimed."""

    campaign: Annotated[str, msgspec.Meta(description="The campaign's slug.")]
    state: Literal["live"]


class CampaignExhausted(msgspec.Struct, kw_only=True):
    """Nothing is left to claim, though the campaign runs on; again after a top-up runs dry."""

    campaign: Annotated[str, msgspec.Meta(description="The campaign's slug.")]
    state: Literal["live", "paused"]
    claimed_count: int
    claimed_fen: Fen
    currency: Currency


class CampaignEnded(msgspec.Struct, kw_only=True):
    """The campaign is over: `ended` as planned, or `killed`."""

    campaign: Annotated[str, msgspec.Meta(description="The campaign's slug.")]
    state: Literal["ended", "killed"]


class WebhookTest(msgspec.Struct, kw_only=True):
    """Sent when staff ask for it, to see whether the endpoint answers."""

    message: str


SHAPES: dict[EventKind, type[msgspec.Struct]] = {
    EventKind.CLAIM_SETTLED: ClaimSettled,
    EventKind.REWARD_GRANTED: RewardGranted,
    EventKind.CHALLENGE_ASKED: ChallengeAsked,
    EventKind.PAYOUT_PAID: PayoutPaid,
    EventKind.PAYOUT_FAILED: PayoutFailed,
    EventKind.CAMPAIGN_LAUNCHED: CampaignLaunched,
    EventKind.CAMPAIGN_EXHAUSTED: CampaignExhausted,
    EventKind.CAMPAIGN_ENDED: CampaignEnded,
    EventKind.TEST: WebhookTest,
}
