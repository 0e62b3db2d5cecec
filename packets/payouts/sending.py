"""One step of one payout: taken, called, and what came of it.

    take     the row under a lease with a new fence; number, exact request and the call's own row:
             one transaction, committed before anything leaves
    call     outside of any transaction, bounded in time; never by a process that stood still and
             has outlived its lease, for the payout may have ended meanwhile
    apply    by the holder of the newest fence alone: state, number, money, event, one transaction

A process may die between any two of these. Before `take` commits nothing happened. After it, the
lease runs out and the next one finds a call without an end: nobody knows what came of it, so the
provider is asked, never sent to. Money moves once: paid and returned share the reference
`payout-end:<payout>`.
"""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from engine.lib.audit import audit_record
from engine.lib.crypto import UnreadableSecret
from engine.lib.outbox import EventKind, outbox_emit
from packets import ledger
from packets.drills import drill_of
from packets.models import (
    Account,
    Participant,
    Payout,
    PayoutCall,
    PayoutNumber,
    ProviderAccount,
    Transfer,
)
from packets.payouts import numbers, queue
from packets.payouts.breaker import breaker_note
from packets.payouts.rules import Decision, ManualReason, Standing, Timing, decide
from packets.providers import provider_of
from packets.providers.base import CredentialsMissing, Kind, Provider, Result

log = structlog.get_logger(__name__)

State, Step = Payout.State, Payout.Step
# A sweep ends after so long: well inside the broker's visibility timeout, whatever its last call.
SWEEP_S = 20.0
# Of a lease, the part within which its call begins: one that begins at the last moment of it, and
# takes as long as a call may, still ends within the default lease.
CALL_BEGINS_WITHIN = 0.5
CODE_MAX_CHARS, DETAIL_MAX_CHARS = 80, 300


@dataclass(frozen=True)
class Taken:
    """A payout in our hands until the lease ends: what is to be called, and under which fence."""

    payout_id: uuid.UUID
    account_id: int
    fence: int
    step: str
    number: PayoutNumber
    call_id: int
    provider: Provider


def timing() -> Timing:
    return Timing(
        schedule_s=settings.PAYOUT_QUERY_SCHEDULE_S,
        then_s=settings.PAYOUT_QUERY_THEN_S,
        give_up_s=settings.PAYOUT_GIVE_UP_S,
    )


def payout_step(*, ask_first: bool = True) -> bool:
    """Take one payout that is due, make its step, write down what came of it. False: none is due.

    Any number of processes may do this at once. An exception leaves the payout to its lease.
    """
    began = time.monotonic()
    taken = _take(ask_first)
    if taken is None:
        return False
    if isinstance(taken, Taken):
        if time.monotonic() - began > settings.PAYOUT_LEASE_S * CALL_BEGINS_WITHIN:
            # The call stays without an end, like that of a process that died.
            log.warning("payout_call_late", payout=taken.payout_id.hex, fence=taken.fence)
            return True
        result = _call(taken)
        _apply(taken, result)
        breaker_note(taken.account_id, result, taken.step == Step.SUBMIT)
    return True


def payout_sweep_run(limit_s: float = SWEEP_S) -> int:
    """Steps until nothing is due or the time is over; returns how many were made.

    Questions and sends take turns at being first, so that neither can starve the other.
    """
    made, until = 0, time.monotonic() + limit_s
    while time.monotonic() < until and payout_step(ask_first=made % 2 == 0):
        made += 1
    return made


# --- take -----------------------------------------------------------------------------------------


def _take(ask_first: bool) -> Taken | Payout | None:
    """A call to be made; the payout where there is none to make after all; None: nothing is due."""
    with transaction.atomic():
        choices = (queue.next_to_ask, queue.next_to_send)
        first, second = choices if ask_first else choices[::-1]
        payout_id = first() or second()
        if payout_id is None:
            return None
        payout = Payout.objects.select_related("account").get(id=payout_id)
        try:
            provider = provider_of(payout.account)
            number = numbers.number_live(payout, provider)
        except (CredentialsMissing, UnreadableSecret, ValueError) as error:
            _set_aside(payout, str(error))
            return payout
        except (TypeError, LookupError, AttributeError) as error:
            # A defect of ours, met by this payout: it must not be met again before all others.
            log.exception("payout_adapter_broken", payout=payout.id.hex)
            _set_aside(payout, type(error).__name__)
            return payout
        return _lease(payout, number, provider)


