"""A person takes money out of their wallet: asked, checked, moved to clearing and written down.

One transaction makes the payout and moves its money, or neither. The key that the app sent with it
is a unique column of the payout, for ever, so it never pays twice. What the provider account allows
(`allowance.py`) is asked before anything moves; a payout that a person of ours has to look at first
is made all the same, and waits.

Locks: the person's wallet and the payee (advisory), the account's day (advisory), the new row, the
ledger's accounts, the audit log.
"""

from __future__ import annotations

import datetime as dt
import functools
import time
import uuid
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.problem import IdempotencyKeySpent
from packets import ledger
from packets.models import Account, Payout, ProviderAccount, Transfer
from packets.payouts import queue
from packets.payouts.allowance import (
    Payee,
    Wanted,
    account_for,
    payee_for,
    reasons_for,
    require_amount,
    require_open_now,
    require_within_days,
)
from packets.payouts.numbers import payee_encrypt
from packets.payouts.rules import ManualReason
from packets.payouts.sending import clearing_account, payout_money_end
from packets.providers import provider_of
from packets.providers.base import CredentialsMissing
from packets.wallets import one_at_a_time, wallet_of

__all__ = ["eta_new_s", "eta_s", "payee_mask", "payout_cancel", "payout_create", "payouts_of"]

State, Step = Payout.State, Payout.Step

# Seconds for which a process remembers how long a line is; by then some seconds' worth was paid.
LINE_LIFETIME_S = 2.0
LINES_KEPT = 1_000  # of accounts and campaigns


def payout_create(
    *,
    participant: bytes,
    client_app_id: int,
    amount_fen: int,
    provider: str,
    payee_account: str,
    payee_name: str = "",
    key: str,
) -> Payout:
    """Take the money out of this person's wallet and have it sent.

    `provider` is the name of our account; `key` the Idempotency-Key, IdempotencyKeySpent where it
    has made a payout before. Raises ServiceError that names the field; then nothing has changed.
    """
    wanted = Wanted(participant, client_app_id, amount_fen, provider, payee_account, payee_name)
    with transaction.atomic():
        one_at_a_time(participant)
        if Payout.objects.filter(participant=participant, key=key).exists():
            raise IdempotencyKeySpent
        account = account_for(wanted)
        require_amount(account, wanted)
        payee = payee_for(account, wanted)
        wallet = wallet_of(participant, account.currency)
        if wallet is None or wallet.balance_fen < amount_fen:
            raise _too_little()
        require_open_now(account)
        require_within_days(account, wanted)
        reasons = reasons_for(account, wanted, payee)
        payout = _write_down(account, wallet, wanted, payee, key, reasons)
        _take(payout, clearing_account(account))
        audit_record(
            actor=_actor(participant),
            action="payout.create",
            object_type="payout",
            object_id=payout.id.hex,
            after={
                "amount_fen": payout.amount_fen,
                "account": account.name,
                "payee": payout.payee_masked,
                "review": reasons,
            },
        )
    return payout


def payout_cancel(*, participant: bytes, payout_id: uuid.UUID) -> Payout | None:
    """Put the money back, as long as nothing was sent. None: this person has no such payout.

    What waits for its owner's confirmation at the provider is cancelled there, where the provider
    can do that; the money is back when the provider has said so. TransitionRefused where it is
    on its way or at another end; a repeat changes nothing.
    """
    mine = payouts_of(participant).filter(id=payout_id)
    with transaction.atomic():
        # A worker that takes it has its row; whoever comes second sees what the first made of it.
        cancelled = Payout.objects.filter(
            id=payout_id, participant=participant, state=State.CREATED, lease_until=None
        ).update(
            state=State.CANCELLED,
            step=Step.NONE,
            next_attempt_at=None,
            manual_reason="",
            ended_at=Now(),
        )
        if cancelled:
            payout_money_end(payout_id=payout_id, actor=_actor(participant), evidence={})
    payout = mine.first()
    if payout is not None and payout.state == State.USER_ACTION:
        return _cancel_there(payout)
    if payout is not None and payout.state != State.CANCELLED:
        raise TransitionRefused(f"withdrawal {payout_id.hex}", payout.state, (State.CREATED,))
    return payout


def _cancel_there(payout: Payout) -> Payout:
    try:
        able = provider_of(payout.account).capabilities.cancel
    except CredentialsMissing:
        able = False
    if not able:
        raise TransitionRefused(f"withdrawal {payout.id.hex}", payout.state, (State.CREATED,))
    # A call under way ends first: it looks whether this was asked for.
    waiting = Payout.objects.filter(id=payout.id, state=State.USER_ACTION)
    waiting.update(cancel_asked=True)
    waiting.filter(lease_until=None).update(step=Step.CANCEL, next_attempt_at=Now())
    return payouts_of(bytes(payout.participant)).get(id=payout.id)


