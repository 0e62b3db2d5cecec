"""Claims, tickets and people; the claims whose settlement was refused."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.db.models import Exists, Func, OuterRef, Q, QuerySet, UUIDField
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import (
    MomentFilter,
    digests_of,
    money,
    stamp,
    uuid_of,
)
from engine.models import ClientApp
from packets.admin.rows import RowAdmin, by_uuid
from packets.models import (
    Claim,
    ClaimState,
    Lane,
    Participant,
    Ticket,
)


@admin.register(Claim)
class ClaimAdmin(RowAdmin):
    list_display = ["claim_id", "person", "amount", "packet_link", "lane_number", "index", "at"]
    list_filter = [("committed_at", MomentFilter)]
    search_fields = ["id"]
    search_help_text = _("Exact: claim id, packet id, participant, or the app's user id")
    ordering = ["-committed_at"]
    list_select_related = ["packet", "lane"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Claim], search_term: str
    ) -> tuple[QuerySet[Claim], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        wanted = Q(participant__in=digests_of(text))
        if (found := uuid_of(text)) is not None:
            # Two indexed look-ups; an OR over the packet would read all of the packet's claims.
            wanted |= Q(pk=found) | Q(lane__in=_lanes_of(found))
        return queryset.filter(wanted), False

    @admin.display(description=_("id"))
    def claim_id(self, claim: Claim) -> str:
        return claim.pk.hex

    @admin.display(description=_("packet"))
    def packet_link(self, claim: Claim) -> SafeString:
        address = reverse("admin:packets_packet_change", args=[claim.packet_id])
        return format_html('<a class="ls-link" href="{}">{}</a>', address, str(claim.packet))

    @admin.display(description=_("lane"))
    def lane_number(self, claim: Claim) -> int:
        return claim.lane.number

    @admin.display(description=_("committed at"), ordering="committed_at")
    def at(self, claim: Claim) -> SafeString:
        return stamp(claim.committed_at)


@admin.register(Ticket)
class TicketAdmin(RowAdmin):
    list_display = ["key", "person", "packet_link", "serial", "reason", "used", "issued"]
    list_filter = [("created_at", MomentFilter)]
    search_fields = ["key"]
    search_help_text = _("Exact: issuer's id, packet id, participant, or the app's user id")
    ordering = ["-id"]
    list_select_related = ["packet"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Ticket]:
        claim = Func(
            OuterRef("packet_id"),
            OuterRef("participant"),
            OuterRef("serial"),
            function="laisee_claim_id",
            output_field=UUIDField(),
        )
        queryset: QuerySet[Ticket] = super().get_queryset(request)
        return queryset.annotate(is_used=Exists(Claim.objects.filter(pk=claim)))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Ticket], search_term: str
    ) -> tuple[QuerySet[Ticket], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        # With the apps named, the unique key (app, key) finds the rows.
        apps = list(ClientApp.objects.values_list("pk", flat=True))
        wanted = Q(client_app_id__in=apps, key=text) | Q(participant__in=digests_of(text))
        if (found := uuid_of(text)) is not None:
            wanted |= Q(packet=found)
        return queryset.filter(wanted), False

    @admin.display(description=_("packet"))
    def packet_link(self, ticket: Ticket) -> SafeString:
        address = reverse("admin:packets_packet_change", args=[ticket.packet_id])
        return format_html('<a class="ls-link" href="{}">{}</a>', address, str(ticket.packet))

    @admin.display(description=_("used"), boolean=True)
    def used(self, ticket: Any) -> bool:
        return bool(ticket.is_used)

    @admin.display(description=_("issued at"), ordering="id")
    def issued(self, ticket: Ticket) -> SafeString:
        return stamp(ticket.created_at)


def _lanes_of(packet_id: uuid.UUID) -> list[int]:
    return list(Lane.objects.filter(packet=packet_id).values_list("pk", flat=True))


@admin.register(ClaimState)
class ClaimStateAdmin(RowAdmin):
    """The claims whose settlement was refused: what finance has to look at."""

    list_display = ["claim_hex", "amount", "reason", "changed"]
    search_fields = ["claim"]
    search_help_text = _("Exact claim id")
    ordering = ["-changed_at"]
    list_select_related = ["claim"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClaimState]:
        queryset: QuerySet[ClaimState] = super().get_queryset(request)
        return queryset.filter(state=ClaimState.State.PARKED)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ClaimState], search_term: str
    ) -> tuple[QuerySet[ClaimState], bool]:
        return by_uuid("pk", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("claim"))
    def claim_hex(self, state: ClaimState) -> str:
        return state.claim_id.hex

    @admin.display(description=_("amount"))
    def amount(self, state: ClaimState) -> SafeString:
        return money(state.claim.amount_fen)

    @admin.display(description=_("changed at"), ordering="changed_at")
    def changed(self, state: ClaimState) -> SafeString:
        return stamp(state.changed_at)


@admin.register(Participant)
class ParticipantAdmin(RowAdmin):
    list_display = ["person", "app", "subject", "seen"]
    # A digest is no address; the list says all there is.
    list_display_links = None
    search_fields = ["subject"]
    search_help_text = _("Exact: participant, or the app's user id")
    ordering = ["pk"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Participant], search_term: str
    ) -> tuple[QuerySet[Participant], bool]:
        text = search_term.strip()
        return queryset.filter(pk__in=digests_of(text)) if text else queryset, False

    @admin.display(description=_("client app"))
    def app(self, participant: Participant) -> int:
        return participant.client_app_id

    @admin.display(description=_("first seen"))
    def seen(self, participant: Participant) -> SafeString:
        return stamp(participant.created_at)
