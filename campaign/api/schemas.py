"""The shapes of the campaigns' API. The OpenAPI document is made from these."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.api.schemas import PRINTABLE, User
from engine.lib.schema import Body
from packets.api.schemas import Count, Currency, Fen, Id, Kind, Time
from packets.tickets import KEY_MAX_CHARS, REASON_MAX_CHARS


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


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Which round of a red-packet rain a packet is. A round may be moved: look again at times."""

    name: Text
    number: Annotated[int, Meta(ge=1)]
    of: Annotated[int, Meta(ge=1)]


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
    ticket_required: bool
    round: Round | None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    slug: Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
    name: Text
    state: CampaignState
    starts_at: Time
    ends_at: Time
    timezone: str
    currency: Currency
    rules: Text
    disclosure: Annotated[
        str | None,
        Meta(description="A page for people: rules, quantities and odds as they were published."),
    ]
    packets: list[CampaignPacket]


class CampaignPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[Campaign]
    next: str | None


def _words(most: int) -> Meta:
    return Meta(min_length=1, max_length=most, extra_json_schema=PRINTABLE)


class TicketBody(Body):
    """A ticket for one of the app's users; `id` is your own name of it, so that you can ask again.

    `reason` says to your staff and ours why it was given.
    """

    user: User
    packet: Id
    reason: Annotated[str, _words(REASON_MAX_CHARS)]
    id: Annotated[str, _words(KEY_MAX_CHARS)]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A right to one claim, to be handed to that person's device and shown with the claim."""

    ticket: str
