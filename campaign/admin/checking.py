"""Everything about a campaign's form that can be refused without writing, each at its field.

The page and its preview ask here, and here the rules of the services are asked: what they refuse is
shown beside what was typed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.db.models import Sum
from django.utils.translation import gettext as _

from campaign import rules
from campaign.admin.forms import BasePacketFormSet, CampaignForm, PacketForm
from campaign.models import Campaign
from engine.lib import clock
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from packets import services as packet_services
from packets.models import Packet, PacketTarget


def check(
    form: CampaignForm,
    packets: BasePacketFormSet,
    campaign: Campaign | None,
    *,
    submitting: bool = False,
) -> bool:
    """Everything that can be refused without writing, each refusal at its field."""
    form.is_valid()
    packets.is_valid()
    kept = packets.kept
    _check_basics(form, campaign)
    for packet in kept:
        if cuttable(packet):
            _refused_to(packet, lambda p=packet: packet_services.packet_check(**p.cut))  # type: ignore[misc]
        if cuttable(packet):
            _refused_to(packet, lambda p=packet: rules.check_prizes(**p.cut))  # type: ignore[misc]
        if "starts_at" not in form.errors and "ends_at" not in form.errors:
            _check_window(form, packet)
    sums = sums_of(form, kept, campaign)
    if sums is not None and sums[0] > sums[1]:
        form.add_error(
            "budget",
            _("The budget of %(budget)s is below the packets' sum of %(sum)s.")
            % {"budget": yuan(sums[1]), "sum": yuan(sums[0])},
        )
    if submitting:
        _check_ready(form, packets, campaign)
    return (
        form.is_valid()
        and all(packet.is_valid() for packet in kept)
        and not (packets.non_form_errors())
    )


def _check_ready(form: CampaignForm, packets: BasePacketFormSet, campaign: Campaign | None) -> None:
    """What `rules.check_ready` will ask of a campaign that is handed in, all of it at once."""
    data, kept = form.cleaned_data, packets.kept
    if not kept and not rains_fen(campaign):
        form.add_error("budget", _("A campaign needs at least one packet."))
    if not data.get("rules_zh", "").strip():
        form.add_error("rules_zh", _("The rules that people read are missing."))
    drawn = any(packet.cleaned_data.get("strategy") == "tiers" for packet in kept)
    if drawn and not data.get("odds_zh", "").strip():
        form.add_error("odds_zh", _("Where prizes are drawn, their odds must be written down."))
    moment = clock.now()
    if data.get("ends_at") and data["ends_at"] <= moment:
        form.add_error("ends_at", _("The end of the campaign has passed."))
    for packet in kept:
        closes_at = packet.cleaned_data.get("closes_at")
        if closes_at and closes_at <= moment:
            packet.add_error("closes_at", _("The end of a packet has passed."))
        if not packet.cleaned_data.get("targeted") or packet.cleaned_data.get("target_file"):
            continue
        known = packet.initial.get("packet")
        if not known or not PacketTarget.objects.filter(packet=uuid.UUID(known)).exists():
            packet.add_error(
                "target_file",
                _("A targeted packet needs a list of people, or nobody can claim."),
            )


def cuttable(packet: PacketForm) -> bool:
    needed = {"total", "count", "strategy", "least", "most", "evenness", "tiers", "remainder"}
    return not needed & set(packet.errors)


def _refused_to(form: CampaignForm | PacketForm, work: Callable[[], Any]) -> bool:
    """Run it; a refusal goes to its field."""
    try:
        work()
    except ServiceError as refusal:
        form.refuse(refusal)
        return False
    return True


def _check_basics(form: CampaignForm, campaign: Campaign | None) -> None:
    data = form.cleaned_data
    needed = {"slug", "name_zh", "budget", "starts_at", "ends_at", "timezone", "client_apps"}
    if needed & set(form.errors):
        # What is wrong already is said; the order of two times can be checked nevertheless.
        if data.get("starts_at") and data.get("ends_at"):
            _refused_to(form, lambda: rules.check_window(data["starts_at"], data["ends_at"]))
        return
    _refused_to(
        form,
        lambda: rules.check_campaign(
            slug=data["slug"],
            name_zh=data["name_zh"],
            budget_fen=data["budget"],
            starts_at=data["starts_at"],
            ends_at=data["ends_at"],
            timezone_name=data["timezone"],
            client_apps=[app.pk for app in data["client_apps"]],
            **({"own_slug": campaign.slug} if campaign else {}),
        ),
    )


def _check_window(form: CampaignForm, packet: PacketForm) -> None:
    if {"opens_at", "closes_at"} & set(packet.errors):
        return
    frame = Campaign(starts_at=form.cleaned_data["starts_at"], ends_at=form.cleaned_data["ends_at"])
    if frame.ends_at <= frame.starts_at:
        return
    opens_at = packet.cleaned_data.get("opens_at") or frame.starts_at
    closes_at = packet.cleaned_data.get("closes_at") or frame.ends_at
    _refused_to(packet, lambda: rules.check_packet_window(frame, opens_at, closes_at))


def rains_fen(campaign: Campaign | None) -> int:
    """What the rounds of the campaign's rains bind; they have a page of their own."""
    if campaign is None:
        return 0
    rounds = Packet.objects.filter(campaign_link__campaign=campaign, campaign_link__rain__gt=0)
    return rounds.aggregate(fen=Sum("total_fen"))["fen"] or 0


def sums_of(
    form: CampaignForm, kept: list[PacketForm], campaign: Campaign | None
) -> tuple[int, int] | None:
    """(bound in packets, budget) in fen, where both can be read."""
    budget_fen = form.cleaned_data.get("budget")
    if budget_fen is None:
        return None
    bound_fen = sum(packet.cleaned_data.get("total") or 0 for packet in kept)
    return bound_fen + rains_fen(campaign), budget_fen
