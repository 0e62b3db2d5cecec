"""The workbench of reconciling: which days agree, what differs, and what people say about it.

Looking needs the right to see statements; uploading one and resolving a difference need the right
to reconcile. Nothing on these pages moves money.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.contrib.filters.admin import RangeDateFilter

from engine.lib.adminkit import actor_of, money, number_of, require, stamp, tag
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.confirm import (
    ConfirmedAct,
    Consequence,
    DressedForm,
    ReasonForm,
    confirm,
)
from engine.staff.pages import page
from packets.admin.rows import RowAdmin
from packets.models import (
    Difference,
    Payout,
    ProviderAccount,
    Statement,
    StockCheck,
)
from packets.reconciling import selectors
from packets.reconciling.differences import BY_PEOPLE, difference_resolve
from packets.reconciling.files import FAULTS_SHOWN, StatementUnreadable
from packets.reconciling.selectors import DayState
from packets.reconciling.statements import statement_upload

SEE = "packets.view_statement"
ACT = "packets.reconcile"
CALLS_SHOWN = 50
STATEMENTS_SHOWN = 12
DAY_WORDS = {
    DayState.DONE: gettext_lazy("agrees"),
    DayState.OPEN: gettext_lazy("differs"),
    DayState.RUNNING: gettext_lazy("being compared"),
    DayState.MISSING: gettext_lazy("no statement"),
    DayState.QUIET: gettext_lazy("not due"),
}
DAY_SIGNS = {
    DayState.DONE: "✓",
    DayState.OPEN: "≠",
    DayState.RUNNING: "…",
    DayState.MISSING: "?",
    DayState.QUIET: "·",
}


# --- statements -----------------------------------------------------------------------------------


def split(statement: Statement) -> dict[str, Any]:
    """The bar of a statement: agreeing, resolved and open lines, in percent and in numbers."""
    still_open, resolved = selectors.different_lines(statement)
    total = max(1, statement.lines)
    return {
        "open": still_open,
        "resolved": resolved,
        "agreeing": max(0, statement.done_lines - still_open - resolved),
        "open_percent": min(100, -(-still_open * 100 // total)),
        "done_percent": statement.done_lines * 100 // total if statement.lines else 100,
    }


@admin.register(Statement)
class StatementAdmin(RowAdmin):
    list_display = ["account", "day", "state_shown", "source", "lines", "total", "differing"]
    list_filter = ["account", "state", "source", ("day", RangeDateFilter)]
    ordering = ["-created_at", "-id"]
    list_select_related = ["account"]

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, statement: Statement) -> SafeString:
        return tag(statement.state, statement.get_state_display())

    @admin.display(description=gettext_lazy("paid, in all"), ordering="sum_fen")
    def total(self, statement: Statement) -> SafeString:
        return money(statement.sum_fen)

    @admin.display(description=gettext_lazy("lines that differ"))
    def differing(self, statement: Statement) -> SafeString:
        still_open, resolved = selectors.different_lines(statement)
        return format_html('<span class="ls-num">{} / {}</span>', still_open, still_open + resolved)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return statement_page(request, object_id)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [
            path("overview/", view(overview), name="packets_reconciliation"),
            path("upload/", view(upload), name="packets_statement_upload"),
        ]
        rest: list[URLPattern] = super().get_urls()
        return ours + rest


def overview(request: HttpRequest) -> HttpResponse:
    """Every account's last days at a glance, what is open by class, the newest statements."""
    require(request, SEE)
    differences = reverse("admin:packets_difference_changelist")
    rows = []
    for one in selectors.days_by_account():
        rows.append(
            {
                "name": one.name,
                "by_hand": one.by_hand,
                "missing": sum(day.state is DayState.MISSING for day in one.days),
                "days": [_cell(one.account_id, day, differences) for day in one.days],
            }
        )
    newest = Statement.objects.select_related("account").order_by("-created_at", "-id")
    return page(
        request,
        "packets/reconciliation.html",
        _("Reconciliation"),
        accounts=rows,
        legend=[(state.value, DAY_SIGNS[state], DAY_WORDS[state]) for state in DayState],
        kinds=[
            {
                "label": Difference.Kind(kind.kind).label,
                "count": kind.count,
                "money": yuan(kind.theirs_fen or kind.ours_fen),
                "address": f"{differences}?state__exact=open&kind__exact={kind.kind}",
            }
            for kind in selectors.open_by_kind()
        ],
        statements=[
            {"statement": one, "split": split(one), "sum": yuan(one.sum_fen)}
            for one in newest[:STATEMENTS_SHOWN]
        ],
        check=StockCheck.objects.order_by("-at", "-id").first(),
        may_act=request.user.has_perm(ACT),
    )


