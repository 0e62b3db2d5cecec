"""Payout providers: one small module each, all with the interface of `base.py`."""

from __future__ import annotations

import json

from engine.lib.crypto import decrypt
from packets.models import ProviderAccount
from packets.providers.base import CredentialsMissing, Provider


def provider_of(account: ProviderAccount) -> Provider:
    """The adapter for this account. Raises CredentialsMissing."""
    raise CredentialsMissing("kind", f"no adapter for {account.kind}")


def credentials_of(account: ProviderAccount) -> dict[str, str]:
    """The account's credentials in the clear: never log them, never keep them."""
    if not account.credentials_encrypted:
        return {}
    found: dict[str, str] = json.loads(decrypt(account.credentials_encrypted))
    return found
