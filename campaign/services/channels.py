"""The word of a member of staff that they have read what a channel's platform wants.

Recorded with who, when and which version of the words (`campaign/channel_rules.py`); the audit log
keeps every such word, also those that a newer one has taken the place of. It is no part of the
version that is approved, so it voids nothing; without it nothing is handed in.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.channel_rules import RULES
from campaign.convergence import campaign_locked
from campaign.models import CampaignChannel, Channel, Vehicle
from campaign.people import actor_of
from campaign.services.common import EDITABLE, RUNNING, audit, require_state
from engine.lib.errors import ServiceError


def channels_acknowledge(*, campaign_id: uuid.UUID, versions: Mapping[str, int], by: User) -> None:
    """`versions`: for each channel the version of the words that `by` has read."""
    if not versions:
        raise ServiceError("channels", "blank", _("Choose the rules that you have read."))
    for channel, version in versions.items():
        rule = RULES.get(Channel(channel)) if channel in Channel.values else None
        if rule is None:
            raise ServiceError("channels", "unknown", _("There is no such channel."))
        if rule.version != version:
            raise ServiceError(
                "channels",
                "changed_meanwhile",
                _("The words on %(channel)s have changed; read them again."),
                channel=str(rule.channel.label),
            )
    with transaction.atomic():
        campaign = campaign_locked(campaign_id)
        require_state(campaign, (*EDITABLE, *RUNNING))
        for channel, version in versions.items():
            ways = [
                CampaignChannel(campaign=campaign, channel=channel, vehicle=vehicle)
                for vehicle in Vehicle.values
            ]
            CampaignChannel.objects.bulk_create(ways, ignore_conflicts=True)
            CampaignChannel.objects.filter(campaign=campaign, channel=channel).update(
                acknowledged_by=by, acknowledged_at=Now(), acknowledged_version=version
            )
        audit(
            campaign,
            actor_of(by),
            "channels_acknowledge",
            after={
                channel: {"version": version, "sha256": RULES[Channel(channel)].sha256}
                for channel, version in versions.items()
            },
        )
