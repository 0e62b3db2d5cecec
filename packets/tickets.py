"""Issuing tickets: rights to one claim each, where a person may claim more than once.

An app's back end asks for them (POST /server/campaigns/{slug}/tickets), and so may rules of ours.
Issuing is idempotent by the issuer's id of the ticket: however often and however much at once it is
asked for, there is one row and one text. Serials count a person's tickets of a packet 1, 2, 3, …
"""

from __future__ import annotations

import uuid

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.ids import participant_digest, subject_is_valid
from packets.claiming import ticket as texts
from packets.claiming.sync import ticket_keys
from packets.models import Packet, Participant, Ticket

KEY_MAX_CHARS = 128
# Keys that begin so are our own rules'; no app may take one before them.
OWN_KEYS = "laisee:"
REASON_MAX_CHARS = 200
# Of one person and packet. Their records share one small hash in Redis; a thousand rights to one
# packet are a mistake of whoever issues them.
MAX_SERIAL = 1_000
# Nobody is helped by counting further; a page may show a hundred packets.
TICKETS_COUNTED = 10_000

_INSERT = """
    INSERT INTO packets_ticket (packet_id, participant, serial, client_app_id, key, reason)
    SELECT %(packet)s, %(participant)s, COALESCE(max(serial), 0) + 1, %(app)s, %(key)s, %(reason)s
      FROM packets_ticket WHERE packet_id = %(packet)s AND participant = %(participant)s
    HAVING COALESCE(max(serial), 0) < %(most)s
        ON CONFLICT (client_app_id, key) DO NOTHING
"""


def ticket_issue(
    *, packet_id: uuid.UUID, client_app_id: int, subject: str, key: str, reason: str
) -> str:
    """The text of the ticket that is called `key` by this client app; issued if it isn't yet.

    `subject` is the app's user id of the person. ServiceError names the argument that is wrong; a
    `key` that was used for another ticket is one. TransitionRefused: the packet isn't open.
    """
    for field, text, most in (("key", key, KEY_MAX_CHARS), ("reason", reason, REASON_MAX_CHARS)):
        if not 0 < len(text) <= most or not text.isprintable():
            raise ServiceError(
                field, "format", _("This is 1 to %(most)s printable characters."), most=most
            )
    if not subject_is_valid(subject):
        raise ServiceError("subject", "format", _("A user id is 1 to 128 printable characters."))
    participant = participant_digest(client_app_id, subject)
    ticket = Ticket.objects.filter(client_app_id=client_app_id, key=key).first()
    if ticket is None:
        _require_ticketed(packet_id, client_app_id)
        ticket = _issue(packet_id, client_app_id, participant, subject, key, reason)
    if (ticket.packet_id, bytes(ticket.participant), ticket.reason) != (
        packet_id,
        participant,
        reason,
    ):
        raise ServiceError(
            "key", "reused", _("This id was used for another ticket. Use a new id for a new one.")
        )
    return texts.sign(packet_id, texts.Ticket(participant, ticket.serial), ticket_keys())


def tickets_counted(packet_id: uuid.UUID) -> str:
    """How many tickets of a packet were issued, as people read it: `2,345`, or `10,000+`."""
    found = Ticket.objects.filter(packet_id=packet_id).values("pk")[: TICKETS_COUNTED + 1].count()
    return f"{TICKETS_COUNTED:,}+" if found > TICKETS_COUNTED else f"{found:,}"


def _require_ticketed(packet_id: uuid.UUID, client_app_id: int) -> None:
    packet = Packet.objects.exclude(state=Packet.State.DRAFT).filter(id=packet_id).first()
    if packet is None or client_app_id not in packet.client_apps:
        raise ServiceError("packet", "not_found", _("There is no such packet."))
    if not packet.needs_ticket:
        raise ServiceError("packet", "takes_none", _("This packet is claimed without tickets."))
    if packet.state == Packet.State.CLOSED:
        raise TransitionRefused(
            f"packet {packet_id.hex}", packet.state, (Packet.State.OPEN, Packet.State.PAUSED)
        )


def _issue(
    packet_id: uuid.UUID,
    client_app_id: int,
    participant: bytes,
    subject: str,
    key: str,
    reason: str,
) -> Ticket:
    with transaction.atomic(), connection.cursor() as cursor:
        _one_at_a_time(packet_id, participant)
        cursor.execute(
            _INSERT,
            {
                "packet": packet_id,
                "participant": participant,
                "app": client_app_id,
                "key": key,
                "reason": reason,
                "most": MAX_SERIAL,
            },
        )
        # Of this transaction, or of somebody who was faster with the same key.
        ticket = Ticket.objects.filter(client_app_id=client_app_id, key=key).first()
        if ticket is None:
            raise ServiceError(
                "subject",
                "too_many",
                _("A person has at most %(most)s tickets of a packet."),
                most=MAX_SERIAL,
            )
        Participant.objects.bulk_create(
            [Participant(digest=participant, client_app_id=client_app_id, subject=subject)],
            ignore_conflicts=True,
        )
    return ticket


def _one_at_a_time(packet_id: uuid.UUID, participant: bytes) -> None:
    """Two tickets of one person can't get the same serial: the second waits for the first's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
            [f"ticket:{packet_id.hex}:{participant.hex()}"],
        )
