"""Switching one way of sharing off and on. Every process heeds it within `spread.LIFETIME_S`."""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from campaign.channel_rules import is_acknowledged
from campaign.growth_rules import growth_of, ways_of
from campaign.models import CampaignChannel, Channel, Vehicle
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError


def channel_switch(
    *, campaign_id: uuid.UUID, channel: str, vehicle: str, on: bool, reason: str, actor: str
) -> None:
    """What is so already stays so, and is no act. On wants the platform's rules acknowledged."""
    if channel not in Channel.values or vehicle not in Vehicle.values:
        raise ServiceError("channel", "unknown", _("There is no such channel."))
    with transaction.atomic():
        CampaignChannel.objects.get_or_create(
            campaign_id=campaign_id, channel=channel, vehicle=vehicle
        )
        way = CampaignChannel.objects.select_for_update().get(
            campaign_id=campaign_id, channel=channel, vehicle=vehicle
        )
        if way.is_on == on:
            return
        growth = growth_of(way.campaign) if on else None
        if growth is not None and (channel, vehicle) not in ways_of(growth):
            raise ServiceError(
                "channel", "not_approved", _("This version was approved without this channel.")
            )
        if on and not is_acknowledged(way.campaign, channel):
            raise ServiceError(
                "channel",
                "not_acknowledged",
                _("Read and acknowledge the platforms' rules first: %(channels)s."),
                channels=str(Channel(channel).label),
            )
        way.is_on = on
        way.save(update_fields=["is_on", "changed_at"])
        audit_record(
            actor=actor,
            action="channel.on" if on else "channel.off",
            object_type="campaign",
            object_id=campaign_id.hex,
            before={"way": f"{channel}/{vehicle}", "on": not on},
            after={"way": f"{channel}/{vehicle}", "on": on},
            reason=reason,
        )
