"""Risk cases on the desk: what was found and why, as a picture, what happened, what waits.

Money is released or forfeited hold by hold, on the page of the hold, or all of a case at once from
here; people are banned on their page in the forest, or all of a case. What is done to all of it is
carried out by a worker, and the case says how far it is.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, F, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import actor_of, moment, money, number_of, require, stamp, tag
from engine.lib.money import yuan
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from engine.staff.pages import page
from packets.admin.holds import DECIDE, TONES
from packets.admin.rows import RowAdmin
from packets.models import Hold
from referrals.admin import risk_policy
from referrals.admin.forest import BAN
from referrals.models import Decision, RiskAct, RiskCase
from referrals.risk.acts import act_ask, holds_of
from referrals.risk.pictures import PEOPLE_SHOWN, picture
from referrals.risk.reasons import Reason
from referrals.risk.story import Happened, Moment, story
from referrals.risk.words import REASONS, seen_words

SEE = "referrals.view_riskcase"
HOLDS_SHOWN = 100
ACTS_SHOWN = 5
DECISION_TONES = {
    Decision.CHALLENGE: "scheduled",
    Decision.HOLD: "pending",
    Decision.DENY: "rejected",
}
RIGHT_OF = {RiskAct.Kind.RELEASE: DECIDE, RiskAct.Kind.FORFEIT: DECIDE, RiskAct.Kind.BAN: BAN}
ICONS = {
    RiskAct.Kind.RELEASE: "lock_open",
    RiskAct.Kind.FORFEIT: "undo",
    RiskAct.Kind.BAN: "block",
}
LABELS: dict[RiskAct.Kind, str | Promise] = {
    RiskAct.Kind.RELEASE: gettext_lazy("Release all"),
    RiskAct.Kind.FORFEIT: gettext_lazy("Forfeit all"),
    RiskAct.Kind.BAN: gettext_lazy("Ban all"),
}
HAPPENED: dict[Happened, str | Promise] = {
    Happened.JOINED: gettext_lazy("joined"),
    Happened.EARNED: gettext_lazy("earned a reward"),
    Happened.FOUND: gettext_lazy("The cluster was found"),
    Happened.HELD: gettext_lazy("held"),
    Happened.RELEASED: gettext_lazy("released"),
    Happened.FORFEITED: gettext_lazy("forfeited"),
    Happened.PASSED: gettext_lazy("passed the challenge"),
    Happened.ACT: gettext_lazy("asked for"),
    Happened.BANNED: gettext_lazy("banned"),
}


@admin.register(RiskCase)
class RiskCaseAdmin(RowAdmin):
    list_display = ["found", "campaign", "score", "decided", "why", "people", "waiting", "held"]
    list_filter = ["decision"]
    list_select_related = ["campaign"]
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskCase]:
        holds = "members__rewards__hold"
        is_open = Q(**{f"{holds}__state": Hold.State.OPEN})
        rows: QuerySet[RiskCase] = super().get_queryset(request)
        return rows.annotate(
            size=Count("members", distinct=True),
            open_holds=Count(holds, filter=is_open),
            open_fen=Sum(f"{holds}__amount_fen", filter=is_open),
        )

    @admin.display(description=gettext_lazy("found at"), ordering="id")
    def found(self, case: RiskCase) -> SafeString:
        return stamp(case.opened_at)

    @admin.display(description=gettext_lazy("decision"))
    def decided(self, case: RiskCase) -> SafeString:
        return tag(DECISION_TONES[Decision(case.decision)], case.get_decision_display())

    @admin.display(description=gettext_lazy("reasons"))
    def why(self, case: RiskCase) -> str:
        return " · ".join(str(REASONS[Reason(code)]) for code in case.evidence)

    @admin.display(description=gettext_lazy("people"))
    def people(self, case: Any) -> str:
        return f"{case.size:,}"

    @admin.display(description=gettext_lazy("open holds"))
    def waiting(self, case: Any) -> str:
        return f"{case.open_holds:,}"

    @admin.display(description=gettext_lazy("held"))
    def held(self, case: Any) -> SafeString:
        return money(case.open_fen or 0)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return detail(request, object_id)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:case_id>/<str:name>/do/", view(act), name="referrals_riskcase_act"),
            *risk_policy.urls(view),
            *super().get_urls(),
        ]


# --- one case -------------------------------------------------------------------------------------


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    rows = RiskCase.objects.select_related("campaign", "policy")
    case = get_object_or_404(rows, pk=number_of(object_id))
    acts = list(case.acts.order_by("-id")[:ACTS_SHOWN])
    under_way = next((one for one in acts if one.done_at is None), None)
    if request.GET.get("as") == "json":
        return JsonResponse(_progress(under_way), headers={"Cache-Control": "no-store"})
    drawn = picture(case)
    members = case.members
    return page(
        request,
        "referrals/risk_case.html",
        _("Risk case %(id)s") % {"id": case.pk},
        case=case,
        tone=DECISION_TONES[Decision(case.decision)],
        found=moment(case.opened_at),
        reasons=[
            (REASONS[Reason(code)], seen_words(Reason(code), seen))
            for code, seen in case.evidence.items()
        ],
        picture=drawn,
        dots=[(spot, _person(case, spot.person)) for spot in drawn.people],
        people=members.count(),
        free=members.exclude(cleared_at=None).count(),
        shown=PEOPLE_SHOWN,
        holds=_holds(case),
        story=[_told(case, one) for one in story(case)],
        buttons=[] if under_way else _buttons(request, case),
        under_way=under_way,
        progress=_progress(under_way),
    )


def _person(case: RiskCase, person: str) -> str:
    return reverse("admin:referrals_person", args=[case.campaign_id, person])


def _progress(act: RiskAct | None) -> dict[str, Any]:
    """How far the act is that is being carried out."""
    if act is None:
        return {"percent": 100, "finished": True}
    percent = min(100, round(100 * act.done / act.of)) if act.of else 0
    return {"percent": percent, "rows": f"{act.done:,} / {act.of:,}", "finished": False}


def _told(case: RiskCase, one: Moment) -> dict[str, Any]:
    note = one.note
    if one.what is Happened.ACT:
        actor, _bar, kind = note.rpartition("|")
        note = f"{RiskAct.Kind(kind).label} · {actor}"
    return {
        "at": stamp(one.at),
        "what": HAPPENED[one.what],
        "kind": one.what.value,
        "person": one.person,
        "address": _person(case, one.person) if one.person else "",
        "amount": "" if one.amount_fen is None else money(one.amount_fen),
        "note": note,
        "reason": one.reason,
    }


def _holds(case: RiskCase) -> list[dict[str, Any]]:
    """What was held, the open ones first."""
    rows = Hold.objects.filter(risk__member__case=case).select_related("appeal")
    ordered = rows.order_by(F("resolved_at").desc(nulls_first=True), "opened_at", "id")
    found = []
    for hold in ordered[:HOLDS_SHOWN]:
        found.append(
            {
                "address": reverse("admin:packets_hold_change", args=[hold.pk]),
                "at": stamp(hold.opened_at),
                "person": bytes(hold.participant).hex(),
                "amount": money(hold.amount_fen),
                "state": tag(TONES[Hold.State(hold.state)], hold.get_state_display()),
                "appealed": getattr(hold, "appeal", None) is not None,
                "reason": hold.reason,
            }
        )
    return found


# --- all of it at once ----------------------------------------------------------------------------


def _buttons(request: HttpRequest, case: RiskCase) -> list[dict[str, Any]]:
    return [
        {
            "act": kind.value,
            "label": label,
            "icon": ICONS[kind],
            "danger": kind is not RiskAct.Kind.RELEASE,
            "address": reverse("admin:referrals_riskcase_act", args=[case.pk, kind.value]),
        }
        for kind, label in LABELS.items()
        if request.user.has_perm(RIGHT_OF[kind])
    ]


def act(request: HttpRequest, case_id: int, name: str) -> HttpResponse:
    """Release, forfeit or ban all: what it does to the money, asked once more, then written down
    for a worker."""
    if name not in RiskAct.Kind.values:
        raise Http404
    kind = RiskAct.Kind(name)
    require(request, RIGHT_OF[kind])
    case = get_object_or_404(RiskCase.objects.select_related("campaign"), pk=case_id)
    waiting = holds_of(case)
    fen = waiting.aggregate(fen=Sum("amount_fen"))["fen"] or 0
    confirmed = ConfirmedAct(
        label=LABELS[kind],
        icon=ICONS[kind],
        danger=kind is not RiskAct.Kind.RELEASE,
        about=f"{case.campaign} · {_('Risk case %(id)s') % {'id': case.pk}}",
        consequence=Consequence(
            _consequence(kind) % {"amount": yuan(fen)},
            _facts(kind),
            (
                (_("People"), f"{case.members.count():,}"),
                (_("Open holds"), f"{waiting.count():,}"),
                (_("Held"), yuan(fen)),
                (_("Appeals among them"), f"{waiting.filter(appeal__isnull=False).count():,}"),
            ),
        ),
        run=lambda data: act_ask(
            case=case, kind=kind, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Written down; it is being carried out."),
    )
    return confirm(
        request, confirmed, back=reverse("admin:referrals_riskcase_change", args=[case.pk])
    )


def _consequence(kind: RiskAct.Kind) -> str:
    match kind:
        case RiskAct.Kind.RELEASE:
            return _("%(amount)s goes to the wallets of these people.")
        case RiskAct.Kind.FORFEIT:
            return _("%(amount)s goes back to whoever funded the packets.")
        case RiskAct.Kind.BAN:
            return _("Rewards of these people and of everybody below, still in wallets, are held.")


def _facts(kind: RiskAct.Kind) -> tuple[str, ...]:
    match kind:
        case RiskAct.Kind.RELEASE:
            return (
                _("Everybody is let go for good: nothing more is held because of this case."),
                _("Rewards that waited for a challenge, or were denied, are granted now."),
            )
        case RiskAct.Kind.FORFEIT:
            return (
                _("The people don't get it, and see that it is forfeited. This can't be undone."),
                _("The case stays: what they earn from now on is held again."),
            )
        case RiskAct.Kind.BAN:
            return (
                _("They win nothing more in this campaign, and their links stop working."),
                _("What is held already waits as before. A ban can be lifted, person by person."),
            )