def _cell(account_id: int, day: selectors.Day, differences: str) -> dict[str, Any]:
    words = f"{day.day.isoformat()}: {DAY_WORDS[day.state]}"
    if day.open_differences:
        words += f" ({day.open_differences})"
    if day.state is DayState.MISSING and day.failed:
        words += f" – {day.failed}"
    address = ""
    if day.open_differences:
        shown = day.day.isoformat()
        address = (
            f"{differences}?state__exact=open&account__id__exact={account_id}"
            f"&day_from={shown}&day_to={shown}"
        )
    elif day.statement_id is not None:
        address = reverse("admin:packets_statement_change", args=[day.statement_id])
    return {
        "state": day.state.value,
        "sign": DAY_SIGNS[day.state],
        "date": f"{day.day:%d}",
        "words": words,
        "address": address,
    }


def statement_page(request: HttpRequest, object_id: str) -> HttpResponse:
    """One statement: how far it is compared, its sums, what differs. `?as=json` for the bar."""
    require(request, SEE)
    statement = get_object_or_404(
        Statement.objects.select_related("account"),
        pk=number_of(object_id),
    )
    shares = split(statement)
    facts = {
        "label": str(statement.get_state_display()),
        "percent": shares["done_percent"],
        "lines": f"{statement.done_lines:,} / {statement.lines:,}",
        "finished": statement.state not in Statement.UNDER_WAY,
    }
    if request.GET.get("as") == "json":
        return JsonResponse(facts, headers={"Cache-Control": "no-store"})
    found = Difference.objects.filter(statement=statement).order_by("state", "id")
    return page(
        request,
        "packets/statement.html",
        f"{statement.account.name} · {statement.day.isoformat()}",
        statement=statement,
        facts=facts,
        split=shares,
        sum=yuan(statement.sum_fen),
        differences=[_row(one) for one in found[:100]],
        more=max(0, found.count() - 100),
        created=stamp(statement.created_at),
        matched=stamp(statement.matched_at),
        back=reverse("admin:packets_reconciliation"),
    )


def _row(one: Difference) -> dict[str, Any]:
    return {
        "difference": one,
        "ours": yuan(one.ours_fen) if one.ours_fen is not None else "–",
        "theirs": yuan(one.theirs_fen) if one.theirs_fen is not None else "–",
        "ours_state": _payout_state(one.ours_state),
        "theirs_state": _line_state(one.theirs_state),
        "address": reverse("admin:packets_difference_change", args=[one.pk]),
    }


def _payout_state(state: str) -> Any:
    return dict(Payout.State.choices).get(state, "–")


def _line_state(state: str) -> Any:
    from packets.models import StatementLine

    return dict(StatementLine.State.choices).get(state, "–")


class UploadForm(DressedForm):
    account = forms.ModelChoiceField(
        label=gettext_lazy("Provider account"),
        queryset=ProviderAccount.objects.order_by("name"),
        empty_label=None,
    )
    day = forms.DateField(
        label=gettext_lazy("Day"),
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=gettext_lazy("The day that the statement is about, in the provider's zone."),
    )
    file = forms.FileField(
        label=gettext_lazy("Statement"),
        allow_empty_file=True,  # it gets a better answer than Django's
        help_text=gettext_lazy(
            "CSV in UTF-8 or GBK, as the provider's portal exports it, with a header: number, "
            "amount, outcome, time."
        ),
    )


def upload(request: HttpRequest) -> HttpResponse:
    """Take in a file; nothing is kept of one that can't be read, and its rows are named."""
    require(request, ACT)
    bound = request.method == "POST"
    form = UploadForm(request.POST if bound else None, request.FILES if bound else None)
    faults: list[dict[str, Any]] = []
    if bound and form.is_valid():
        data = form.cleaned_data
        try:
            statement = statement_upload(
                account=data["account"],
                day=data["day"],
                file=data["file"].file,
                filename=data["file"].name,
                actor=actor_of(request),
            )
        except ServiceError as refusal:
            form.refuse(refusal)
            if isinstance(refusal, StatementUnreadable):
                faults = [{"line": one.line_no, "why": one.why} for one in refusal.faults]
        else:
            messages.success(request, _("Taken in; it is being compared."))
            return HttpResponseRedirect(
                reverse("admin:packets_statement_change", args=[statement.pk])
            )
    return page(
        request,
        "packets/statement_upload.html",
        _("Upload a statement"),
        status=422 if bound else 200,
        form=form,
        faults=faults,
        faults_bound=len(faults) >= FAULTS_SHOWN,
        back=reverse("admin:packets_reconciliation"),
    )


