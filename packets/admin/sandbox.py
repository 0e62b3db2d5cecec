"""The sandbox's page: which faults it has and how often, its balance, and what it did last.

Whoever may see a provider account sees it; whoever may change one sets faults and confirms orders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from engine.lib.adminkit import YuanField, actor_of, dress, require
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.confirm import DressedForm
from engine.staff.pages import page
from packets.models import ProviderAccount
from packets.payouts.sandbox import sandbox_confirm, sandbox_set, sandbox_shown
from packets.providers.sandbox.faults import DEFAULT_SECONDS, MAX_SECONDS, Fault, StatementFault

SEE, CHANGE = "packets.view_provideraccount", "packets.change_provideraccount"
NS_PER_MS = 1_000_000

FAULTS: dict[Fault | StatementFault, str | Promise] = {
    Fault.TIMEOUT_AFTER_PAYING: gettext_lazy("Pays, and never answers"),
    Fault.ERROR_AFTER_PAYING: gettext_lazy("Pays, and answers with an error"),
    Fault.ERROR_BEFORE_PAYING: gettext_lazy("Answers with an error, and has done nothing"),
    Fault.PAID_LATE: gettext_lazy("Accepts at once, pays late"),
    Fault.CALLBACK_FIRST: gettext_lazy("Calls back before it answers"),
    Fault.DUPLICATE_CALLBACKS: gettext_lazy("Calls back three times"),
    Fault.FORGED_CALLBACK: gettext_lazy("Somebody else calls back in its name"),
    Fault.CALLBACK_LATE: gettext_lazy("Calls back late, with older news after it"),
    Fault.NOT_FOUND_FIRST: gettext_lazy("Knows nothing of an order for a while, then pays it"),
    Fault.RATE_LIMITED: gettext_lazy("Too many calls"),
    Fault.UNKNOWN_CODE: gettext_lazy("Answers with a code that nobody knows"),
    Fault.MALFORMED_BODY: gettext_lazy("Pays, and its answer breaks off"),
    Fault.HUGE_BODY: gettext_lazy("Pays, and its answer is far too long"),
    Fault.REDIRECT: gettext_lazy("Sends the caller elsewhere"),
    Fault.OUT_OF_FUNDS: gettext_lazy("Our account there is out of funds"),
    Fault.FAILED: gettext_lazy("Fails for good"),
    Fault.CLOSED: gettext_lazy("Closes the number; another one works"),
    Fault.SLOW_ANSWER: gettext_lazy("Answers slowly"),
    Fault.WRONG_AMOUNT: gettext_lazy("Says another amount than it paid"),
    Fault.USER_ACTION: gettext_lazy("The payee has to confirm"),
    StatementFault.LOST: gettext_lazy("The statement lacks a line"),
    StatementFault.INVENTED: gettext_lazy("The statement has a line too many"),
    StatementFault.AMOUNT: gettext_lazy("The statement says another amount"),
    StatementFault.STATE: gettext_lazy("The statement says another outcome"),
    StatementFault.DUPLICATE: gettext_lazy("The statement says a line twice"),
}
STATES: dict[str, str | Promise] = {
    "accepted": gettext_lazy("accepted"),
    "waiting": gettext_lazy("waits for the payee"),
    "paid": gettext_lazy("paid"),
    "failed": gettext_lazy("failed"),
    "cancelled": gettext_lazy("cancelled"),
}
OPERATIONS: dict[str, str | Promise] = {
    "submit": gettext_lazy("sent"),
    "query": gettext_lazy("asked"),
    "cancel": gettext_lazy("cancel"),
}


class SandboxForm(DressedForm):
    """Balance in yuan, rates in percent; a pair of fields for each fault."""

    balance = YuanField(
        label=gettext_lazy("Set the balance to"),
        required=False,
        help_text=gettext_lazy("Empty: it stays as it is."),
    )
    seed = forms.CharField(
        label=gettext_lazy("Seed"),
        max_length=100,
        help_text=gettext_lazy("Decides which orders meet which fault."),
    )
    settle_s = forms.FloatField(
        label=gettext_lazy("Seconds until an order is paid"), min_value=0, max_value=3_600
    )
    check_numbers = forms.BooleanField(
        label=gettext_lazy("Recognises a number that is sent again"),
        required=False,
        help_text=gettext_lazy("Switched off, it pays such an order twice."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for fault in FAULTS:
            rate = forms.FloatField(min_value=0, max_value=100, required=False)
            self.fields[f"rate_{fault}"] = rate
            if fault in DEFAULT_SECONDS:
                seconds = forms.FloatField(min_value=0, max_value=MAX_SECONDS, required=False)
                self.fields[f"seconds_{fault}"] = seconds
        for name, field in self.fields.items():
            if name.startswith(("rate_", "seconds_")):
                dress(field)
                field.widget.attrs["style"] = "max-width: 7rem"

    def rows(self) -> list[dict[str, Any]]:
        """A line for each fault: its name for payee accounts, its words, its fields."""
        return [
            {
                "name": str(fault),
                "words": words,
                "rate": self[f"rate_{fault}"],
                "seconds": self[f"seconds_{fault}"] if fault in DEFAULT_SECONDS else None,
                "by_account": isinstance(fault, Fault),
            }
            for fault, words in FAULTS.items()
        ]

    def changes(self) -> dict[str, Any]:
        data = self.cleaned_data
        lasting = [fault for fault in FAULTS if fault in DEFAULT_SECONDS]
        return {
            **({} if data["balance"] is None else {"balance_fen": data["balance"]}),
            "seed": data["seed"],
            "settle_s": data["settle_s"],
            "check_numbers": data["check_numbers"],
            "rates": {
                str(fault): data[f"rate_{fault}"] / 100 for fault in FAULTS if data[f"rate_{fault}"]
            },
            "seconds": {
                str(fault): data[f"seconds_{fault}"]
                for fault in lasting
                if data[f"seconds_{fault}"] is not None
            },
        }


def _initial(shown: dict[str, Any]) -> dict[str, Any]:
    seconds = {**shown["default_seconds"], **shown["seconds"]}
    return {
        "seed": shown["seed"],
        "settle_s": f"{shown['settle_s']:g}",
        "check_numbers": shown["check_numbers"],
        **{f"rate_{name}": f"{rate * 100:.6g}" for name, rate in shown["rates"].items()},
        **{f"seconds_{name}": f"{value:g}" for name, value in seconds.items()},
    }


def sandbox_page(request: HttpRequest, pk: int) -> HttpResponse:
    """GET shows it, POST sets it."""
    require(request, SEE)
    account = _account(pk)
    title = _("Sandbox: %(name)s") % {"name": account.name}
    try:
        shown = sandbox_shown(account)
    except ServiceError as refusal:
        return page(request, "packets/sandbox.html", title, account=account, away=refusal.message)
    form = SandboxForm(request.POST or None, initial=_initial(shown))
    if request.method == "POST":
        require(request, CHANGE)
        if form.is_valid():
            try:
                sandbox_set(
                    account=account,
                    changes=form.changes(),
                    actor=actor_of(request),
                    request=request,
                )
            except ServiceError as refusal:
                form.refuse(refusal)
            else:
                messages.success(request, _("The sandbox is set."))
                return HttpResponseRedirect(address_of(account))
    return page(
        request,
        "packets/sandbox.html",
        title,
        status=422 if form.is_bound else 200,
        account=account,
        form=form,
        may_change=request.user.has_perm(CHANGE),
        balance=yuan(shown["balance_fen"]),
        totals=[
            (STATES.get(state, state), total["count"], yuan(total["amount_fen"]))
            for state, total in sorted(shown["totals"].items())
        ],
        orders=[
            {
                **order,
                "amount": yuan(order["amount_fen"]),
                "words": STATES.get(order["state"], order["state"]),
                "met": _fault_words(order["fault"]),
                "open": order["state"] in ("accepted", "waiting"),
            }
            for order in shown["orders"]
        ],
        calls=[_call(call) for call in shown["calls"]],
    )


def _fault_words(name: str) -> str | Promise:
    known = {str(fault): words for fault, words in FAULTS.items()}
    return known.get(name, name)


def _call(call: dict[str, Any]) -> dict[str, Any]:
    ended = call["ended_ns"]
    return {
        "number": call["out_number"],
        "words": OPERATIONS.get(call["operation"], call["operation"]),
        "status": call["status"] or "–",
        "met": _fault_words(call["fault"]),
        "ms": (ended - call["started_ns"]) // NS_PER_MS if ended else None,
    }


@require_POST
def sandbox_confirm_order(request: HttpRequest, pk: int) -> HttpResponse:
    """What the payee would do on their phone."""
    require(request, CHANGE)
    account = _account(pk)
    try:
        state = sandbox_confirm(
            account=account,
            out_number=request.POST.get("number", ""),
            actor=actor_of(request),
            request=request,
        )
    except ServiceError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, _("The order is now: %(state)s") % {"state": STATES[state]})
    return HttpResponseRedirect(address_of(account))


def urls(view: Callable[[Any], Any]) -> list[URLPattern]:
    """Below the provider accounts' own addresses; `view` is the admin site's `admin_view`."""
    return [
        path("<int:pk>/sandbox/", view(sandbox_page), name="packets_provider_sandbox"),
        path(
            "<int:pk>/sandbox/confirm/",
            view(sandbox_confirm_order),
            name="packets_provider_sandbox_confirm",
        ),
    ]


def address_of(account: ProviderAccount) -> str:
    return reverse("admin:packets_provider_sandbox", args=[account.pk])


def _account(pk: int) -> ProviderAccount:
    account = get_object_or_404(ProviderAccount, pk=pk)
    if account.kind != ProviderAccount.Kind.SANDBOX:
        raise Http404
    return account
