"""The data plane in the admin: to look at, never to write. Money moves through services only.

Lists are paged without a COUNT and ordered by an index; people and claims are found by key.
"""

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
    ReadOnlyModelAdmin,
    digests_of,
    exact_filter,
    money,
    stamp,
    uuid_of,
)
from engine.models import ClientApp
from packets.models import (
    Account,
    Claim,
    ClaimState,
    Gate,
    Lane,
    LaneEpoch,
    Packet,
    Participant,
    Ticket,
    Transfer,
)


class RowAdmin(ReadOnlyModelAdmin):
    """What the data plane's screens share: people by their digest, amounts in yuan."""

    shown_instead = {"participant": "person", "digest": "person", "amount_fen": "amount"}

    @admin.display(description=_("participant"))
    def person(self, row: Any) -> str:
        return bytes(row.participant if hasattr(row, "participant") else row.digest).hex()

    @admin.display(description=_("amount"))
    def amount(self, row: Any) -> SafeString:
        return money(row.amount_fen)


def _by_uuid(field: str, queryset: QuerySet[Any], text: str) -> QuerySet[Any]:
    found = uuid_of(text)
    return queryset.filter(**{field: found}) if found else queryset.none()


@admin.register(Packet)
class PacketAdmin(RowAdmin):
    hidden = ("seed_encrypted", "home_key", "password_hash", "beacon")
    shown_instead = {"total_fen": "total", "min_fen": "least", "max_fen": "most"}
    list_display = [
        "public_id",
        "name",
        "state",
        "strategy",
        "total",
        "count",
        "opens",
        "closes",
    ]
    list_filter = ["state", "strategy", ("opens_at", MomentFilter)]
    search_fields = ["id"]
    search_help_text = _("Exact packet id")
    ordering = ["-created_at"]
    list_select_related = ["gate", "funder", "escrow"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Packet], search_term: str
    ) -> tuple[QuerySet[Packet], bool]:
        return _by_uuid("pk", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("id"))
    def public_id(self, packet: Packet) -> str:
        return packet.public_id

    @admin.display(description=_("total"), ordering="total_fen")
    def total(self, packet: Packet) -> SafeString:
        return money(packet.total_fen)

    @admin.display(description=_("smallest portion"))
    def least(self, packet: Packet) -> SafeString:
        return money(packet.min_fen)

    @admin.display(description=_("largest portion"))
    def most(self, packet: Packet) -> SafeString:
        return money(packet.max_fen)

    @admin.display(description=_("opens at"), ordering="opens_at")
    def opens(self, packet: Packet) -> SafeString:
        return stamp(packet.opens_at)

    @admin.display(description=_("closes at"), ordering="closes_at")
    def closes(self, packet: Packet) -> SafeString:
        return stamp(packet.closes_at)


@admin.register(Lane)
class LaneAdmin(RowAdmin):
    list_display = ["packet", "number", "state", "epoch", "claimed", "claimed_count", "count"]
    list_filter = ["state"]
    search_fields = ["packet"]
    search_help_text = _("Exact packet id")
    ordering = ["-id"]
    list_select_related = ["packet"]
    shown_instead = {"total_fen": "total", "claimed_fen": "claimed"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Lane], search_term: str
    ) -> tuple[QuerySet[Lane], bool]:
        return _by_uuid("packet", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("total"))
    def total(self, lane: Lane) -> SafeString:
        return money(lane.total_fen)

    @admin.display(description=_("claimed"), ordering="claimed_fen")
    def claimed(self, lane: Lane) -> SafeString:
        return format_html("{} / {}", money(lane.claimed_fen), money(lane.total_fen))


@admin.register(LaneEpoch)
class LaneEpochAdmin(RowAdmin):
    list_display = ["lane_number", "epoch", "cause", "left", "left_count", "opened"]
    list_filter = ["cause"]
    search_fields = ["lane"]
    search_help_text = _("Exact packet id")
    ordering = ["-id"]
    list_select_related = ["lane"]
    shown_instead = {"left_fen": "left"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LaneEpoch], search_term: str
    ) -> tuple[QuerySet[LaneEpoch], bool]:
        return _by_uuid("lane__packet", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("lane"))
    def lane_number(self, epoch: LaneEpoch) -> int:
        return epoch.lane.number

    @admin.display(description=_("left"))
    def left(self, epoch: LaneEpoch) -> SafeString:
        return money(epoch.left_fen)

    @admin.display(description=_("opened at"))
    def opened(self, epoch: LaneEpoch) -> SafeString:
        return stamp(epoch.opened_at)


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
        return _by_uuid("pk", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("claim"))
    def claim_hex(self, state: ClaimState) -> str:
        return state.claim_id.hex

    @admin.display(description=_("amount"))
    def amount(self, state: ClaimState) -> SafeString:
        return money(state.claim.amount_fen)

    @admin.display(description=_("changed at"), ordering="changed_at")
    def changed(self, state: ClaimState) -> SafeString:
        return stamp(state.changed_at)


@admin.register(Account)
class AccountAdmin(RowAdmin):
    list_display = ["kind", "owner", "currency", "balance"]
    list_filter = ["kind"]
    search_fields = ["owner"]
    search_help_text = _("Exact: the owner's id, or the app's user id")
    ordering = ["-id"]
    shown_instead = {"debits_fen": "debits_shown", "credits_fen": "credits_shown"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Account], search_term: str
    ) -> tuple[QuerySet[Account], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        owners = [text.replace("-", ""), text, *(digest.hex() for digest in digests_of(text))]
        # With the kinds named, the unique key (kind, owner, currency) finds the rows.
        return queryset.filter(kind__in=Account.Kind.values, owner__in=owners), False

    @admin.display(description=_("balance"))
    def balance(self, account: Account) -> SafeString:
        return money(account.balance_fen)

    @admin.display(description=_("debits"))
    def debits_shown(self, account: Account) -> SafeString:
        return money(account.debits_fen)

    @admin.display(description=_("credits"))
    def credits_shown(self, account: Account) -> SafeString:
        return money(account.credits_fen)


@admin.register(Transfer)
class TransferAdmin(RowAdmin):
    list_display = ["reference", "kind", "debit_account", "credit_account", "amount", "at"]
    list_filter = ["kind", ("created_at", MomentFilter)]
    search_fields = ["=reference"]
    search_help_text = _("Exact reference")
    ordering = ["-id"]
    list_select_related = ["debit_account", "credit_account"]

    @admin.display(description=_("created at"), ordering="id")
    def at(self, transfer: Transfer) -> SafeString:
        return stamp(transfer.created_at)


@admin.register(Gate)
class GateAdmin(RowAdmin):
    list_display = ["key", "state", "reason", "changed"]
    list_filter = ["state", exact_filter("key", _("key"))]
    ordering = ["-id"]

    @admin.display(description=_("changed at"))
    def changed(self, gate: Gate) -> SafeString:
        return stamp(gate.changed_at)


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
