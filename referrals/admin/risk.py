"""Risk cases on the desk: what was found and why, as a picture, and the holds that wait.

Money is released or forfeited hold by hold, on the page of the hold; people are banned on the page
of the person in the forest.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, F, Q, QuerySet, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import moment, money, require, stamp, tag
from engine.staff.pages import page
from packets.admin.holds import TONES
from packets.admin.rows import RowAdmin
from packets.models import Hold
from referrals.models import RiskCase
from referrals.risk.pictures import PEOPLE_SHOWN, picture
from referrals.risk.reasons import Reason

SEE = "referrals.view_riskcase"
HOLDS_SHOWN = 100

REASONS: dict[Reason, str | Promise] = {
    Reason.SELF: gettext_lazy("Paid into the inviter's own account"),
    Reason.CYCLE: gettext_lazy("Tried to invite their own inviter"),
    Reason.STAR_BURST: gettext_lazy("Many friends of one person, one after the other like a clock"),
    Reason.CHAIN: gettext_lazy("Each invites exactly the next"),
    Reason.CLUSTER: gettext_lazy("Many accounts, few purses or phones"),
    Reason.FAST: gettext_lazy("Claims sooner after joining than a person can"),
    Reason.DEAD_CHILDREN: gettext_lazy("Nobody was seen again after the money"),
}
NUMBERS: dict[str, str | Promise] = {
    "people": gettext_lazy("people"),
    "purses": gettext_lazy("purses"),
    "phones": gettext_lazy("phones"),
    "dead": gettext_lazy("not seen again"),
    "claims": gettext_lazy("claims"),
    "fast": gettext_lazy("of these fast"),
    "gap_s": gettext_lazy("seconds between two"),
    "one_invitee": gettext_lazy("with one friend"),
    "tries": gettext_lazy("tries"),
}


@admin.register(RiskCase)
class RiskCaseAdmin(RowAdmin):
    list_display = ["found", "campaign", "score", "why", "people", "waiting", "held"]
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


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    if not object_id.isdecimal():
        raise Http404
    case = get_object_or_404(RiskCase.objects.select_related("campaign"), pk=int(object_id))
    drawn = picture(case)
    return page(
        request,
        "referrals/risk_case.html",
        _("Risk case %(id)s") % {"id": case.pk},
        case=case,
        found=moment(case.opened_at),
        reasons=[
            (REASONS[Reason(code)], ", ".join(f"{NUMBERS[key]}: {n:,}" for key, n in seen.items()))
            for code, seen in case.evidence.items()
        ],
        picture=drawn,
        dots=[
            (spot, reverse("admin:referrals_person", args=[case.campaign_id, spot.person]))
            for spot in drawn.people
        ],
        people=case.members.count(),
        shown=PEOPLE_SHOWN,
        holds=_holds(case),
    )


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
