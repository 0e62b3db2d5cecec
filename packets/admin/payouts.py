"""Payouts: the list, and the page of one with its whole story.

The list is never counted and finds rows by key: id, number at the provider, the provider's
reference, participant or idempotency key. What may be done stands in `payout_acts.py`.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import (
    MomentFilter,
    digests_of,
    require,
    stamp,
    tag,
    uuid_of,
    zone_label,
)
from engine.lib.money import yuan
from engine.models import ClientApp
from engine.staff.pages import page, user_of
from packets.admin import payout_acts, payout_desk
from packets.admin.payout_story import next_words, span, story
from packets.admin.payout_words import TONES, WHY, why_of
from packets.admin.rows import RowAdmin
from packets.models import Participant, Payout, PayoutNumber, Transfer
from packets.models.deciding import PayoutMark
from packets.payouts import queue

SEE = "packets.view_payout"


class ManualFilter(admin.SimpleListFilter):
    title = gettext_lazy("waits for a person")
    parameter_name = "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("yes", _("yes, for whatever reason")),
            *((code, why.title) for code, why in WHY.items()),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Payout]) -> QuerySet[Payout]:
        if self.value() == "yes":
            return queryset.exclude(manual_reason="")
        return queryset.filter(manual_reason=self.value()) if self.value() else queryset


@admin.register(Payout)
class PayoutAdmin(RowAdmin):
    list_display = ["public_id", "state_shown", "amount", "payee_masked", "account", "age", "then"]
    list_filter = ["state", "account", ManualFilter, ("created_at", MomentFilter)]
    search_fields = ["id"]
    search_help_text = gettext_lazy(
        "Exact: id, number or reference at the provider, participant, the app's user id, or "
        "idempotency key"
    )
    ordering = ["-created_at", "-id"]
    list_select_related = ["account"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Payout], search_term: str
    ) -> tuple[QuerySet[Payout], bool]:
        text = search_term.replace("\0", "").strip()
        if not text:
            return queryset, False
        # Each part has an index of its own.
        numbers = PayoutNumber.objects.filter(number=text).values_list("payout_id", flat=True)
        wanted = Q(pk__in=list(numbers)) | Q(key=text) | Q(provider_ref=text)
        wanted |= Q(participant__in=digests_of(text))
        if (found := uuid_of(text)) is not None:
            wanted |= Q(pk=found)
        return queryset.filter(wanted), False

    @admin.display(description=gettext_lazy("id"))
    def public_id(self, payout: Payout) -> SafeString:
        return format_html('<span class="ls-mono">{}</span>', payout.pk.hex)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, payout: Payout) -> SafeString:
        shown = tag(TONES[payout.state], payout.get_state_display())
        if payout.manual_reason:
            return format_html("{} {}", shown, tag("failed", _("waits for a person")))
        return shown

    @admin.display(description=gettext_lazy("age"), ordering="created_at")
    def age(self, payout: Any) -> SafeString:
        if payout.is_terminal:
            return stamp(payout.ended_at)
        seconds = (payout.now - payout.created_at).total_seconds()
        return format_html('<span class="ls-num">{}</span>', span(seconds))

    @admin.display(description=gettext_lazy("next"))
    def then(self, payout: Any) -> str:
        return "–" if payout.is_terminal else next_words(payout, payout.now)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payout]:
        queryset: QuerySet[Payout] = super().get_queryset(request)
        return queryset.annotate(now=Now())

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return detail(request, object_id)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [
            path("desk/", view(payout_desk.desk), name="packets_payout_desk"),
            path("manual/", view(payout_desk.manual), name="packets_payout_manual"),
            path("mark/<int:pk>/", view(payout_acts.decide_mark), name="packets_payout_mark"),
            path("<uuid:pk>/do/<str:name>/", view(payout_acts.act), name="packets_payout_act"),
        ]
        return [*ours, *super().get_urls()]


# --- one payout -----------------------------------------------------------------------------------


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    found = uuid_of(object_id)
    if found is None:
        raise Http404
    payout = get_object_or_404(Payout.objects.select_related("account", "wallet"), pk=found)
    why = why_of(payout)
    return page(
        request,
        "packets/payout.html",
        _("Payout %(id)s") % {"id": payout.pk.hex[:8]},
        payout=payout,
        tone=TONES[payout.state],
        amount=yuan(payout.amount_fen),
        why=why,
        mark=_waiting_mark(payout),
        buttons=payout_acts.buttons(user_of(request), payout),
        story=story(payout, str(why.title) if why else ""),
        zone=zone_label(settings.STAFF_TIME_ZONE),
        facts=_facts(payout),
        numbers=[
            {"text": number.number, "words": number.get_state_display()}
            for number in payout.numbers.order_by("id")
        ],
        transfers=_transfers(payout),
    )


def _waiting_mark(payout: Payout) -> dict[str, Any] | None:
    mark = (
        payout.marks.filter(state=PayoutMark.State.PENDING).select_related("requested_by").first()
    )
    if mark is None or payout.is_terminal:
        return None
    return {
        "words": _("%(who)s asks to mark it: %(outcome)s")
        % {"who": mark.requested_by.get_username(), "outcome": mark.get_outcome_display()},
        "evidence": mark.evidence,
        "address": reverse("admin:packets_payout_mark", args=[mark.pk]),
    }


def _facts(payout: Payout) -> list[tuple[str, Any]]:
    person = Participant.objects.filter(pk=payout.participant).first()
    app = ClientApp.objects.filter(pk=payout.client_app_id).first()
    address = reverse("admin:packets_provideraccount_change", args=[payout.account_id])
    wallet = reverse("admin:packets_account_change", args=[payout.wallet_id])
    link = '<a class="ls-link" href="{}">{}</a>'
    facts: list[tuple[str, Any]] = [
        (_("Provider account"), format_html(link, address, payout.account.name)),
        (_("Payee"), payout.payee_masked),
        (_("Client app"), app.slug if app else "–"),
        (_("The app's user id"), person.subject if person else "–"),
        (_("Wallet"), format_html(link, wallet, payout.wallet.owner[:12] + "…")),
        (_("Asked for at"), stamp(payout.created_at)),
        (_("Idempotency key"), format_html('<span class="ls-mono">{}</span>', payout.key)),
        (_("Times sent"), f"{payout.submits:,}"),
    ]
    if payout.provider_ref:
        facts.append(
            (
                _("Provider's reference"),
                format_html('<span class="ls-mono">{}</span>', payout.provider_ref),
            )
        )
    if payout.user_action is not None:
        facts.append((_("To be confirmed until"), stamp(payout.user_action_until)))
    if payout.lease_until is not None and not payout.is_terminal:
        facts.append((_("Call under way until"), stamp(payout.lease_until)))
    if payout.next_attempt_at is not None:
        facts.append((_("Due at"), stamp(payout.next_attempt_at)))
    if (eta_s := queue.eta_s(payout)) is not None:
        facts.append((_("Likely sent and answered in about"), span(eta_s)))
    return facts


def _transfers(payout: Payout) -> list[dict[str, Any]]:
    references = [f"payout:{payout.pk.hex}", f"payout-end:{payout.pk.hex}"]
    return [
        {
            "words": transfer.get_kind_display(),
            "amount": yuan(transfer.amount_fen),
            "at": stamp(transfer.created_at),
            "address": reverse("admin:packets_transfer_change", args=[transfer.pk]),
        }
        for transfer in Transfer.objects.filter(reference__in=references).order_by("id")
    ]