def _actor(participant: bytes) -> str:
    return f"client:{participant.hex()}"


def payouts_of(participant: bytes) -> QuerySet[Payout]:
    """One person's payouts, newest first."""
    rows = Payout.objects.filter(participant=participant).select_related("account")
    return rows.order_by("-created_at", "-id")


def eta_new_s(*, provider: str, participant: bytes) -> int | None:
    """About how long a payout takes that this person makes now; None where it can't be said."""
    account = ProviderAccount.objects.filter(name=provider).first()
    return _line(account, _share(participant), _moment()).eta_s if account is not None else None


def eta_s(payout: Payout) -> int | None:
    """About how long this one still takes: its part of the line, by when it joined it.

    A process counts the line once in a while, not for everybody who asks: a million people look at
    theirs again and again.
    """
    waits = payout.step == Step.SUBMIT and not payout.is_terminal and not payout.manual_reason
    if not waits:
        return queue.eta_s(payout)
    line = _line(payout.account, payout.share, _moment())
    if line.eta_s is None or line.oldest is None or line.oldest >= line.now:
        return line.eta_s
    part = (payout.created_at - line.oldest) / (line.now - line.oldest)
    return max(queue.ETA_LEAST_S, round(line.eta_s * min(1.0, max(0.0, part))))


@dataclass(frozen=True)
class _Line:
    """Those who wait at one account for one campaign's people, as they were a moment ago."""

    eta_s: int | None  # for whoever joins it
    oldest: dt.datetime | None
    now: dt.datetime


_OLDEST = """
SELECT (SELECT created_at FROM packets_payout
         WHERE account_id = %s AND share = %s AND step = 'submit' AND next_attempt_at IS NOT NULL
         ORDER BY created_at LIMIT 1), clock_timestamp()
"""


@functools.lru_cache(maxsize=LINES_KEPT)
def _line(account: ProviderAccount, share: int, moment: int) -> _Line:
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST, [account.pk, share])
        oldest, now = cursor.fetchone()
    whole = queue.eta_s(Payout(account=account, share=share, created_at=now))
    return _Line(whole, oldest, now)


def _moment() -> int:
    return int(time.monotonic() / LINE_LIFETIME_S)


def payee_mask(account: str) -> str:
    """`138***78`: enough to recognise one's own account by, not enough to pay into it."""
    shown = 3 if len(account) >= 10 else 1
    tail = account[-2:] if len(account) >= 10 else account[-1:] if len(account) > 2 else ""
    return f"{account[:shown]}***{tail}"


def _too_little() -> ServiceError:
    return ServiceError(
        "amount_fen", "insufficient_funds", _("There is less than that in the wallet.")
    )


# --- moving and writing down ----------------------------------------------------------------------

# The campaign whose claims fill this wallet: the latest one. For the fair share between campaigns.
_SHARE = """
SELECT packet.gate_id FROM packets_claim AS claim
  JOIN packets_packet AS packet ON packet.id = claim.packet_id
 WHERE claim.participant = %s
 ORDER BY claim.committed_at DESC, claim.id DESC LIMIT 1
"""


def _share(participant: bytes) -> int:
    with connection.cursor() as cursor:
        cursor.execute(_SHARE, [participant])
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def _write_down(
    account: ProviderAccount,
    wallet: Account,
    wanted: Wanted,
    payee: Payee,
    key: str,
    reasons: list[str],
) -> Payout:
    return Payout.objects.create(
        account=account,
        wallet=wallet,
        participant=wanted.participant,
        client_app_id=wanted.client_app_id,
        share=_share(wanted.participant),
        amount_fen=wanted.amount_fen,
        currency=account.currency,
        payee_encrypted=payee_encrypt(payee.account, payee.name),
        payee_masked=payee_mask(payee.account),
        payee_hash=payee.digest,
        key=key,
        review_reasons=reasons,
        manual_reason=ManualReason.REVIEW if reasons else "",
        manual_at=Now() if reasons else None,
        next_attempt_at=None if reasons else Now(),
    )


def _take(payout: Payout, clearing: Account) -> None:
    try:
        ledger.post(
            [
                ledger.Entry(
                    reference=f"payout:{payout.id.hex}",
                    kind=Transfer.Kind.PAYOUT,
                    debit_account_id=payout.wallet_id,
                    credit_account_id=clearing.pk,
                    amount_fen=payout.amount_fen,
                    currency=payout.currency,
                )
            ]
        )
    except ledger.InsufficientFunds as error:
        raise _too_little() from error
