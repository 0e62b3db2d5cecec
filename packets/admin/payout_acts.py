"""What staff do about a payout: each act on a page that says what it does to the money.

A button is shown only where the payout and the rights allow it; both are asked for again when it is
pressed, by the page and by the service (`packets/payouts/manual.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import require
from engine.lib.money import yuan
from engine.staff.confirm import ConfirmedAct, Consequence, MoneyForm, ReasonForm, confirm
from engine.staff.pages import user_of
from packets.admin.deciding import Asked, decide
from packets.models import Payout, PayoutMark
from packets.models.deciding import EVIDENCE_MAX_CHARS
from packets.payouts import manual
from packets.payouts.rules import ManualReason

State = Payout.State
HANDLE, ASK, DECIDE = (
    "packets.handle_payout",
    "packets.add_payoutmark",
    "packets.decide_payoutmark",
)
EVENTS_SHOWN = 5


class EvidenceForm(MoneyForm):
    """What proves the outcome: the provider's reference, and where somebody saw it."""

    provider_ref = forms.CharField(
        label=gettext_lazy("Provider's reference"),
        max_length=manual.REFERENCE_MAX_CHARS,
        required=False,
        help_text=gettext_lazy("The number of the order in the provider's own console."),
    )
    evidence = forms.CharField(
        label=gettext_lazy("Evidence"),
        max_length=EVIDENCE_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=gettext_lazy(
            "What you saw, where and when: the second person decides on these words."
        ),
    )
    field_order = ("provider_ref", "evidence", "password")


@dataclass(frozen=True)
class Doing:
    """An act on one payout: its words, when it is offered, and the service behind it."""

    label: str | Promise
    icon: str
    permission: str
    offered: Callable[[Payout], bool]
    consequence: Callable[[Payout], Consequence]
    run: Callable[[Payout, User, dict[str, Any]], Any]
    done: str | Promise
    form: type[MoneyForm] = ReasonForm
    main: bool = False
    danger: bool = False


def _out(payout: Payout) -> bool:
    return payout.state in manual.OUT


def _markable(payout: Payout) -> bool:
    waiting = payout.marks.filter(state=PayoutMark.State.PENDING).exists()
    return _out(payout) and bool(payout.manual_reason) and not waiting


def _again(payout: Payout) -> bool:
    unsendable = payout.manual_reason == ManualReason.NOT_SENDABLE
    return unsendable or (_out(payout) and manual.may_send_again(payout))


def _by(service: Callable[..., Any]) -> Callable[[Payout, User, dict[str, Any]], Any]:
    return lambda payout, user, data: service(
        payout_id=payout.pk, actor=f"staff:{user.get_username()}", reason=data["reason"]
    )


def _mark(outcome: str) -> Callable[[Payout, User, dict[str, Any]], Any]:
    return lambda payout, user, data: manual.payout_mark_ask(
        payout_id=payout.pk,
        outcome=outcome,
        provider_ref=data["provider_ref"],
        evidence=data["evidence"],
        by=user,
    )


def _numbers(payout: Payout) -> tuple[tuple[str, str], ...]:
    live = payout.numbers.order_by("-id").first()
    return (
        (_("Amount"), yuan(payout.amount_fen)),
        (_("Payee"), payout.payee_masked),
        (_("Provider account"), payout.account.name),
        (_("Number at the provider"), live.number if live else "–"),
    )


def _query(payout: Payout) -> Consequence:
    return Consequence(
        _("No money moves. The provider is asked what became of it."),
        (_("If the answer is final, the payout ends by it, as if it had come by itself."),),
        _numbers(payout),
    )


def _send(payout: Payout) -> Consequence:
    return Consequence(
        _("%(amount)s is asked of the provider again, under the same number.")
        % {"amount": yuan(payout.amount_fen)},
        (
            _("The provider has said that it knows no such number."),
            _("The same request, byte for byte: what it took after all it does not pay twice."),
        )
        if payout.manual_reason != ManualReason.NOT_SENDABLE
        else (_("It could not be sent before; make sure that what was wrong is mended."),),
        _numbers(payout),
    )


def _release(payout: Payout) -> Consequence:
    return Consequence(
        _("%(amount)s will be paid out when its turn comes.") % {"amount": yuan(payout.amount_fen)},
        (),
        _numbers(payout),
    )


def _refuse(payout: Payout) -> Consequence:
    return Consequence(
        _("%(amount)s goes back into the person's wallet.") % {"amount": yuan(payout.amount_fen)},
        (_("Nothing was ever sent. The person can ask again."),),
        _numbers(payout),
    )


def _mark_paid(payout: Payout) -> Consequence:
    return Consequence(
        _("%(amount)s counts as paid: it leaves our books for good.")
        % {"amount": yuan(payout.amount_fen)},
        (
            _("Nothing happens before somebody else agrees. Then it can't be undone."),
            _("If the provider has not paid, the person has lost this money."),
        ),
        _numbers(payout),
    )


