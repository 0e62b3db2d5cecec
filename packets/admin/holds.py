"""Held money on the desk: what waits for a decision, one hold with its evidence, the decision.

The oldest open holds come first. Whoever may look sees all of it; who may decide gives a reason,
and the password, since money moves.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from engine.lib.adminkit import (
    MomentFilter,
    actor_of,
    digests_of,
    moment,
    money,
    require,
    stamp,
    tag,
    uuid_of,
)
from engine.lib.money import yuan
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from engine.staff.pages import page
from packets.admin.rows import RowAdmin
from packets.holds.appeals import appeal_text
from packets.holds.editing import window_words
from packets.holds.holding import BY_RULE
from packets.holds.resolving import hold_forfeit, hold_release
from packets.holds.rules import RiskReason, reason_words
from packets.models import Account, Claim, Hold, HoldAppeal, Participant

SEE = "packets.view_hold"
DECIDE = "packets.resolve_hold"
# The person's claims shown beside a hold, those nearest to it in time.
CLAIMS_BEFORE = 30
CLAIMS_AFTER = 10
OTHER_HOLDS = 10
TONES = {
    Hold.State.OPEN: "pending",
    Hold.State.RELEASED: "done",
    Hold.State.FORFEITED: "rejected",
}
MAX_BADGE = 99


def open_holds() -> int:
    """How many wait; counted no further than the badge can say."""
    rows = Hold.objects.filter(state=Hold.State.OPEN).order_by()
    return len(rows.values_list("pk")[:MAX_BADGE])


class StateFilter(admin.SimpleListFilter):
    """The open ones unless something else is chosen."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [*Hold.State.choices, ("all", _("All"))]

    def choices(self, changelist: Any) -> Any:
        chosen = self.value() or Hold.State.OPEN
        for code, label in self.lookup_choices:
            yield {
                "selected": chosen == code,
                "query_string": changelist.get_query_string({self.parameter_name: code}),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Hold]) -> QuerySet[Hold]:
        wanted = self.value() or Hold.State.OPEN
        return queryset if wanted == "all" else queryset.filter(state=wanted)


@admin.register(Hold)
class HoldAdmin(RowAdmin):
    list_display = ["since", "amount", "person", "why", "appealed", "state_shown"]
    list_filter = [StateFilter, ("opened_at", MomentFilter)]
    search_fields = ["id"]
    search_help_text = gettext_lazy("Exact: hold, claim, participant, or the app's user id")
    ordering = ["opened_at"]
    list_select_related = ["appeal"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Hold], search_term: str
    ) -> tuple[QuerySet[Hold], bool]:
        text = search_term.replace("\0", "").strip()
        if not text:
            return queryset, False
        found = uuid_of(text)
        wanted = queryset.filter(participant__in=digests_of(text))
        if found is not None:
            wanted = wanted | queryset.filter(pk=found) | queryset.filter(claim=found)
        return wanted, False

    @admin.display(description=gettext_lazy("held since"), ordering="opened_at")
    def since(self, hold: Hold) -> SafeString:
        return stamp(hold.opened_at)

    @admin.display(description=gettext_lazy("reasons"))
    def why(self, hold: Hold) -> str:
        return " · ".join(reason_words(hold.reasons))

    @admin.display(description=gettext_lazy("appeal"), boolean=True)
    def appealed(self, hold: Hold) -> bool:
        return getattr(hold, "appeal", None) is not None

    @admin.display(description=gettext_lazy("state"))
    def state_shown(self, hold: Hold) -> SafeString:
        return tag(TONES[Hold.State(hold.state)], hold.get_state_display())

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return detail(request, object_id)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [path("<uuid:pk>/<str:name>/do/", view(decide), name="packets_hold_decide")]
        return [*ours, *super().get_urls()]


# --- one hold -------------------------------------------------------------------------------------


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    found = uuid_of(object_id)
    if found is None:
        raise Http404
    rows = Hold.objects.select_related("claim__packet", "funder", "rule")
    hold = get_object_or_404(rows, pk=found)
    appeal = HoldAppeal.objects.filter(hold=hold).first()
    may = request.user.has_perm(DECIDE) and hold.state == Hold.State.OPEN
    return page(
        request,
        "packets/hold.html",
        _("Hold %(id)s") % {"id": hold.pk.hex[:8]},
        hold=hold,
        tone=TONES[Hold.State(hold.state)],
        amount=yuan(hold.amount_fen),
        reasons=_reasons(hold),
        appeal=appeal_text(appeal) if appeal else "",
        appeal_at=moment(appeal.created_at) if appeal else "",
        facts=_facts(hold),
        claims=_claims_around(hold),
        others=_others(hold),
        buttons=_buttons(hold) if may else [],
    )


def _reasons(hold: Hold) -> list[dict[str, str]]:
    """Each reason in words, and what was seen, in numbers."""
    seen: dict[str, str] = {}
    for one in hold.evidence:
        if {"reason", "seen", "most", "window_s"} <= one.keys():
            said = _claims if one["reason"] == RiskReason.CLAIMS_PER_PERSON else yuan
            seen[one["reason"]] = _(
                "%(seen)s within %(window)s; up to %(most)s would have been usual."
            ) % {
                "seen": said(one["seen"]),
                "most": said(one["most"]),
                "window": window_words(one["window_s"]),
            }
        else:
            # Another detector's evidence has names of its own.
            text = ", ".join(f"{name}: {value}" for name, value in one.items())
            seen.setdefault(str(one.get("reason", "")), text)
    words = reason_words(hold.reasons)
    return [
        {"words": text, "seen": seen.get(code, seen.get("", ""))}
        for code, text in zip(hold.reasons, words, strict=True)
    ]