def _lease(payout: Payout, number: PayoutNumber, provider: Provider) -> Taken:
    step, until = payout.step, Now() + dt.timedelta(seconds=settings.PAYOUT_LEASE_S)
    changes: dict[str, Any] = {
        "fence": payout.fence + 1,
        "lease_until": until,
        "next_attempt_at": until,
    }
    if step == Step.SUBMIT:
        changes |= {
            "state": State.SUBMITTING,
            # Until its answer is written down, a send may have been heard: whoever finds it when
            # the lease is over asks, whatever the breaker says about sending.
            "step": Step.QUERY,
            "submits": payout.submits + 1,
            "queries": 0,
            "last_submitted_at": Now(),
            "first_submitted_at": payout.first_submitted_at or Now(),
        }
    else:
        changes["queries"] = payout.queries + 1
        if payout.state == State.SUBMITTING:
            changes["state"] = State.UNKNOWN
    Payout.objects.filter(id=payout.id).update(**changes)
    call = PayoutCall.objects.create(
        payout=payout, number=number, kind=step, fence=payout.fence + 1
    )
    return Taken(payout.id, payout.account_id, payout.fence + 1, step, number, call.pk, provider)


def _set_aside(payout: Payout, why: str) -> None:
    """A request that can't even be made isn't tried again and again: a person has to look."""
    Payout.objects.filter(id=payout.id).update(
        manual_reason=ManualReason.NOT_SENDABLE,
        manual_at=Now(),
        next_attempt_at=None,
        lease_until=None,
        failure_detail=why[:DETAIL_MAX_CHARS],
    )
    log.error("payout_not_sendable", payout=payout.id.hex, why=why[:DETAIL_MAX_CHARS])


def payouts_overdue_set_aside() -> int:
    """Payouts past the last question (nothing could be sent, their workers were away, or the books
    were restored) go to a person at once; how many. One whose call is under way decides itself."""
    overdue = Now() - dt.timedelta(seconds=settings.PAYOUT_GIVE_UP_S)
    late = Payout.objects.exclude(state__in=Payout.TERMINAL).filter(
        Q(lease_until=None) | Q(lease_until__lte=Now()),
        manual_reason="",
        created_at__lt=overdue,  # said for the index: none is older than its first send
        first_submitted_at__lt=overdue,
    )
    count = late.update(
        manual_reason=ManualReason.TOO_LONG,
        manual_at=Now(),
        next_attempt_at=None,
        lease_until=None,
        step=Step.QUERY,
    )
    if count:
        log.error("payouts_to_person", reason=ManualReason.TOO_LONG, count=count)
    return count


# --- call -----------------------------------------------------------------------------------------


def _call(taken: Taken) -> Result:
    provider, number = taken.provider, taken.number.number
    try:
        if taken.step == Step.SUBMIT:
            return provider.submit(number, numbers.request_of(taken.number))
        if taken.step == Step.CANCEL:
            return provider.cancel(number)
        return provider.query(number)
    except Exception as error:
        log.exception("payout_call_failed", payout=taken.payout_id.hex, step=taken.step)
        return Result(Kind.UNKNOWN, code="adapter_error", detail=type(error).__name__)


# --- apply ----------------------------------------------------------------------------------------

_READ = """
SELECT state, queries, amount_fen, cancel_asked, currency, client_app_id, wallet_id,
       COALESCE(EXTRACT(epoch FROM now() - last_submitted_at), 0)::float8,
       COALESCE(EXTRACT(epoch FROM now() - first_submitted_at), 0)::float8,
       (SELECT not_found_grace_s FROM packets_provideraccount WHERE id = payout.account_id),
       (SELECT count(*) FROM packets_payoutnumber WHERE payout_id = payout.id),
       called_back_at > (SELECT started_at FROM packets_payoutcall WHERE id = %(call)s)
  FROM packets_payout AS payout
 WHERE id = %(payout)s AND fence = %(fence)s AND ended_at IS NULL
   FOR NO KEY UPDATE
"""


def _apply(taken: Taken, result: Result) -> None:
    """Write down the answer; decide and move money only if the payout is still ours."""
    with transaction.atomic(), connection.cursor() as cursor:
        PayoutCall.objects.filter(id=taken.call_id, ended_at=None).update(
            ended_at=Now(),
            result=result.kind,
            code=result.code[:CODE_MAX_CHARS],
            detail=result.detail[:DETAIL_MAX_CHARS],
            http_status=result.http_status,
            not_found=result.not_found,
        )
        cursor.execute(
            _READ, {"payout": taken.payout_id, "fence": taken.fence, "call": taken.call_id}
        )
        row = cursor.fetchone()
        if row is None:
            # The lease ran out and somebody else took over; the provider will tell them the same.
            log.warning("payout_fenced", payout=taken.payout_id.hex, fence=taken.fence)
            return
        standing = Standing(
            state=row[0],
            made=taken.step,
            queries=row[1],
            numbers=row[10],
            amount_fen=row[2],
            cancel_asked=row[3],
            since_submit_s=row[7],
            since_first_s=row[8],
            grace_s=row[9],
        )
        decision = decide(standing, result, timing(), random.random())
        if row[11] and decision.after_s is not None:
            # The provider called back while we were calling: there is news to be asked for.
            decision = _sooner(decision)
        _write(taken, result, decision)


