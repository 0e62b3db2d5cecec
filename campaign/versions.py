"""What exactly is approved: a campaign written down as one document, and that document's hash.

The document holds everything that decides who gets how much, when and what they are told: the
campaign's own fields, how it may spread, each packet with its rules, audience and committed seed,
and each target list. Whatever isn't in it may change without a second person's word.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from campaign.growth_rules import growth_document
from campaign.models import Campaign, CampaignPacket, TargetUpload
from engine.lib.clock import rfc3339
from packets.models import Packet

CAMPAIGN_FIELDS = (
    "slug", "name_zh", "name_en", "rules_zh", "rules_en", "odds_zh", "odds_en", "budget_fen",
    "currency", "timezone",
)  # fmt: skip
# Only where they say something: what was approved before there were these is still approved.
LATER_FIELDS = ("organiser_zh", "organiser_en", "contact_zh", "contact_en")
PACKET_FIELDS = (
    "name", "strategy", "total_fen", "count", "min_fen", "max_fen", "evenness", "tiers",
    "remainder", "lane_count", "client_apps", "targeted", "group", "new_only",
    "min_account_age_days", "password_hash", "commitment",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One difference between two versions: `packets` differences name the packet's place."""

    packet: int | None  # its order in the campaign; None: of the campaign itself
    field: str  # of the growth: `growth.<field>`
    before: Any
    after: Any


def campaign_document(campaign: Campaign) -> dict[str, Any]:
    """The campaign as it stands, as plain JSON values."""
    apps = campaign.client_apps.values_list("id", flat=True).order_by("id")
    growth = growth_document(campaign)
    return {
        "id": campaign.pk.hex,
        **{name: getattr(campaign, name) for name in CAMPAIGN_FIELDS},
        **{name: text for name in LATER_FIELDS if (text := getattr(campaign, name))},
        "starts_at": rfc3339(campaign.starts_at),
        "ends_at": rfc3339(campaign.ends_at),
        "client_apps": list(apps),
        # Only where there is some: what was approved before there was growth is still approved.
        **({"growth": growth} if growth is not None else {}),
        "packets": [
            _packet_document(link)
            for link in campaign.links.select_related("packet", "rain").order_by("order")
        ],
    }


def _packet_document(link: CampaignPacket) -> dict[str, Any]:
    packet, rain = link.packet, link.rain
    uploads = packet.uploads.exclude(state=TargetUpload.State.CLEARED).order_by("id")
    listed = Packet.objects.filter(pk=packet.pk).aggregate(n=Count("targets"))["n"]
    return {
        "order": link.order,
        "id": packet.public_id,
        **{name: getattr(packet, name) for name in PACKET_FIELDS},
        # Only where it is so: what was approved before there were these is still approved.
        **({"needs_ticket": True} if packet.needs_ticket else {}),
        **({"rain": [rain.name_zh, rain.name_en, link.round]} if rain is not None else {}),
        "opens_at": rfc3339(packet.opens_at),
        "closes_at": rfc3339(packet.closes_at),
        "targets": [
            [upload.sha256, upload.client_app_id, upload.state, upload.added] for upload in uploads
        ]
        if packet.targeted
        else [],
        "target_count": listed if packet.targeted else 0,
    }


def document_hash(document: dict[str, Any]) -> str:
    """SHA-256 over the document's canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def version_hash(campaign: Campaign) -> str:
    return document_hash(campaign_document(campaign))


def differences(before: dict[str, Any] | None, after: dict[str, Any]) -> list[Change]:
    """What a reader has to look at; everything, where nothing was approved before."""
    old = before or {}
    found = [
        Change(None, name, old.get(name), after.get(name))
        for name in {**after, **old}
        if name not in ("packets", "id", "growth") and old.get(name) != after.get(name)
    ]
    was, is_now = old.get("growth") or {}, after.get("growth") or {}
    found += [
        Change(None, f"growth.{name}", was.get(name), is_now.get(name))
        for name in {**is_now, **was}
        if was.get(name) != is_now.get(name)
    ]
    old_packets = {packet["id"]: packet for packet in old.get("packets", [])}
    for packet in after["packets"]:
        known = old_packets.pop(packet["id"], {})
        found += [
            Change(packet["order"], name, known.get(name), packet.get(name))
            for name in {**packet, **known}
            if name not in ("id", "order") and known.get(name) != packet.get(name)
        ]
    found += [
        Change(packet["order"], "removed", packet["name"], None) for packet in old_packets.values()
    ]
    return found
