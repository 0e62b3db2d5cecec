"""The click token: a visit's signed name, which the friend's app hands back when they join.

    <key id>.<base64url of click id (16 bytes), Unix seconds (4), signature (16)>

It says nothing that could be read, it ends with the campaign's window, and the referral that it
makes uses it up (`Referral.click_id` is unique). Only such a token, or a typed code, pays.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from engine.lib import crypto

SIGNATURE_BYTES = 16
_BODY_CHARS = 48  # 36 bytes
_TEXT = re.compile(rf"([0-9A-Za-z]{{1,32}})\.([0-9A-Za-z_-]{{{_BODY_CHARS}}})\Z")


@dataclass(frozen=True, slots=True)
class Click:
    """A genuine click. `at`: Unix seconds."""

    id: uuid.UUID
    at: int


def click_keys() -> Mapping[str, bytes]:
    return crypto.derived_keys("click")


def sign(click: Click) -> str:
    key_id, key = next(iter(click_keys().items()))
    named = click.id.bytes + click.at.to_bytes(4, "big")
    body = named + _signature(key, named)
    return f"{key_id}.{base64.urlsafe_b64encode(body).decode()}"


def read(text: str) -> Click | None:
    """The click behind the token; None: it is forged, or its key is gone."""
    parts = _TEXT.match(text)
    key = click_keys().get(parts[1]) if parts else None
    if parts is None or key is None:
        return None
    body = base64.urlsafe_b64decode(parts[2])
    named, signature = body[:-SIGNATURE_BYTES], body[-SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(key, named)):
        return None
    return Click(uuid.UUID(bytes=named[:16]), int.from_bytes(named[16:], "big"))


def _signature(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, "sha256")[:SIGNATURE_BYTES]
