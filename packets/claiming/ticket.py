"""The text of a ticket: a signed right of one participant to one claim of one packet.

A ticket is bound to (client app, subject) by the participant's digest, to its packet, and to a
serial that counts the participant's tickets of that packet. The signature alone says whether it is
genuine, so the claim path asks no database. It can't be used up twice, because its serial is part
of the claim's id; it has no end of its own, its packet has one.

    <key id>.<base64url of participant (16 bytes), serial (4), signature (16)>

Pure: keys come in by id, the current one first. A ticket signed under an older key is good for as
long as that key is in ENCRYPTION_KEYS; asking for it again gives one under the current key.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from engine.lib.ids import PARTICIPANT_BYTES

SERIAL_BYTES = 4
SIGNATURE_BYTES = 16  # of HMAC-SHA256: 2^128 guesses for one ticket
# 36 bytes are 48 digits without padding: one ticket has one text.
_TEXT = re.compile(r"([0-9A-Za-z]{1,32})\.([0-9A-Za-z_-]{48})\Z")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A genuine ticket of the packet that it was shown for."""

    participant: bytes
    serial: int


def _signature(key: bytes, packet: uuid.UUID, right: bytes) -> bytes:
    return hmac.digest(key, packet.bytes + right, "sha256")[:SIGNATURE_BYTES]


def sign(packet: uuid.UUID, ticket: Ticket, keys: Mapping[str, bytes]) -> str:
    """The ticket's text, under the first key."""
    key_id, key = next(iter(keys.items()))
    right = ticket.participant + ticket.serial.to_bytes(SERIAL_BYTES, "big")
    body = right + _signature(key, packet, right)
    return f"{key_id}.{base64.urlsafe_b64encode(body).decode()}"


def read(text: str, packet: uuid.UUID, keys: Mapping[str, bytes]) -> Ticket | None:
    """The ticket behind the text; None: it is forged, of another packet, or its key is gone."""
    parts = _TEXT.match(text)
    key = keys.get(parts[1]) if parts else None
    if parts is None or key is None:
        return None
    body = base64.urlsafe_b64decode(parts[2])
    right, signature = body[:-SIGNATURE_BYTES], body[-SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(key, packet, right)):
        return None
    serial = int.from_bytes(right[PARTICIPANT_BYTES:], "big")
    return Ticket(right[:PARTICIPANT_BYTES], serial) if serial else None