# --- differences ----------------------------------------------------------------------------------


@admin.register(Difference)
class DifferenceAdmin(RowAdmin):
    list_display = ["day", "account", "kind_shown", "number", "ours", "theirs", "state_shown",
                    "resolution"]  # fmt: skip
    list_filter = ["state", "kind", "account", ("day", RangeDateFilter)]
    search_fields = ["=out_number"]
    search_help_text = gettext_lazy("Exact number")
    ordering = ["-id"]
    list_select_related = ["account"]

    @admin.display(description=gettext_lazy("class"), ordering="kind")
    def kind_shown(self, one: Difference) -> str:
        return str(one.get_kind_display())

    @admin.display(description=gettext_lazy("payout number"))
    def number(self, one: Difference) -> str:
        return one.out_number

    @admin.display(description=gettext_lazy("amount here"))
    def ours(self, one: Difference) -> SafeString:
        return money(one.ours_fen)

    @admin.display(description=gettext_lazy("amount there"))
    def theirs(self, one: Difference) -> SafeString:
        return money(one.theirs_fen)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, one: Difference) -> SafeString:
        return tag("failed" if one.state == "open" else "done", one.get_state_display())

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return difference_page(request, object_id)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [path("<int:pk>/resolve/", view(resolve), name="packets_difference_resolve")]
        rest: list[URLPattern] = super().get_urls()
        return ours + rest


def difference_page(request: HttpRequest, object_id: str) -> HttpResponse:
    """Both sides beside each other, with the calls to the provider as evidence."""
    require(request, "packets.view_difference")
    one = get_object_or_404(
        Difference.objects.select_related("account", "statement", "line", "payout"),
        pk=number_of(object_id),
    )
    payout = one.payout
    calls = payout.calls.select_related("number").order_by("-id")[:CALLS_SHOWN] if payout else []
    lines = [
        {"line": line, "amount": yuan(line.amount_fen), "at": stamp(line.at)}
        for line in selectors.lines_of_number(one)[:CALLS_SHOWN]
    ]
    return page(
        request,
        "packets/difference.html",
        str(one.get_kind_display()),
        one=one,
        ours=yuan(one.ours_fen) if one.ours_fen is not None else None,
        theirs=yuan(one.theirs_fen) if one.theirs_fen is not None else None,
        ours_state=_payout_state(one.ours_state),
        theirs_state=_line_state(one.theirs_state),
        payout=payout,
        payout_amount=yuan(payout.amount_fen) if payout else "",
        numbers=list(payout.numbers.order_by("id")) if payout else [],
        sent=stamp(payout.first_submitted_at) if payout else "",
        ended=stamp(payout.ended_at) if payout else "",
        calls=[
            {"call": call, "at": stamp(call.started_at), "ended": stamp(call.ended_at)}
            for call in calls
        ],
        lines=lines,
        found=stamp(one.found_at),
        resolved=stamp(one.resolved_at),
        may_resolve=request.user.has_perm(ACT) and one.state == Difference.State.OPEN,
        back=reverse("admin:packets_difference_changelist") + "?state__exact=open",
    )


class ResolveForm(ReasonForm):
    resolution = forms.ChoiceField(
        label=gettext_lazy("What it was"),
        choices=[(one.value, one.label) for one in BY_PEOPLE],
    )
    field_order = ("resolution", "reason")


def resolve(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, ACT)
    one = get_object_or_404(Difference.objects.select_related("account"), pk=pk)
    back = reverse("admin:packets_difference_change", args=[one.pk])

    def run(data: dict[str, Any]) -> None:
        difference_resolve(
            difference_id=one.pk,
            resolution=data["resolution"],
            reason=data["reason"],
            actor=actor_of(request),
        )

    act = ConfirmedAct(
        label=_("Resolve the difference"),
        about=f"{one.get_kind_display()} · {one.account.name} · {one.out_number}",
        consequence=Consequence(
            _("No money moves."),
            (
                _("Where money has to be corrected, do that first, with the payout's own acts."),
                _("What you say here stays: it can't be opened again."),
            ),
            (
                (_("amount here"), yuan(one.ours_fen) if one.ours_fen is not None else "–"),
                (_("amount there"), yuan(one.theirs_fen) if one.theirs_fen is not None else "–"),
            ),
        ),
        run=run,
        done=_("Resolved."),
        form=ResolveForm,
        money=False,
    )
    return confirm(request, act, back)
