"""Who may claim a packet, from what the token says. Pure; the list of a targeted packet is asked
for by the flow."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
import uuid

from engine.lib.auth import Caller
from packets.claiming.effects import Audience, Reason

PASSWORD_TRIES = 5  # per person and packet; a pass phrase is guessable, five guesses are fun enough
PASSWORD_MAX_CHARS = 64


def refusal(audience: Audience, caller: Caller) -> Reason | None:
    """The first rule that the caller doesn't meet; a claim that a token doesn't make isn't met."""
    if caller.client_app_id not in audience.client_apps:
        return Reason.NOT_TARGETED
    if audience.group and caller.group != audience.group:
        return Reason.NOT_IN_GROUP
    if audience.new_only and caller.is_new is not True:
        return Reason.NOT_NEW
    age = caller.account_age_days
    if audience.min_account_age_days and (age is None or age < audience.min_account_age_days):
        return Reason.TOO_YOUNG_ACCOUNT
    return None


def normalise_password(password: str) -> str:
    """Full-width and half-width, upper and lower case are one: people type these on phones."""
    return unicodedata.normalize("NFKC", password).strip().casefold()


def password_digest(packet: uuid.UUID, password: str, key: bytes) -> str:
    """Keyed, because a pass phrase is short: without the server's key it can't be tried offline."""
    return hmac.new(
        key, packet.bytes + normalise_password(password).encode(), hashlib.sha256
    ).hexdigest()


def password_is_right(audience: Audience, packet: uuid.UUID, password: str, key: bytes) -> bool:
    return hmac.compare_digest(audience.password_hash, password_digest(packet, password, key))
