"""What the keys of a provider account consist of, and how each is read.

Every adapter has a frozen `Credentials` with `parse`, which reads the decrypted JSON object and
says of the first wrong field what is wrong with it. `Field` describes one of them to whoever shows
a form; a field that is secret is never shown again.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from packets.providers.base import CredentialsMissing

MAX_CHARS = 20_000  # of one field; the longest is a bundle of root certificates
MIN_KEY_BITS = 2048  # what both providers issue; less could be broken

Key = TypeVar("Key", rsa.RSAPrivateKey, rsa.RSAPublicKey)


@dataclass(frozen=True)
class Field:
    name: str
    label: str | Promise
    secret: bool
    required: bool
    help: str | Promise
    multiline: bool = False
    # Says which account it is: another value is another account, which knows none of the numbers.
    identity: bool = False


def text_of(given: Mapping[str, Any], name: str, *, required: bool = True) -> str:
    """The field without surrounding blanks; empty only where it may be."""
    value = given.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_CHARS or "\0" in value:
        raise CredentialsMissing(name, _("This isn't a text."))
    value = value.strip()
    if required and not value:
        raise CredentialsMissing(name, _("This is needed."))
    return value


def only_known(given: Mapping[str, Any], fields: tuple[Field, ...]) -> None:
    for name in given:
        if name not in {field.name for field in fields}:
            raise CredentialsMissing(str(name)[:64], _("There is no such field."))


def private_key_of(given: Mapping[str, Any], name: str) -> rsa.RSAPrivateKey:
    key = _loaded(given, name, _private_key)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CredentialsMissing(name, _("This isn't an RSA private key in PEM."))
    return _strong(key, name)


def public_key_of(given: Mapping[str, Any], name: str) -> rsa.RSAPublicKey:
    key = _loaded(given, name, _public_key)
    if not isinstance(key, rsa.RSAPublicKey):
        raise CredentialsMissing(name, _("This isn't an RSA public key in PEM."))
    return _strong(key, name)


def _loaded(given: Mapping[str, Any], name: str, load: Callable[[str], Any]) -> Any:
    try:
        return load(text_of(given, name))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _strong(key: Key, name: str) -> Key:
    if key.key_size < MIN_KEY_BITS:
        raise CredentialsMissing(name, _("The key is too short: it must have 2048 bits or more."))
    return key


@functools.lru_cache(maxsize=64)  # reading and checking a private key takes 30 ms
def _private_key(text: str) -> Any:
    return load_der_private_key(_der(text), password=None)


@functools.lru_cache(maxsize=64)
def _public_key(text: str) -> Any:
    return load_der_public_key(_der(text))


def _der(text: str) -> bytes:
    """The key's bytes, with or without the lines that PEM puts around them, PKCS#1 or #8."""
    lines = [line.strip() for line in text.splitlines() if "-----" not in line]
    return base64.b64decode("".join(lines), validate=True)