def _sooner(decision: Decision) -> Decision:
    if decision.step != Step.QUERY:
        return decision
    return Decision(decision.state, decision.step, 0.0, decision.number, decision.manual)


def _write(taken: Taken, result: Result, decision: Decision) -> None:
    changes: dict[str, Any] = {
        "state": decision.state,
        "step": decision.step,
        "lease_until": None,
        "next_attempt_at": None
        if decision.after_s is None
        else Now() + dt.timedelta(seconds=decision.after_s),
    }
    if result.provider_ref:
        changes["provider_ref"] = result.provider_ref[:CODE_MAX_CHARS]
    if result.user_action is not None:
        changes["user_action"] = dict(result.user_action)
        changes["user_action_until"] = result.expires_at
    if decision.manual is not None:
        # One that a person had asked about once more waits since the first time.
        since = Coalesce(F("manual_at"), Now())
        changes |= {"manual_reason": decision.manual, "manual_at": since}
        log.error("payout_to_person", payout=taken.payout_id.hex, reason=decision.manual)
    else:
        # A person who was to look needn't any more: the provider has spoken.
        changes |= {"manual_reason": "", "manual_at": None}
    if decision.ends:
        changes |= {"ended_at": Now(), "user_action": None}
    if decision.state in (State.FAILED, State.CANCELLED):
        changes["failure_code"] = result.code[:CODE_MAX_CHARS]
        changes["failure_detail"] = result.detail[:DETAIL_MAX_CHARS]
    Payout.objects.filter(id=taken.payout_id).update(**changes)
    if decision.number != PayoutNumber.State.LIVE:
        numbers.number_end(taken.number.pk, decision.number)
    if decision.ends:
        payout_money_end(
            payout_id=taken.payout_id,
            actor="system",
            evidence={"number": taken.number.number, "code": result.code},
        )


def payout_money_end(*, payout_id: uuid.UUID, actor: str, evidence: dict[str, Any]) -> None:
    """Clearing → outside where it is paid, → wallet where it failed. In the caller's transaction,
    after the state was written; the shared reference lets only one of the two happen, once."""
    payout = Payout.objects.select_related("account").get(id=payout_id)
    paid = payout.state == State.PAID
    clearing = clearing_account(payout.account)
    ledger.post(
        [
            ledger.Entry(
                reference=f"payout-end:{payout.id.hex}",
                kind=Transfer.Kind.PAID if paid else Transfer.Kind.PAYBACK,
                debit_account_id=clearing.pk,
                credit_account_id=_outside(payout).pk if paid else payout.wallet_id,
                amount_fen=payout.amount_fen,
                currency=payout.currency,
            )
        ]
    )
    _tell(payout)
    audit_record(
        actor=actor,
        action=f"payout.{payout.state}",
        object_type="payout",
        object_id=payout.id.hex,
        after={"amount_fen": payout.amount_fen, "account": payout.account.name, **evidence},
    )


def _outside(payout: Payout) -> Account:
    return ledger.external_account(payout.currency, drill=drill_of(payout.client_app_id))


def _tell(payout: Payout) -> None:
    paid = payout.state == State.PAID
    person = Participant.objects.filter(digest=payout.participant).first()
    outbox_emit(
        EventKind.PAYOUT_PAID if paid else EventKind.PAYOUT_FAILED,
        payout.client_app_id,
        {
            "payout": payout.id.hex,
            "user": person.subject if person else None,
            "state": payout.state,
            "amount_fen": payout.amount_fen,
            "currency": payout.currency,
            "provider": payout.account.name,
            **({} if paid else {"failure": payout.failure_code}),
        },
        key=payout.id.hex,
    )


def clearing_account(account: ProviderAccount) -> Account:
    """Where money stands between a wallet and the provider's word, one for each account of ours."""
    return ledger.account_get_or_create(
        kind=Account.Kind.CLEARING, owner=account.name, currency=account.currency
    )
