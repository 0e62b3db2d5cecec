"""The shapes of withdrawals, in and out. The OpenAPI document is made from these."""

from __future__ import annotations

import enum
from typing import Annotated, Any, assert_never

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.api.schemas import PRINTABLE
from engine.lib.clock import rfc3339
from engine.lib.money import MAX_FEN
from engine.lib.schema import Body
from packets.api.schemas import Currency, Fen, Id, Time
from packets.models import Payout
from packets.payouts.allowance import NAME_MAX_CHARS, PAYEE_MAX_CHARS
from packets.payouts.rules import ManualReason

PROVIDER_MAX_CHARS = 32


class PayeeBody(Body):
    """Whose account at the provider; some ask for the name too, above an amount."""

    account: Annotated[
        str, Meta(min_length=1, max_length=PAYEE_MAX_CHARS, extra_json_schema=PRINTABLE)
    ]
    name: (
        Annotated[str, Meta(max_length=NAME_MAX_CHARS, extra_json_schema=PRINTABLE)] | UnsetType
    ) = UNSET


class WithdrawalBody(Body):
    """Out of your wallet. `provider`: one of the ways of withdrawing that your app offers."""

    amount_fen: Annotated[int, Meta(ge=1, le=MAX_FEN)]
    provider: Annotated[
        str, Meta(min_length=1, max_length=PROVIDER_MAX_CHARS, pattern="^[-a-zA-Z0-9_]+$")
    ]
    payee: PayeeBody


class WithdrawalState(enum.StrEnum):
    """`waiting`: not sent yet; `review`: a person looks at it first; `sending`: with the provider;
    `user_action`: you have to confirm it there. Then one of `paid`, `failed` and `cancelled`, which
    are final; the money of the last two is back in the wallet."""

    WAITING = "waiting"
    REVIEW = "review"
    SENDING = "sending"
    USER_ACTION = "user_action"
    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Payee(msgspec.Struct, frozen=True, kw_only=True):
    """Masked: enough to recognise your own account by."""

    account: str


class UserAction(msgspec.Struct, frozen=True, kw_only=True):
    """What the person confirms with, as the provider's own app or library takes it."""

    data: dict[str, Any]
    until: Time | None


class WithdrawalItem(msgspec.Struct, frozen=True, kw_only=True):
    """One withdrawal. `failure`: the provider's code."""

    id: Id
    amount_fen: Fen
    currency: Currency
    provider: str
    payee: Payee
    state: WithdrawalState
    user_action: UserAction | None
    failure: str | None
    created_at: Time
    ended_at: Time | None


class Withdrawal(WithdrawalItem, frozen=True, kw_only=True):
    """`eta_s`: about how long until it is paid, where that can be said."""

    eta_s: Annotated[int, Meta(ge=0)] | None


class WithdrawalPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[WithdrawalItem]
    next: str | None


def state_of(payout: Payout) -> WithdrawalState:
    """What a payout's state is to its owner: how we find an outcome out is our business."""
    state = Payout.State(payout.state)
    match state:
        case Payout.State.CREATED:
            looked_at = payout.manual_reason == ManualReason.REVIEW
            return WithdrawalState.REVIEW if looked_at else WithdrawalState.WAITING
        case Payout.State.SUBMITTING | Payout.State.ACCEPTED | Payout.State.UNKNOWN:
            return WithdrawalState.SENDING
        case Payout.State.USER_ACTION if payout.cancel_asked:
            return WithdrawalState.SENDING
        case Payout.State.USER_ACTION:
            return WithdrawalState.USER_ACTION
        case Payout.State.PAID:
            return WithdrawalState.PAID
        case Payout.State.FAILED:
            return WithdrawalState.FAILED
        case Payout.State.CANCELLED:
            return WithdrawalState.CANCELLED
        case _ as never:
            assert_never(never)


def withdrawal_item(payout: Payout) -> WithdrawalItem:
    """The payout as its owner sees it; `account` must be selected along."""
    return WithdrawalItem(**_members(payout))


def withdrawal(payout: Payout, eta_s: int | None = None) -> Withdrawal:
    return Withdrawal(**_members(payout), eta_s=eta_s)


def _members(payout: Payout) -> dict[str, Any]:
    state = state_of(payout)
    action: dict[str, Any] | None = payout.user_action
    until = payout.user_action_until
    return {
        "id": payout.id.hex,
        "amount_fen": payout.amount_fen,
        "currency": payout.currency,
        "provider": payout.account.name,
        "payee": Payee(account=payout.payee_masked),
        "state": state,
        "user_action": UserAction(data=action, until=rfc3339(until) if until else None)
        if action is not None and state is WithdrawalState.USER_ACTION
        else None,
        "failure": (payout.failure_code or "unknown") if state is WithdrawalState.FAILED else None,
        "created_at": rfc3339(payout.created_at),
        "ended_at": rfc3339(payout.ended_at) if payout.ended_at else None,
    }
