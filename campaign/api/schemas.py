"""The shapes of the campaigns' API. The OpenAPI document is made from these."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from packets.api.schemas import Count, Currency, Fen, Id, Kind, Time


class CampaignState(enum.StrEnum):
    """A draft is nobody's to see. `killed`, `ended` and `settled` are final for participants."""

    LIVE = "live"
    PAUSED = "paused"
    KILLED = "killed"
    ENDED = "ended"
    SETTLED = "settled"


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """The same text in both languages; English may be empty."""

    zh: str
    en: str


class CampaignPacket(msgspec.Struct, frozen=True, kw_only=True):
    """A packet of the campaign; `GET /packets/{id}` says more."""

    id: Id
    name: str
    kind: Kind
    total_fen: Fen
    count: Count
    currency: Currency
    opens_at: Time
    closes_at: Time


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    slug: Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
    name: Text
    state: CampaignState
    starts_at: Time
    ends_at: Time
    timezone: str
    currency: Currency
    rules: Text
    packets: list[CampaignPacket]


class CampaignPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Campaign]
    next: str | None
