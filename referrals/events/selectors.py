"""Reading tickets for the people they belong to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db.models import QuerySet

from engine.lib.ids import claim_id
from packets.claiming import ticket as texts
from packets.claiming.sync import ticket_keys
from packets.models import Claim, Ticket
from packets.tickets import OWN_KEYS


@dataclass(frozen=True, slots=True)
class OwnTicket:
    text: str
    claim_id: uuid.UUID | None  # once it was used


def tickets_of(participant: bytes) -> QuerySet[Ticket]:
    """A person's tickets; those of rewards are used by us and nobody's to show."""
    return Ticket.objects.filter(participant=participant).exclude(
        key__startswith=f"{OWN_KEYS}reward:"
    )


def own_ticket(ticket: Ticket) -> OwnTicket:
    participant = bytes(ticket.participant)
    made = claim_id(ticket.packet_id, participant, ticket.serial)
    used = Claim.objects.filter(pk=made).exists()
    text = texts.sign(ticket.packet_id, texts.Ticket(participant, ticket.serial), ticket_keys())
    return OwnTicket(text, made if used else None)
