"""How the sandbox and its client sign: HMAC-SHA256 over time, what is asked, and the raw bytes."""

from __future__ import annotations

import hashlib
import hmac

SIGNATURE_HEADER = "Sandbox-Signature"
TIMESTAMP_HEADER = "Sandbox-Timestamp"
EVENT_HEADER = "Sandbox-Event"
# Seconds. Each side's clock may be five minutes off, and not in the same direction.
SKEW_S = 600


def signature(secret: bytes, timestamp: str, about: str, raw: bytes) -> str:
    """`about` is `METHOD /path?query` of a request, the event's id of a callback."""
    signed = f"{timestamp}\n{about}\n".encode() + raw
    return hmac.new(secret, signed, hashlib.sha256).hexdigest()


def verified(
    secret: bytes, timestamp: str, about: str, raw: bytes, claimed: str, now: float
) -> bool:
    """Whether `claimed` is the signature of these bytes, made about now."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    if abs(now - int(timestamp)) > SKEW_S:
        return False
    good = signature(secret, timestamp, about, raw)
    return hmac.compare_digest(good.encode(), claimed.encode("utf-8", "replace"))
