"""Brings the gate and the packets of a campaign in line with its state.

A transition (`services/life.py`) first becomes true in Postgres; this makes it effective. A process
that dies in between leaves work that the clock (`tasks.py`) finds: repeating is harmless, and so
are two at once.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.errors import ServiceError, TransitionRefused
from packets import services as packet_services
from packets.models import Gate, Packet

State = Campaign.State


def campaign_locked(campaign_id: uuid.UUID) -> Campaign:
    campaign = (
        Campaign.objects.select_for_update(no_key=True, of=("self",))
        .select_related("account", "gate")
        .filter(pk=campaign_id)
        .first()
    )
    if campaign is None:
        raise ServiceError("campaign", "not_found", _("There is no such campaign."))
    return campaign


def campaign_converge(*, campaign_id: uuid.UUID, actor: str, reason: str = "") -> Campaign:
    """Brings the gate and the packets in line with the campaign's state; nothing to do is fine.

    The order is the safe one: what stops claims acts first, what allows them last.
    """
    campaign = Campaign.objects.get(pk=campaign_id)
    opening = campaign.state == State.LIVE
    if not opening:
        _gate_follow(campaign_id, actor, reason)
    for packet in Packet.objects.filter(campaign_link__campaign=campaign).order_by("id"):
        _packet_follow(campaign, packet, actor, reason)
    if opening:
        _gate_follow(campaign_id, actor, reason)
    current = Campaign.objects.select_related("gate", "account").get(pk=campaign_id)
    if current.state != campaign.state:  # moved by somebody while we worked
        return campaign_converge(campaign_id=campaign_id, actor=actor, reason=reason)
    return current


def _packet_follow(campaign: Campaign, packet: Packet, actor: str, reason: str) -> None:
    try:
        match State(campaign.state):
            case State.LIVE | State.PAUSED:
                if packet.state == Packet.State.DRAFT:
                    packet_services.packet_open(packet_id=packet.pk, actor=actor)
            case State.ENDED | State.KILLED:
                if packet.state in (Packet.State.OPEN, Packet.State.PAUSED):
                    packet_services.packet_close(
                        packet_id=packet.pk, actor=actor, reason=reason or campaign.state
                    )
            case State.DRAFT | State.REVIEW | State.SCHEDULED | State.SETTLED:
                pass
    except TransitionRefused:
        pass  # somebody else, converging too or ending the packet's window, was faster


def _gate_state(state: str) -> Gate.State:
    match State(state):
        case State.LIVE:
            return Gate.State.OPEN
        case State.DRAFT | State.REVIEW | State.SCHEDULED | State.PAUSED:
            return Gate.State.PAUSED
        case State.ENDED | State.KILLED | State.SETTLED:
            return Gate.State.CLOSED


def _gate_follow(campaign_id: uuid.UUID, actor: str, reason: str) -> None:
    """Sets the gate by the state that the campaign has under its lock, never by one read earlier.

    Without the lock a slow launch could open the gate after a pause has been answered. Always
    written, also when Postgres shows it so already: the flags in Redis may have been lost.
    """
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        packet_services.gate_set(
            gate_id=campaign.gate_id,
            state=_gate_state(campaign.state),
            reason=reason,
            actor=actor,
        )