def _claims(count: int) -> str:
    return ngettext("%(n)s claim", "%(n)s claims", count) % {"n": f"{count:,}"}


def _person(hold: Hold) -> str:
    known = Participant.objects.filter(pk=bytes(hold.participant)).first()
    return str(known) if known else bytes(hold.participant).hex()


def _facts(hold: Hold) -> list[tuple[str, str]]:
    came_from = _("packet “%(name)s”") % {"name": hold.claim.packet} if hold.claim else _("wallet")
    return [
        (_("Person"), _person(hold)),
        (_("Participant"), bytes(hold.participant).hex()),
        (_("Came from"), came_from),
        (_("Forfeited it goes to"), _account(hold.funder)),
        (_("Held since"), moment(hold.opened_at, seconds=True)),
        (_("Held by"), _("a risk rule") if hold.opened_by == BY_RULE else hold.opened_by),
        *(
            [
                (_("Decided at"), moment(hold.resolved_at, seconds=True)),
                (_("Decided by"), hold.resolved_by),
                (_("Reason"), hold.reason),
            ]
            if hold.resolved_at
            else []
        ),
    ]


def _account(account: Account) -> str:
    return f"{account.get_kind_display()} {account.owner}"


def _claims_around(hold: Hold) -> list[dict[str, Any]]:
    """The person's claims around the moment of this one, oldest first, with their running sum."""
    at = hold.claim.committed_at if hold.claim else hold.opened_at
    mine = Claim.objects.filter(participant=hold.participant).select_related("packet", "state")
    before = mine.filter(committed_at__lte=at).order_by("-committed_at", "-id")[:CLAIMS_BEFORE]
    after = mine.filter(committed_at__gt=at).order_by("committed_at", "id")[:CLAIMS_AFTER]
    rows = [*reversed(before), *after]
    largest = max((row.amount_fen for row in rows), default=1)
    shown, sum_fen, last = [], 0, None
    for row in rows:
        sum_fen += row.amount_fen
        state = getattr(row, "state", None)
        shown.append(
            {
                "at": stamp(row.committed_at),
                "gap": _gap(last, row.committed_at),
                "packet": row.packet.name or row.packet_id.hex[:8],
                "address": reverse("admin:packets_packet_change", args=[row.packet_id]),
                "amount": money(row.amount_fen),
                "bar": max(1, round(100 * row.amount_fen / largest)),
                "sum": money(sum_fen),
                "state": state.get_state_display() if state else _("committed"),
                "this": row.pk == hold.claim_id,
            }
        )
        last = row.committed_at
    return shown


def _gap(before: dt.datetime | None, after: dt.datetime) -> str:
    """How long after the one before."""
    if before is None:
        return ""
    seconds = (after - before).total_seconds()
    return f"+{seconds:.1f} s" if seconds < 60 else f"+{window_words(int(seconds) // 60 * 60)}"


def _others(hold: Hold) -> list[dict[str, Any]]:
    mine = Hold.objects.filter(participant=hold.participant).exclude(pk=hold.pk)
    return [
        {
            "at": stamp(other.opened_at),
            "amount": money(other.amount_fen),
            "state": tag(TONES[Hold.State(other.state)], other.get_state_display()),
            "address": reverse("admin:packets_hold_change", args=[other.pk]),
            "reason": other.reason,
        }
        for other in mine.order_by("-opened_at", "-id")[:OTHER_HOLDS]
    ]


# --- the decision ---------------------------------------------------------------------------------


def _buttons(hold: Hold) -> list[dict[str, Any]]:
    return [
        {
            "act": name,
            "label": label,
            "icon": icon,
            "danger": name == "forfeit",
            "address": reverse("admin:packets_hold_decide", args=[hold.pk, name]),
        }
        for name, label, icon in (
            ("release", _("Release"), "lock_open"),
            ("forfeit", _("Forfeit"), "undo"),
        )
    ]


def decide(request: HttpRequest, pk: Any, name: str) -> HttpResponse:
    """Release or forfeit: what it does to the money, asked once more, then done."""
    require(request, DECIDE)
    if name not in ("release", "forfeit"):
        raise Http404
    hold = get_object_or_404(Hold.objects.select_related("funder", "claim"), pk=pk)
    return confirm(
        request,
        act=_release(request, hold) if name == "release" else _forfeit(request, hold),
        back=reverse("admin:packets_hold_change", args=[hold.pk]),
    )


def _release(request: HttpRequest, hold: Hold) -> ConfirmedAct:
    return ConfirmedAct(
        label=gettext_lazy("Release"),
        icon="lock_open",
        about=f"{_person(hold)} · {yuan(hold.amount_fen)}",
        consequence=Consequence(
            _("%(amount)s goes to the wallet of the person.") % {"amount": yuan(hold.amount_fen)},
            (
                _("They can withdraw it at once."),
                _("This can't be undone; what is in a wallet can be held again."),
            ),
        ),
        run=lambda data: hold_release(
            hold_id=hold.pk, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Released."),
    )


def _forfeit(request: HttpRequest, hold: Hold) -> ConfirmedAct:
    return ConfirmedAct(
        label=gettext_lazy("Forfeit"),
        icon="undo",
        danger=True,
        about=f"{_person(hold)} · {yuan(hold.amount_fen)}",
        consequence=Consequence(
            _("%(amount)s goes back to whoever funded the packet: %(funder)s.")
            % {"amount": yuan(hold.amount_fen), "funder": _account(hold.funder)},
            (
                _("The person doesn't get it, and sees that it is forfeited."),
                _("This can't be undone."),
            ),
        ),
        run=lambda data: hold_forfeit(
            hold_id=hold.pk, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Forfeited."),
    )
