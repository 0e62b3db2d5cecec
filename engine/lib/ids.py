"""Ids: how a participant, a claim and a packet are named inside and outside.

Outside, ids are opaque strings (32 hexadecimal digits for packets and claims). Inside, a
participant is a 16-byte digest of (client app, subject), so that no length and no character of an
app's user id reaches Redis or an index.
"""

from __future__ import annotations

import hashlib
import re
import uuid

PARTICIPANT_BYTES = 16
SUBJECT_MAX_CHARS = 128  # the contract's bound on `sub`
_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


def subject_is_valid(subject: str) -> bool:
    """1 to 128 printable characters; a lone surrogate or a control character is not printable."""
    return 0 < len(subject) <= SUBJECT_MAX_CHARS and subject.isprintable()


def participant_digest(client_app_id: int, subject: str) -> bytes:
    """The 16 bytes that name (client app, subject) everywhere inside."""
    return hashlib.blake2b(
        f"{client_app_id}\0{subject}".encode(),
        digest_size=PARTICIPANT_BYTES,
        person=b"laisee.person",
    ).digest()


def claim_id(packet: uuid.UUID, participant: bytes, serial: int) -> uuid.UUID:
    """The claim of (packet, participant, serial): the first 16 bytes of their SHA-256.

    Postgres computes the same in `laisee_claim_id`; a claim's id is thus known before it exists,
    and its primary key is the once-per-person rule.
    """
    return uuid.UUID(
        bytes=hashlib.sha256(packet.bytes + participant + serial.to_bytes(4, "big")).digest()[:16]
    )


def home_lane(home_key: bytes, participant: bytes, lanes: int) -> int:
    """The one lane of a packet where this participant may claim.

    SHA-256 keyed by the packet's 16 secret bytes; both parts have a fixed length, so the plain
    keyed hash is a sound pseudo-random function here and Postgres can compute it without
    extensions (`laisee_home_lane`).
    """
    if lanes == 1:
        return 0
    word = hashlib.sha256(home_key + participant).digest()[:4]
    return int.from_bytes(word, "big") % lanes


def bucket(participant: bytes, buckets: int) -> int:
    """Which of a lane's small hashes in Redis holds this participant's record."""
    return int.from_bytes(participant[-4:], "big") % buckets


def parse_hex_id(text: str) -> uuid.UUID | None:
    """The UUID behind an opaque id, or None where the text can't be one."""
    return uuid.UUID(hex=text) if _HEX_ID.match(text) else None
