"""The keys and settings of a WeChat Pay merchant account.

Only the mode with WeChat Pay's public key is spoken, which every merchant has now; platform
certificates, which had to be fetched and renewed, are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from packets.providers.base import CredentialsMissing
from packets.providers.fields import Field, only_known, private_key_of, public_key_of, text_of

API_V3_KEY_BYTES = 32  # an AES-256 key, which WeChat lets its owner type


@dataclass(frozen=True)
class Credentials:
    merchant_id: str
    app_id: str
    certificate_serial: str
    private_key: rsa.RSAPrivateKey
    public_key_id: str
    public_key: rsa.RSAPublicKey
    api_v3_key: str
    scene_id: str
    scene_report: tuple[tuple[str, str], ...]
    perception: str

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Credentials:
        """Raises CredentialsMissing."""
        only_known(given, FIELDS)
        key = text_of(given, "api_v3_key")
        if len(key.encode()) != API_V3_KEY_BYTES:
            raise CredentialsMissing("api_v3_key", gettext("The APIv3 key has 32 characters."))
        return cls(
            merchant_id=text_of(given, "merchant_id"),
            app_id=text_of(given, "app_id"),
            certificate_serial=text_of(given, "certificate_serial"),
            private_key=private_key_of(given, "private_key"),
            public_key_id=text_of(given, "public_key_id"),
            public_key=public_key_of(given, "public_key"),
            api_v3_key=key,
            scene_id=text_of(given, "scene_id"),
            scene_report=tuple(_report(text_of(given, "scene_report"))),
            perception=text_of(given, "perception", required=False),
        )


def _report(text: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, equals, content = line.partition("=")
        if not (kind.strip() and equals and content.strip()):
            raise CredentialsMissing(
                "scene_report", gettext("Each line is a kind, “=” and a text.")
            )
        yield kind.strip(), content.strip()


FIELDS = (
    Field(
        "merchant_id",
        _("merchant number"),
        False,
        True,
        _("mchid, ten digits."),
        identity=True,
    ),
    Field("app_id", _("app ID"), False, True, _("Of the app whose OpenIDs are paid.")),
    Field(
        "certificate_serial",
        _("serial number of the merchant certificate"),
        False,
        True,
        _("Under API security; it belongs to the private key below."),
    ),
    Field(
        "private_key",
        _("merchant's private key"),
        True,
        True,
        _("The whole of apiclient_key.pem."),
        multiline=True,
    ),
    Field(
        "public_key_id",
        _("ID of WeChat Pay's public key"),
        False,
        True,
        _("Begins with PUB_KEY_ID_."),
    ),
    Field(
        "public_key",
        _("WeChat Pay's public key"),
        False,
        True,
        _("The whole of pub_key.pem."),
        multiline=True,
    ),
    Field(
        "api_v3_key", gettext("APIv3 key"), True, True, _("32 characters; opens their callbacks.")
    ),
    Field(
        "scene_id",
        _("transfer scene"),
        False,
        True,
        _("1000 is cash marketing; WeChat must have granted it."),
    ),
    Field(
        "scene_report",
        _("scene report"),
        False,
        True,
        _("One line each, “kind=text”, with the kinds that the scene demands."),
        multiline=True,
    ),
    Field(
        "perception",
        _("what the person is shown"),
        False,
        False,
        _("One of the scene's texts; empty: the scene's usual one."),
    ),
)
