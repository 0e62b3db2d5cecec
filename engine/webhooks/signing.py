"""Signatures as Standard Webhooks says (standardwebhooks.com): `v1`, HMAC-SHA256.

Signed is `<webhook-id>.<webhook-timestamp>.<body>`; the header lists one signature for each secret
that is good at that moment, so that a receiver can change its secret without losing a call.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32  # of the 24 to 64 that the standard asks for; as long as the hash


def secret_new() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """The secret as people copy it: `whsec_` and base64."""
    return PREFIX + base64.b64encode(secret).decode()


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def signed_headers(
    secrets_good: Sequence[bytes], event_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The standard's three headers. `timestamp`: seconds since 1970, of this attempt."""
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            signature(secret, event_id, timestamp, body) for secret in secrets_good
        ),
    }
