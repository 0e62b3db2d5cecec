"""The keys of an Alipay app, in either of Alipay's two modes.

With plain keys, Alipay's public key is pasted. With certificates, which Alipay demands of apps that
pay out, three of them are: ours, Alipay's and the roots. Requests then name the serial numbers of
ours and of the roots, so that Alipay knows which keys are meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from packets.providers.base import CredentialsMissing
from packets.providers.fields import Field, only_known, private_key_of, public_key_of, text_of

CERTIFICATES = ("app_certificate", "alipay_certificate", "root_certificates")
# Signature algorithms of RSA; the roots also hold certificates of another kind, which don't count.
_RSA = "1.2.840.113549.1.1."
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Credentials:
    app_id: str
    user_id: str
    private_key: rsa.RSAPrivateKey
    public_key: rsa.RSAPublicKey
    certificate_names: Mapping[str, str]  # what requests add in the mode with certificates
    scene: str
    title: str

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Credentials:
        """Raises CredentialsMissing."""
        only_known(given, FIELDS)
        by_certificate = any(text_of(given, name, required=False) for name in CERTIFICATES)
        return cls(
            app_id=text_of(given, "app_id"),
            user_id=text_of(given, "user_id"),
            private_key=private_key_of(given, "private_key"),
            public_key=(
                _certified_key(given) if by_certificate else public_key_of(given, "public_key")
            ),
            certificate_names=_names(given) if by_certificate else {},
            scene=text_of(given, "scene", required=False) or "DIRECT_TRANSFER",
            title=text_of(given, "title"),
        )


def _certificates(given: Mapping[str, Any], name: str) -> Iterator[x509.Certificate]:
    for block in _PEM.findall(text_of(given, name)):
        try:
            yield x509.load_pem_x509_certificate(block.encode())
        except ValueError:
            raise CredentialsMissing(name, gettext("This isn't a certificate in PEM.")) from None


def _first(given: Mapping[str, Any], name: str) -> x509.Certificate:
    for certificate in _certificates(given, name):
        return certificate
    raise CredentialsMissing(name, gettext("This isn't a certificate in PEM."))


def _certified_key(given: Mapping[str, Any]) -> rsa.RSAPublicKey:
    key = _first(given, "alipay_certificate").public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise CredentialsMissing("alipay_certificate", gettext("Its key isn't an RSA key."))
    return key


def _names(given: Mapping[str, Any]) -> Mapping[str, str]:
    roots = [
        _serial(certificate)
        for certificate in _certificates(given, "root_certificates")
        if certificate.signature_algorithm_oid.dotted_string.startswith(_RSA)
    ]
    if not roots:
        raise CredentialsMissing("root_certificates", gettext("This isn't a certificate in PEM."))
    return {
        "app_cert_sn": _serial(_first(given, "app_certificate")),
        "alipay_root_cert_sn": "_".join(roots),
    }


def _serial(certificate: x509.Certificate) -> str:
    """What Alipay calls a certificate: a digest of its issuer's name and its serial number."""
    text = f"{certificate.issuer.rfc4514_string()}{certificate.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


FIELDS = (
    Field("app_id", _("app ID"), False, True, _("Of the app that pays out."), identity=True),
    Field(
        "user_id",
        _("Alipay user ID"),
        False,
        True,
        _("Of the paying account: 2088…, 16 digits."),
        identity=True,
    ),
    Field(
        "private_key",
        _("app's private key"),
        True,
        True,
        _("RSA2, as Alipay's key tool made it."),
        multiline=True,
    ),
    Field(
        "public_key",
        _("Alipay's public key"),
        False,
        False,
        _("Only without certificates."),
        multiline=True,
    ),
    Field(
        "app_certificate",
        _("app's certificate"),
        False,
        False,
        _("appCertPublicKey.crt. Alipay demands certificates of apps that pay out."),
        multiline=True,
    ),
    Field(
        "alipay_certificate",
        _("Alipay's certificate"),
        False,
        False,
        _("alipayCertPublicKey_RSA2.crt"),
        multiline=True,
    ),
    Field(
        "root_certificates",
        _("Alipay's root certificates"),
        False,
        False,
        _("alipayRootCert.crt"),
        multiline=True,
    ),
    Field(
        "scene",
        _("transfer scene"),
        False,
        False,
        _("Empty: DIRECT_TRANSFER."),
    ),
    Field("title", _("title of a transfer"), False, True, _("What the person sees on the bill.")),
)
