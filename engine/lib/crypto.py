"""Encryption at rest for secrets that must be read again: packet seeds, client keys. And keys for
signing, derived from the same ones.

AES-128-CBC with HMAC (Fernet, from `cryptography`), each ciphertext under a named key, so that a
new first key in ENCRYPTION_KEYS encrypts from then on and the older ones still decrypt.
"""

from __future__ import annotations

import base64
import functools
import hmac
from collections.abc import Mapping

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class UnreadableSecret(Exception):
    """A stored secret can't be decrypted: its key is missing from ENCRYPTION_KEYS."""


@functools.lru_cache(maxsize=4)
def _keys(spec: tuple[str, ...]) -> dict[str, Fernet]:
    keys: dict[str, Fernet] = {}
    for entry in spec:
        key_id, separator, key = entry.partition(":")
        try:
            if not separator or not key_id.isalnum():
                raise ValueError
            keys[key_id] = Fernet(key)
        except ValueError:
            raise ImproperlyConfigured(
                "ENCRYPTION_KEYS holds an entry that isn't keyid:base64key (32 url-safe bytes)"
            ) from None
    if not keys:
        raise ImproperlyConfigured("ENCRYPTION_KEYS is empty: seeds could not be kept secret")
    return keys


def encrypt(secret: bytes) -> str:
    """`keyid:token`, under the first key."""
    key_id, fernet = next(iter(_keys(tuple(settings.ENCRYPTION_KEYS)).items()))
    return f"{key_id}:{fernet.encrypt(secret).decode()}"


def decrypt(stored: str) -> bytes:
    key_id, _, token = stored.partition(":")
    fernet = _keys(tuple(settings.ENCRYPTION_KEYS)).get(key_id)
    if fernet is None:
        raise UnreadableSecret(f"no key {key_id!r} in ENCRYPTION_KEYS")
    try:
        return fernet.decrypt(token.encode())
    except InvalidToken:
        raise UnreadableSecret(f"key {key_id!r} doesn't fit this secret") from None


@functools.lru_cache(maxsize=16)
def _derived(spec: tuple[str, ...], purpose: str) -> Mapping[str, bytes]:
    _keys(spec)  # refuses what is malformed
    parts = (entry.partition(":") for entry in spec)
    return {
        key_id: hmac.digest(base64.urlsafe_b64decode(key), f"laisee.{purpose}".encode(), "sha256")
        for key_id, _, key in parts
    }


def derived_keys(purpose: str) -> Mapping[str, bytes]:
    """32 bytes for signing of this purpose from each key, by key id, the current one first.

    A new first key signs from then on, and what was signed under the older ones still verifies.
    """
    return _derived(tuple(settings.ENCRYPTION_KEYS), purpose)
