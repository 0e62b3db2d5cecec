"""A campaign as something to make others from: its texts, budget and packets, its times relative.

    {"campaign": {"name_zh", …, "budget_fen", "hours" or "seconds", "timezone"},
     "packets": [{"name", "strategy", "total_fen", "count", …, "opens_after_s", "open_for_s"}],
     "growth": {"is_on", …, "inviter_packet": its place in `packets`},  (where it spreads)
     "rains": [{"name_zh", "name_en", "rounds": [packets, as above]}]}

Templates are such documents in the database; a copy goes through one. What belongs to one campaign
alone isn't in it: slug, apps, lists of people, pass phrases.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from campaign import growth_rules
from campaign.models import DEFAULT_TIMEZONE, TEXTS, Campaign, CampaignPacket

RULES = (
    "name", "strategy", "total_fen", "count", "min_fen", "max_fen", "evenness", "remainder",
    "targeted", "group", "new_only", "min_account_age_days", "needs_ticket",
)  # fmt: skip


def fold(campaign: Campaign) -> dict[str, Any]:
    """The campaign as a document."""
    single = list(campaign.links.filter(rain=None).select_related("packet").order_by("order"))
    growth = growth_rules.growth_document(campaign)
    return {
        "campaign": {
            **{name: getattr(campaign, name) for name in TEXTS},
            "budget_fen": campaign.budget_fen,
            "seconds": int((campaign.ends_at - campaign.starts_at).total_seconds()),
            "timezone": campaign.timezone,
        },
        "packets": [_fold_packet(campaign, link) for link in single],
        **({"growth": _fold_growth(growth, single)} if growth is not None else {}),
        "rains": [
            {
                "name_zh": rain.name_zh,
                "name_en": rain.name_en,
                "rounds": [
                    _fold_packet(campaign, link)
                    for link in rain.links.select_related("packet").order_by("round")
                ],
            }
            for rain in campaign.rains.all()
        ],
    }


def _fold_growth(growth: dict[str, Any], links: list[CampaignPacket]) -> dict[str, Any]:
    places = {link.packet.public_id: place for place, link in enumerate(links)}
    return {
        **{name: growth[name] for name in growth_rules.PLAIN},
        **{name: places.get(growth[name]) for name in growth_rules.REWARDS},
    }


def _fold_packet(campaign: Campaign, link: CampaignPacket) -> dict[str, Any]:
    packet = link.packet
    folded = {name: getattr(packet, name) for name in RULES}
    folded["tiers"] = packet.tiers
    folded["opens_after_s"] = int((packet.opens_at - campaign.starts_at).total_seconds())
    # Rounds keep their length, wherever the end of the copy lies.
    if packet.closes_at != campaign.ends_at or link.rain_id is not None:
        folded["open_for_s"] = int((packet.closes_at - packet.opens_at).total_seconds())
    return folded


def unfold(
    document: dict[str, Any], starts_at: dt.datetime
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Arguments for `campaign_create`, and for `campaign_packet_add` of each packet."""
    campaign = document["campaign"]
    length = dt.timedelta(seconds=campaign.get("seconds") or campaign["hours"] * 3600)
    fields = {
        **{name: campaign.get(name, "") for name in TEXTS},
        "budget_fen": campaign["budget_fen"],
        "starts_at": starts_at,
        "ends_at": starts_at + length,
        "timezone_name": campaign.get("timezone", DEFAULT_TIMEZONE),
    }
    return fields, [_unfold_packet(packet, starts_at) for packet in document["packets"]]


def unfold_rains(
    document: dict[str, Any], starts_at: dt.datetime
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(name in Chinese, in English, arguments for each round's packet) of each rain."""
    return [
        (
            rain["name_zh"],
            rain["name_en"],
            [_unfold_packet(packet, starts_at) for packet in rain["rounds"]],
        )
        for rain in document.get("rains", ())
    ]


def _unfold_packet(packet: dict[str, Any], starts_at: dt.datetime) -> dict[str, Any]:
    fields = dict(packet)
    fields["tiers"] = [tuple(tier) for tier in fields.get("tiers", [])]
    fields["opens_at"] = starts_at + dt.timedelta(seconds=fields.pop("opens_after_s", 0))
    open_for_s = fields.pop("open_for_s", None)
    if open_for_s is not None:
        fields["closes_at"] = fields["opens_at"] + dt.timedelta(seconds=open_for_s)
    return fields
