"""What client apps are told of campaigns, each thing once (engine/lib/outbox.py)."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Sum

from campaign import selectors
from campaign.models import Campaign
from engine.lib.outbox import EventKind, outbox_emit, outbox_wanted
from packets.models import Lane

BATCH = 50  # campaigns a run; the next run, seconds later, goes on


def campaign_tell(campaign: Campaign, kind: EventKind, about: str = "", **facts: Any) -> int:
    """Tell every app of the campaign, in the caller's transaction; the number of deliveries.

    `about` sets apart what may happen to one campaign more than once.
    """
    data = {"campaign": campaign.slug, "state": campaign.state, **facts}
    key = f"{campaign.pk.hex}:{about}" if about else campaign.pk.hex
    apps = campaign.client_apps.order_by("pk").values_list("pk", flat=True)
    return sum(outbox_emit(kind, app, data, key=key) for app in apps)


def campaigns_exhausted_tell() -> int:
    """Tell of running campaigns that have nothing left to claim; safe to repeat.

    One that is topped up and runs dry again is told again: the number of its claims is another.
    """
    if not outbox_wanted(EventKind.CAMPAIGN_EXHAUSTED):
        return 0
    told = 0
    for campaign in selectors.campaigns_exhausted(BATCH):
        given = Lane.objects.filter(packet__campaign_link__campaign=campaign).aggregate(
            count=Sum("claimed_count"), fen=Sum("claimed_fen")
        )
        with transaction.atomic():
            told += campaign_tell(
                campaign,
                EventKind.CAMPAIGN_EXHAUSTED,
                about=str(given["count"]),
                claimed_count=given["count"],
                claimed_fen=given["fen"],
                currency=campaign.currency,
            )
    return told
