"""The shapes of server events and of a person's tickets; the OpenAPI document's source."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.api.schemas import PRINTABLE, User
from engine.lib.schema import Body
from packets.api.schemas import Id, Time
from referrals.events.receiving import KEY_MAX_CHARS, EventFault, EventResult
from referrals.models.rewarding import MISSION_MAX_CHARS

MAX_EVENTS = 1_000  # of a body; the contract's bound
_SLUG_MAX_CHARS = 60


class Event(Body):
    """Something a person did. `id` is your own name of it, so that you can send it again.

    `kind` is `joined`, `active`, `mission_done` (with its `mission`) or a word of your own: up to
    32 small letters and underscores. Without `campaign` it is about all of the app's campaigns.
    """

    id: Annotated[str, Meta(max_length=KEY_MAX_CHARS, extra_json_schema=PRINTABLE)]
    user: User
    kind: Annotated[str, Meta(max_length=32, examples=["active"])]
    at: Annotated[dt.datetime, Meta(tz=True, description="RFC 3339.")]
    campaign: Annotated[str, Meta(max_length=_SLUG_MAX_CHARS)] | UnsetType = UNSET
    mission: (
        Annotated[str, Meta(max_length=MISSION_MAX_CHARS, extra_json_schema=PRINTABLE)] | UnsetType
    ) = UNSET


class EventsBody(Body):
    events: Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`duplicate`: it was here already, with this content. `code` says why one is invalid."""

    id: str
    result: EventResult
    code: EventFault | UnsetType = UNSET


class EventAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """One for each event, in their order."""

    results: list[EventAnswer]


class OwnTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A right to one claim. `claim` is there once it was used."""

    packet: Id
    ticket: str
    reason: str
    issued_at: Time
    claim: Id | None


class OwnTicketPage(msgspec.Struct, frozen=True, kw_only=True):
    results: list[OwnTicket]
    next: str | None
