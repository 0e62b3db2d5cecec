"""What a person decides about a payout, with a reason and on evidence.

What is kept here: no act while a call is under way (its lease is asked for inside the UPDATE); each
act is one conditional UPDATE, so of two people one acts and the other reads why not; nothing is
sent again unless the provider has said that it has nothing under the number; an end without the
provider's answer needs two people, and nothing sent or learnt since the first of them asked; its
money moves by the same reference as any other end.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any, NoReturn

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from packets.models import Payout, PayoutCall, PayoutMark, PayoutNumber
from packets.models.deciding import EVIDENCE_MAX_CHARS, WORDS_MAX_CHARS
from packets.payouts import numbers
from packets.payouts.rules import ManualReason
from packets.payouts.sending import payout_money_end
from packets.providers.base import Kind

State, Step = Payout.State, Payout.Step
# Sent at least once, and not at its end.
OUT = (State.SUBMITTING, State.ACCEPTED, State.USER_ACTION, State.UNKNOWN)
REFUSED, MARKED = "refused", "marked_by_hand"
REFERENCE_MAX_CHARS = 80
# No call is under way; asked inside each UPDATE.
FREE = Q(lease_until=None) | Q(lease_until__lte=Now())


# --- by one person --------------------------------------------------------------------------------


def payout_query_now(*, payout_id: uuid.UUID, actor: str, reason: str) -> None:
    """Ask the provider now; it stays where it is until there is an answer."""
    _reasoned("reason", reason, WORDS_MAX_CHARS)
    with transaction.atomic():
        _change(payout_id, Q(state__in=OUT), step=Step.QUERY, next_attempt_at=Now())
        _audit(payout_id, actor, "query_now", reason)


def payout_send_again(*, payout_id: uuid.UUID, actor: str, reason: str) -> None:
    """Send the same request under the same number, or try once more what could not be sent.

    Only where nothing was sent this time (the request could not be made), or where the provider's
    last word, given long enough after the last send, is that it knows no such number.
    """
    _reasoned("reason", reason, WORDS_MAX_CHARS)
    with transaction.atomic():
        payout = _locked(payout_id)
        if payout.manual_reason == ManualReason.NOT_SENDABLE:
            wanted, step = Q(manual_reason=ManualReason.NOT_SENDABLE), payout.step
        elif may_send_again(payout):
            wanted, step = Q(state__in=OUT), Step.SUBMIT
        else:
            if _exists(payout_id, ~FREE) or payout.is_terminal:
                _refuse(payout_id)
            raise ServiceError(
                "",
                "not_found_first",
                _(
                    "It may be sent again only after the provider has said, long enough after "
                    "the last send, that it knows no such number. Query it first."
                ),
            )
        _change(payout_id, wanted, step=step, next_attempt_at=Now(), **_CLEARED)
        _audit(payout_id, actor, "send_again", reason)


def payout_release(*, payout_id: uuid.UUID, actor: str, reason: str) -> None:
    """Somebody has looked: it is sent when its turn comes."""
    _reasoned("reason", reason, WORDS_MAX_CHARS)
    with transaction.atomic():
        wanted = Q(state=State.CREATED, manual_reason=ManualReason.REVIEW)
        _change(payout_id, wanted, next_attempt_at=Now(), **_CLEARED)
        _audit(payout_id, actor, "release", reason)


def payout_refuse(*, payout_id: uuid.UUID, actor: str, reason: str) -> None:
    """Nothing was ever sent: it fails, and the money goes back into the wallet."""
    _reasoned("reason", reason, WORDS_MAX_CHARS)
    with transaction.atomic():
        _change(
            payout_id,
            Q(state=State.CREATED),
            state=State.FAILED,
            failure_code=REFUSED,
            **_ENDED,
        )
        payout_money_end(payout_id=payout_id, actor=actor, evidence={"code": REFUSED})
        _audit(payout_id, actor, "refuse", reason)


def may_send_again(payout: Payout) -> bool:
    """Whether the last call was a query that found nothing, past the grace after the last send."""
    calls = payout.calls.exclude(kind=PayoutCall.Kind.CALLBACK)
    last = calls.order_by("-id").first()
    if last is None or last.kind != PayoutCall.Kind.QUERY or not last.not_found:
        return False
    grace = dt.timedelta(seconds=payout.account.not_found_grace_s)
    sent_at = payout.last_submitted_at
    return sent_at is not None and last.started_at >= sent_at + grace


# --- by two people --------------------------------------------------------------------------------


def payout_mark_ask(
    *, payout_id: uuid.UUID, outcome: str, provider_ref: str, evidence: str, by: User
) -> PayoutMark:
    """Ask that a payout whose outcome nobody can learn be marked paid or failed."""
    if outcome not in PayoutMark.Outcome.values:
        raise ServiceError("outcome", "unknown", _("Choose paid or failed."))
    _reasoned("evidence", evidence, EVIDENCE_MAX_CHARS)
    paid = outcome == PayoutMark.Outcome.PAID
    if paid and not provider_ref.strip():
        raise ServiceError(
            "provider_ref", "blank", _("What was paid has a reference at the provider: type it.")
        )
    if len(provider_ref) > REFERENCE_MAX_CHARS:
        raise ServiceError(
            "provider_ref",
            "too_long",
            _("This has at most %(most)s characters."),
            most=REFERENCE_MAX_CHARS,
        )
    with transaction.atomic():
        _locked(payout_id)
        if not _exists(payout_id, _MARKABLE & FREE):
            _refuse(payout_id)
        if paid and not PayoutNumber.objects.filter(payout=payout_id, state="live").exists():
            raise ServiceError(
                "outcome",
                "no_number",
                _("The provider has said of every number that nothing was paid, nor will be."),
            )
        if PayoutMark.objects.filter(payout=payout_id, state=PayoutMark.State.PENDING).exists():
            raise ServiceError("", "pending", _("Somebody has asked already; it waits."))
        mark = PayoutMark.objects.create(
            payout_id=payout_id,
            outcome=outcome,
            provider_ref=provider_ref.strip(),
            evidence=evidence.strip(),
            requested_by=by,
        )
        _audit(
            payout_id,
            _actor(by),
            "mark_ask",
            evidence,
            {"mark": mark.pk, "outcome": outcome, "provider_ref": mark.provider_ref},
        )
    return mark


def payout_mark_approve(*, mark_id: int, by: User) -> PayoutMark:
    """The payout ends as asked, and its money moves: to the outside, or back into the wallet."""
    with transaction.atomic():
        mark = _mark(mark_id)
        if by.pk == mark.requested_by_id:
            raise ServiceError("", "own_request", _("Nobody decides on what they asked for."))
        _decide(mark, PayoutMark.State.APPROVED, by, "")
        _locked(mark.payout_id)
        if not _exists(mark.payout_id, _MARKABLE & FREE):
            _refuse(mark.payout_id)
        _require_no_news(mark)
        paid = mark.outcome == PayoutMark.Outcome.PAID
        changes: dict[str, Any] = {"provider_ref": mark.provider_ref} if mark.provider_ref else {}
        _change(
            mark.payout_id,
            _MARKABLE,
            state=State.PAID if paid else State.FAILED,
            failure_code="" if paid else MARKED,
            **changes,
            **_ENDED,
        )
        for number in PayoutNumber.objects.filter(payout=mark.payout_id, state="live"):
            numbers.number_end(number.pk, mark.outcome)
        evidence = {"mark": mark.pk, "provider_ref": mark.provider_ref}
        payout_money_end(payout_id=mark.payout_id, actor=_actor(by), evidence=evidence)
        _audit(
            mark.payout_id,
            _actor(by),
            "mark_approve",
            mark.evidence,
            {"mark": mark.pk, "outcome": mark.outcome},
        )
    return PayoutMark.objects.get(pk=mark_id)


def payout_mark_reject(*, mark_id: int, by: User, reason: str) -> PayoutMark:
    """The payout stays where it is."""
    _reasoned("reason", reason, WORDS_MAX_CHARS)
    with transaction.atomic():
        mark = _mark(mark_id)
        _decide(mark, PayoutMark.State.REJECTED, by, reason)
        _audit(mark.payout_id, _actor(by), "mark_reject", reason, {"mark": mark.pk})
    return PayoutMark.objects.get(pk=mark_id)


def payout_mark_withdraw(*, mark_id: int, by: User) -> PayoutMark:
    """By the one who asked."""
    with transaction.atomic():
        mark = _mark(mark_id)
        if by.pk != mark.requested_by_id:
            raise ServiceError("", "not_yours", _("Only who asked may withdraw it."))
        _decide(mark, PayoutMark.State.WITHDRAWN, by, "")
        _audit(mark.payout_id, _actor(by), "mark_withdraw", "", {"mark": mark.pk})
    return PayoutMark.objects.get(pk=mark_id)


# --- inside ---------------------------------------------------------------------------------------

_CLEARED: dict[str, Any] = {"manual_reason": "", "manual_at": None}
# The fence moves on, so that a call whose answer comes late writes no more than its own row.
_ENDED: dict[str, Any] = {
    "step": Step.NONE,
    "next_attempt_at": None,
    "lease_until": None,
    "ended_at": Now(),
    "user_action": None,
    "fence": F("fence") + 1,
    **_CLEARED,
}
# Where the provider is about to be asked (it called back, or somebody wants to know), its word
# comes first.
_TO_BE_ASKED = Q(state__in=OUT, next_attempt_at__isnull=False) & ~Q(manual_reason="")
_MARKABLE = Q(state__in=OUT, next_attempt_at=None) & ~Q(manual_reason="")


def _change(payout_id: uuid.UUID, wanted: Q, **changes: Any) -> None:
    """One conditional UPDATE; refused, with words, where it met another payout than it wanted."""
    if Payout.objects.filter(wanted, FREE, pk=payout_id).update(**changes) != 1:
        _refuse(payout_id)


def _exists(payout_id: uuid.UUID, wanted: Q) -> bool:
    return Payout.objects.filter(wanted, pk=payout_id).exists()


def _locked(payout_id: uuid.UUID) -> Payout:
    """Nobody takes it for a call meanwhile."""
    rows = Payout.objects.select_for_update(no_key=True, of=("self",))
    payout = rows.select_related("account").filter(pk=payout_id).first()
    if payout is None:
        _refuse(payout_id)
    return payout


def _refuse(payout_id: uuid.UUID) -> NoReturn:
    """Why the payout isn't what an act needs. Always raises."""
    payout = Payout.objects.filter(pk=payout_id).first()
    if payout is None:
        raise ServiceError("", "not_found", _("There is no such payout."))
    if _exists(payout_id, ~FREE | _TO_BE_ASKED):
        raise ServiceError(
            "", "call_under_way", _("A call to the provider is under way; look again in a minute.")
        )
    raise ServiceError(
        "",
        "not_now",
        _("The payout is now: %(state)s. This isn't possible from there; somebody was faster, or "
          "the provider has answered."),
        state=payout.get_state_display(),
    )  # fmt: skip