def _mark_failed(payout: Payout) -> Consequence:
    return Consequence(
        _("%(amount)s goes back into the person's wallet, who can withdraw it again.")
        % {"amount": yuan(payout.amount_fen)},
        (
            _("Nothing happens before somebody else agrees. Then it can't be undone."),
            _("If the provider has paid after all, this money is paid twice."),
        ),
        _numbers(payout),
    )


DOINGS: dict[str, Doing] = {
    "release": Doing(
        gettext_lazy("Release"),
        "task_alt",
        HANDLE,
        lambda payout: payout.manual_reason == ManualReason.REVIEW,
        _release,
        _by(manual.payout_release),
        gettext_lazy("Released."),
        main=True,
    ),
    "refuse": Doing(
        gettext_lazy("Refuse"),
        "block",
        HANDLE,
        lambda payout: payout.state == State.CREATED and bool(payout.manual_reason),
        _refuse,
        _by(manual.payout_refuse),
        gettext_lazy("Refused; the money is back in the wallet."),
        danger=True,
    ),
    "query": Doing(
        gettext_lazy("Query now"),
        "search",
        HANDLE,
        _out,
        _query,
        _by(manual.payout_query_now),
        gettext_lazy("The provider is asked; look again in a moment."),
        main=True,
    ),
    "send": Doing(
        gettext_lazy("Send again"),
        "replay",
        HANDLE,
        _again,
        _send,
        _by(manual.payout_send_again),
        gettext_lazy("It is sent again when its turn comes."),
    ),
    "mark-paid": Doing(
        gettext_lazy("Mark as paid"),
        "paid",
        ASK,
        _markable,
        _mark_paid,
        _mark(PayoutMark.Outcome.PAID),
        gettext_lazy("Asked for. Somebody else has to agree."),
        form=EvidenceForm,
    ),
    "mark-failed": Doing(
        gettext_lazy("Mark as failed"),
        "undo",
        ASK,
        _markable,
        _mark_failed,
        _mark(PayoutMark.Outcome.FAILED),
        gettext_lazy("Asked for. Somebody else has to agree."),
        form=EvidenceForm,
        danger=True,
    ),
}


def address_of(payout: Payout) -> str:
    return reverse("admin:packets_payout_change", args=[payout.pk])


def buttons(user: User, payout: Payout) -> list[dict[str, Any]]:
    """What this person may do now."""
    return [
        {
            "act": name,
            "label": doing.label,
            "icon": doing.icon,
            "main": doing.main,
            "danger": doing.danger,
            "address": reverse("admin:packets_payout_act", args=[payout.pk, name]),
        }
        for name, doing in DOINGS.items()
        if user.has_perm(doing.permission) and doing.offered(payout)
    ]


def act(request: HttpRequest, pk: Any, name: str) -> HttpResponse:
    """Says what would happen; with the form filled in, does it."""
    doing = DOINGS.get(name)
    if doing is None:
        raise Http404
    require(request, doing.permission)
    user = user_of(request)
    payout = get_object_or_404(Payout.objects.select_related("account"), pk=pk)
    return confirm(
        request,
        ConfirmedAct(
            label=doing.label,
            icon=doing.icon,
            consequence=doing.consequence(payout),
            run=lambda data: doing.run(payout, user, data),
            done=doing.done,
            form=doing.form,
            danger=doing.danger,
            about=payout.pk.hex,
        ),
        address_of(payout),
    )


def decide_mark(request: HttpRequest, pk: int) -> HttpResponse:
    """The second person's page about a payout that is to be marked by hand."""
    require(request, "packets.view_payout")
    mark = get_object_or_404(
        PayoutMark.objects.select_related("payout__account", "requested_by", "decided_by"), pk=pk
    )
    user, payout = user_of(request), mark.payout
    consequence = (_mark_paid if mark.outcome == PayoutMark.Outcome.PAID else _mark_failed)(payout)
    return decide(
        request,
        Asked(
            row=mark,
            about=payout.pk.hex,
            title=_("To be marked: %(outcome)s") % {"outcome": mark.get_outcome_display()},
            consequence=Consequence(
                consequence.money,
                consequence.facts[1:],
                (
                    *consequence.numbers,
                    (_("Provider's reference"), mark.provider_ref or "–"),
                    (_("Evidence"), mark.evidence),
                ),
            ),
            permission=DECIDE,
            approve=lambda: manual.payout_mark_approve(mark_id=mark.pk, by=user),
            reject=lambda why: manual.payout_mark_reject(mark_id=mark.pk, by=user, reason=why),
            withdraw=lambda: manual.payout_mark_withdraw(mark_id=mark.pk, by=user),
            back=address_of(payout),
        ),
    )
