"""The data plane in the admin: to look at, never to write. Money moves through services only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from engine.lib.money import yuan
from packets.models import (
    Account,
    Claim,
    ClaimState,
    Gate,
    Lane,
    LaneEpoch,
    Packet,
    Participant,
    Transfer,
)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows can be seen and nothing else; big tables are neither counted nor joined row by row."""

    show_full_result_count = False
    list_per_page = 50
    actions = None
    # What no screen shows, not even to staff: secrets that would let one foresee portions.
    hidden: tuple[str, ...] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        fields = [field.name for field in self.opts.fields if field.name not in self.hidden]
        return [{"participant": "person", "digest": "person"}.get(name, name) for name in fields]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        return self.get_fields(request, obj)

    @admin.display(description=_("participant"))
    def person(self, row: Any) -> str:
        return bytes(row.participant if hasattr(row, "participant") else row.digest).hex()


@admin.register(Packet)
class PacketAdmin(ReadOnlyAdmin):
    hidden = ("seed_encrypted", "home_key", "password_hash", "beacon")
    list_display = [
        "public_id",
        "name",
        "state",
        "strategy",
        "total",
        "count",
        "opens_at",
        "closes_at",
    ]
    list_filter = ["state", "strategy"]
    search_fields = ["=id", "name"]
    ordering = ["-created_at"]
    list_select_related = ["gate", "funder", "escrow"]

    @admin.display(description=_("total"), ordering="total_fen")
    def total(self, packet: Packet) -> str:
        return yuan(packet.total_fen)


@admin.register(Lane)
class LaneAdmin(ReadOnlyAdmin):
    list_display = ["packet", "number", "state", "epoch", "claimed", "claimed_count", "count"]
    list_filter = ["state"]
    search_fields = ["=packet__id"]
    ordering = ["-id"]
    list_select_related = ["packet"]

    @admin.display(description=_("claimed"), ordering="claimed_fen")
    def claimed(self, lane: Lane) -> str:
        return f"{yuan(lane.claimed_fen)} / {yuan(lane.total_fen)}"


@admin.register(LaneEpoch)
class LaneEpochAdmin(ReadOnlyAdmin):
    list_display = ["lane_id", "epoch", "cause", "left_fen", "left_count", "opened_at"]
    list_filter = ["cause"]
    search_fields = ["=lane__packet__id"]
    ordering = ["-id"]
    list_select_related = ["lane"]


@admin.register(Claim)
class ClaimAdmin(ReadOnlyAdmin):
    list_display = ["id", "packet", "person", "amount", "epoch", "index", "committed_at"]
    search_fields = ["=id"]
    ordering = ["-committed_at"]
    list_select_related = ["packet", "lane"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Claim]:
        return super().get_queryset(request).select_related("packet", "lane")

    @admin.display(description=_("amount"), ordering="amount_fen")
    def amount(self, claim: Claim) -> str:
        return yuan(claim.amount_fen)


@admin.register(ClaimState)
class ClaimStateAdmin(ReadOnlyAdmin):
    list_display = ["claim_id", "state", "transfer", "reason", "changed_at"]
    list_filter = ["state"]
    search_fields = ["=claim__id"]
    ordering = ["-changed_at"]
    list_select_related = ["transfer"]


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ["kind", "owner", "currency", "balance"]
    list_filter = ["kind"]
    search_fields = ["=owner"]
    ordering = ["-id"]

    @admin.display(description=_("balance"))
    def balance(self, account: Account) -> str:
        return yuan(account.balance_fen)


@admin.register(Transfer)
class TransferAdmin(ReadOnlyAdmin):
    list_display = ["reference", "kind", "debit_account", "credit_account", "amount", "created_at"]
    list_filter = ["kind"]
    search_fields = ["=reference"]
    ordering = ["-id"]
    list_select_related = ["debit_account", "credit_account"]

    @admin.display(description=_("amount"), ordering="amount_fen")
    def amount(self, transfer: Transfer) -> str:
        return yuan(transfer.amount_fen)


@admin.register(Gate)
class GateAdmin(ReadOnlyAdmin):
    list_display = ["key", "state", "reason", "changed_at"]
    list_filter = ["state"]
    search_fields = ["key"]


@admin.register(Participant)
class ParticipantAdmin(ReadOnlyAdmin):
    list_display = ["person", "client_app_id", "subject", "created_at"]
    search_fields = ["=subject"]
    ordering = ["-created_at"]
