"""Payout providers: one small package each, all with the interface of `base.py`.

An adapter is imported when an account of its kind is used: a door that only serves claims needs
neither its library nor the memory that takes. Importing this needs no Django: the sandbox's server
lives in here and knows nothing of our models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from packets.providers.base import CredentialsMissing, Provider

if TYPE_CHECKING:
    from packets.models import ProviderAccount
    from packets.providers.fields import Field


def provider_of(account: ProviderAccount) -> Provider:
    """The adapter for this account. Raises CredentialsMissing, also where ours can't be read."""
    from engine.lib.crypto import UnreadableSecret

    try:
        credentials = credentials_of(account)
    except UnreadableSecret as error:
        raise CredentialsMissing("credentials", str(error)) from error
    return adapter_of(account.kind, account.base_url, credentials)


def adapter_of(kind: str, address: str, credentials: Mapping[str, Any]) -> Provider:
    """The adapter for keys at hand, such as those of a form. Raises CredentialsMissing; no I/O."""
    match kind:
        case "sandbox":
            from packets.providers.sandbox import adapter

            return adapter.SandboxProvider(address, credentials)
        case "wechat":
            from packets.providers import wechat

            return wechat.WechatProvider(address, wechat.Credentials.parse(credentials))
        case "alipay":
            from packets.providers import alipay

            return alipay.AlipayProvider(address, alipay.Credentials.parse(credentials))
        case _:
            raise CredentialsMissing("kind", f"no adapter for {kind}")


def credential_fields(kind: str) -> tuple[Field, ...]:
    """What the credentials of an account of this kind consist of, in the order of its form."""
    match kind:
        case "sandbox":
            from packets.providers.sandbox import adapter

            return adapter.FIELDS
        case "wechat":
            from packets.providers import wechat

            return wechat.FIELDS
        case "alipay":
            from packets.providers import alipay

            return alipay.FIELDS
        case _:
            return ()


def callback_answer(kind: str) -> tuple[str, bytes]:
    """Content type and body of what a provider takes for "understood"; else it sends again."""
    match kind:
        case "wechat":
            return "application/json", b'{"code":"SUCCESS","message":""}'
        case "alipay":
            return "text/plain", b"success"
        case _:
            return "application/json", b"{}"


def credentials_of(account: ProviderAccount) -> dict[str, Any]:
    """The account's credentials in the clear: never log them, never keep them."""
    from engine.lib.crypto import decrypt

    if not account.credentials_encrypted:
        return {}
    found: dict[str, Any] = json.loads(decrypt(account.credentials_encrypted))
    return found