def _mark(mark_id: int) -> PayoutMark:
    mark = PayoutMark.objects.select_for_update().filter(pk=mark_id).first()
    if mark is None:
        raise ServiceError("mark", "not_found", _("There is no such request."))
    return mark


def _require_no_news(mark: PayoutMark) -> None:
    """What was asked for rests on what was known then. Under the payout's lock."""
    since = PayoutCall.objects.filter(payout=mark.payout_id).exclude(kind=PayoutCall.Kind.CALLBACK)
    sent = Q(kind=PayoutCall.Kind.SUBMIT, started_at__gte=mark.requested_at)
    heard = Q(ended_at__gte=mark.requested_at) & ~Q(result=Kind.UNKNOWN)
    if since.filter(sent | heard).exists():
        raise ServiceError(
            "",
            "news",
            _(
                "It was sent, or the provider has answered, since this was asked for. Reject this, "
                "look at the payout, and ask anew."
            ),
        )


def _decide(mark: PayoutMark, state: str, by: User, words: str) -> None:
    moved = PayoutMark.objects.filter(pk=mark.pk, state=PayoutMark.State.PENDING).update(
        state=state, decided_by=by, decided_at=Now(), decision=words
    )
    if moved != 1:
        labels = {one.value: one.label for one in PayoutMark.State}
        raise TransitionRefused(
            str(PayoutMark._meta.verbose_name), mark.state, (PayoutMark.State.PENDING,), labels
        )


def _reasoned(field: str, text: str, most: int) -> None:
    if not text.strip():
        raise ServiceError(field, "blank", _("Say why."))
    if len(text) > most:
        raise ServiceError(field, "too_long", _("This has at most %(most)s characters."), most=most)


def _actor(by: User) -> str:
    return f"staff:{by.get_username()}"


def _audit(
    payout_id: uuid.UUID, actor: str, act: str, reason: str, after: dict[str, Any] | None = None
) -> None:
    audit_record(
        actor=actor,
        action=f"payout.{act}",
        object_type="payout",
        object_id=payout_id.hex,
        after=after,
        reason=reason,
    )
