"""Rewards with what earned them, and the events that apps reported: to look at, never to write."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import MomentFilter, digests_of, exact_filter, money, stamp, tag
from packets.admin.rows import RowAdmin
from referrals.models import Reward, ServerEvent

# How a state looks: money moved, nothing to do about it, or a budget to look at.
COLOURS = {"granted": "settled", "capped": "draft", "ended": "draft", "refused": "draft"}


def _of_people(queryset: QuerySet[Any], text: str, *further: Q) -> QuerySet[Any]:
    wanted = Q(participant__in=digests_of(text))
    for one in further:
        wanted |= one
    return queryset.filter(wanted)


@admin.register(Reward)
class RewardAdmin(RowAdmin):
    list_display = ["at_", "campaign", "side", "person", "became", "amount", "qualified_by"]
    list_filter = [
        exact_filter("referral__campaign__slug", _("campaign (its short name)")),
        exact_filter("state", _("state")),
        ("at", MomentFilter),
    ]
    search_fields = ["participant"]
    search_help_text = _("Exact: participant, or the app's user id")
    ordering = ["-id"]
    list_select_related = ["referral__campaign", "claim"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Reward], search_term: str
    ) -> tuple[QuerySet[Reward], bool]:
        text = search_term.strip()
        return (_of_people(queryset, text) if text else queryset), False

    @admin.display(description=_("at"), ordering="id")
    def at_(self, reward: Reward) -> SafeString:
        return stamp(reward.at)

    @admin.display(description=_("campaign"))
    def campaign(self, reward: Reward) -> str:
        return str(reward.referral.campaign)

    @admin.display(description=_("state"))
    def became(self, reward: Reward) -> SafeString:
        return tag(COLOURS.get(reward.state, "paused"), reward.get_state_display())

    @admin.display(description=_("amount"))
    def amount(self, reward: Reward) -> SafeString:
        if reward.claim is None:
            return money(None)
        address = reverse("admin:packets_claim_change", args=[reward.claim_id])
        return format_html('<a class="ls-link" href="{}">{}</a>', address, money(
            reward.claim.amount_fen
        ))  # fmt: skip


@admin.register(ServerEvent)
class ServerEventAdmin(RowAdmin):
    list_display = ["received", "kind", "person", "campaign", "mission", "happened", "key"]
    list_filter = [exact_filter("kind", _("kind")), ("at", MomentFilter)]
    search_fields = ["participant"]
    search_help_text = _("Exact: participant, or the app's user id")
    ordering = ["-id"]
    list_select_related = ["campaign"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ServerEvent], search_term: str
    ) -> tuple[QuerySet[ServerEvent], bool]:
        text = search_term.strip()
        return (_of_people(queryset, text) if text else queryset), False

    @admin.display(description=_("received at"), ordering="id")
    def received(self, event: ServerEvent) -> SafeString:
        return stamp(event.received_at)

    @admin.display(description=_("at"), ordering="at")
    def happened(self, event: ServerEvent) -> SafeString:
        return stamp(event.at)
