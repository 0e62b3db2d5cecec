"""People's own packets: to look at, and to stop: all of them by their gate, or one of them."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import (
    MomentFilter,
    actor_of,
    digests_of,
    money,
    require,
    stamp,
    uuid_of,
)
from engine.lib.money import yuan
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from packets.admin import payout_desk
from packets.admin.rows import RowAdmin
from packets.models import Gate, Lane, Packet, PeoplePacket
from packets.people_packets import GATE
from packets.services import gate_set, packet_close

STOP = "packets.stop_peoplepackets"
HOME = "admin:packets_peoplepacket_changelist"
OPEN_STATES = (Packet.State.OPEN, Packet.State.PAUSED)


def _own_gate(keys: list[str]) -> dict[str, str]:
    """What the payout desk calls the gate of these packets."""
    return {GATE: _("People's packets")} if GATE in keys else {}


payout_desk.gate_namers.append(_own_gate)


@admin.register(PeoplePacket)
class PeoplePacketAdmin(RowAdmin):
    hidden = ("key",)
    list_display = ["packet_link", "person", "total", "count", "message", "state", "sent", "close"]
    list_filter = [("created_at", MomentFilter)]
    search_fields = ["packet"]
    search_help_text = gettext_lazy("Exact: packet id, participant, or the app's user id")
    ordering = ["-created_at"]
    list_select_related = ["packet"]
    list_before_template = "packets/people_gate.html"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PeoplePacket], search_term: str
    ) -> tuple[QuerySet[PeoplePacket], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        if (found := uuid_of(text)) is not None and queryset.filter(pk=found).exists():
            return queryset.filter(pk=found), False
        return queryset.filter(participant__in=digests_of(text)), False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        shown = {"gate": Gate.objects.get(key=GATE), "may_stop": request.user.has_perm(STOP)}
        answer: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **shown})
        return answer

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [
            path("gate/", view(gate), name="packets_peoplepacket_gate"),
            path("<uuid:pk>/close/", view(close), name="packets_peoplepacket_close"),
        ]
        return [*ours, *super().get_urls()]

    @admin.display(description=gettext_lazy("packet"))
    def packet_link(self, sent: PeoplePacket) -> SafeString:
        address = reverse("admin:packets_packet_change", args=[sent.packet_id])
        return format_html('<a class="ls-link" href="{}">{}</a>', address, sent.packet_id.hex)

    @admin.display(description=gettext_lazy("total"))
    def total(self, sent: PeoplePacket) -> SafeString:
        return money(sent.packet.total_fen)

    @admin.display(description=gettext_lazy("portions"))
    def count(self, sent: PeoplePacket) -> int:
        return sent.packet.count

    @admin.display(description=gettext_lazy("state"))
    def state(self, sent: PeoplePacket) -> str:
        return sent.packet.get_state_display()

    @admin.display(description=gettext_lazy("sent at"), ordering="created_at")
    def sent(self, sent: PeoplePacket) -> SafeString:
        return stamp(sent.created_at)

    @admin.display(description="")
    def close(self, sent: PeoplePacket) -> SafeString | str:
        if sent.packet.state not in OPEN_STATES:
            return ""
        address = reverse("admin:packets_peoplepacket_close", args=[sent.packet_id])
        return format_html('<a class="ls-link" href="{}">{}</a>', address, _("Close"))


def gate(request: HttpRequest) -> HttpResponse:
    """Stops all of them, or allows them again."""
    require(request, STOP)
    row = Gate.objects.get(key=GATE)
    stopped = row.state != Gate.State.OPEN
    if stopped:
        consequence = Consequence(
            _("People can send packets from their wallets again, and claim those that are open."),
            (_("Those whose time has run out meanwhile went back to their senders."),),
        )
    else:
        consequence = Consequence(
            _("No money moves."),
            (
                _("Nobody can send a packet from a wallet, and nobody claims one, from now on."),
                _("At the end of its time each goes back to its sender, as always."),
                _("Campaigns go on."),
            ),
        )
    act = ConfirmedAct(
        label=_("Allow people's packets") if stopped else _("Stop people's packets"),
        icon="play_arrow" if stopped else "front_hand",
        consequence=consequence,
        run=lambda data: gate_set(
            gate_id=row.pk,
            state=Gate.State.OPEN if stopped else Gate.State.PAUSED,
            reason=data["reason"],
            actor=actor_of(request),
        ),
        done=_("People's packets are allowed again.")
        if stopped
        else _("People's packets are stopped."),
        money=stopped,  # stopping must be quick
        danger=not stopped,
    )
    return confirm(request, act, reverse(HOME))


def close(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ends one before its time; what nobody has claimed goes back to its sender."""
    require(request, STOP)
    sent = get_object_or_404(PeoplePacket.objects.select_related("packet"), pk=pk)
    lanes = Lane.objects.filter(packet=sent.packet)
    claimed_fen = lanes.aggregate(fen=Sum("claimed_fen"))["fen"] or 0
    left_fen = sent.packet.total_fen - claimed_fen
    act = ConfirmedAct(
        label=_("Close the packet"),
        icon="block",
        consequence=Consequence(
            _("%(left)s that nobody has claimed goes back to its sender's wallet.")
            % {"left": yuan(left_fen)},
            (
                _("%(claimed)s that people have won stays theirs.")
                % {"claimed": yuan(claimed_fen)},
                _("This can't be undone."),
            ),
        ),
        run=lambda data: packet_close(packet_id=pk, actor=actor_of(request), reason=data["reason"]),
        done=_("The packet is closed."),
        danger=True,
        about=sent.packet_id.hex,
    )
    return confirm(request, act, reverse(HOME))
