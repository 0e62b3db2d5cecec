"""Turns campaigns into the API's shapes."""

from __future__ import annotations

from collections import Counter

from campaign.api import schemas
from campaign.disclosing import disclosure_address
from campaign.models import Campaign, CampaignPacket
from engine.lib.clock import rfc3339
from packets.api.schemas import Kind
from packets.models import Packet


def campaign(row: Campaign) -> schemas.Campaign:
    """`links__packet` and `links__rain` must be prefetched, `published` annotated."""
    links = [link for link in row.links.all() if link.packet.state != Packet.State.DRAFT]
    rounds = Counter(link.rain_id for link in links)
    return schemas.Campaign(
        slug=row.slug,
        name=schemas.Text(zh=row.name_zh, en=row.name_en),
        state=schemas.CampaignState(row.state),
        starts_at=rfc3339(row.starts_at),
        ends_at=rfc3339(row.ends_at),
        timezone=row.timezone,
        currency=row.currency,
        rules=schemas.Text(zh=row.rules_zh, en=row.rules_en),
        disclosure=disclosure_address(row.slug) if getattr(row, "published", False) else None,
        packets=[_packet(link, rounds[link.rain_id]) for link in links],
    )


def _packet(link: CampaignPacket, rounds: int) -> schemas.CampaignPacket:
    row, rain = link.packet, link.rain
    return schemas.CampaignPacket(
        id=row.public_id,
        name=row.name,
        kind=Kind(row.strategy),
        total_fen=row.total_fen,
        count=row.count,
        currency=row.currency,
        opens_at=rfc3339(row.opens_at),
        closes_at=rfc3339(row.closes_at),
        ticket_required=row.needs_ticket,
        round=schemas.Round(
            name=schemas.Text(zh=rain.name_zh, en=rain.name_en), number=link.round, of=rounds
        )
        if rain is not None and link.round is not None
        else None,
    )
