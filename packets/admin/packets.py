"""Packets and gates, lanes and their epochs, to look at."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import (
    MomentFilter,
    exact_filter,
    money,
    stamp,
)
from packets.admin.rows import RowAdmin, by_uuid
from packets.models import (
    Gate,
    Lane,
    LaneEpoch,
    Packet,
)


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
        return by_uuid("pk", queryset, search_term) if search_term else queryset, False

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
        return by_uuid("packet", queryset, search_term) if search_term else queryset, False

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
        return by_uuid("lane__packet", queryset, search_term) if search_term else queryset, False

    @admin.display(description=_("lane"))
    def lane_number(self, epoch: LaneEpoch) -> int:
        return epoch.lane.number

    @admin.display(description=_("left"))
    def left(self, epoch: LaneEpoch) -> SafeString:
        return money(epoch.left_fen)

    @admin.display(description=_("opened at"))
    def opened(self, epoch: LaneEpoch) -> SafeString:
        return stamp(epoch.opened_at)


@admin.register(Gate)
class GateAdmin(RowAdmin):
    list_display = ["key", "state", "reason", "changed"]
    list_filter = ["state", exact_filter("key", _("key"))]
    ordering = ["-id"]

    @admin.display(description=_("changed at"))
    def changed(self, gate: Gate) -> SafeString:
        return stamp(gate.changed_at)
