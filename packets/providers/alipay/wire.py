"""How requests to Alipay are signed, and how its answers and notices are checked.

RSA2: SHA-256 with RSA over the parameters in alphabetical order, or over the raw text of the
answer's one node. What is signed of a request is put together by Alipay's own SDK; the RSA itself
is `cryptography`'s, which takes a seventieth of the time.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any
from urllib.parse import parse_qsl

from alipay.aop.api.util.SignatureUtils import get_sign_content
from alipay.aop.api.util.WebUtils import url_encode
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

CHARSET = "utf-8"
# Parameters of a notice; Alipay sends about twenty.
MAX_PARAMETERS = 64

_decoder = JSONDecoder()


@dataclass(frozen=True)
class Signed:
    """A request's parts: the query string, and the form in the body."""

    query: str
    body: bytes


def signed(common: Mapping[str, str], own: Mapping[str, str], key: rsa.RSAPrivateKey) -> Signed:
    """Common parameters go into the address, those of the request into the body: it holds names."""
    content = get_sign_content({**own, **common})
    signature = key.sign(content.encode(CHARSET), PKCS1v15(), SHA256())
    query = url_encode({**common, "sign": base64.b64encode(signature).decode()}, CHARSET)
    return Signed(query, url_encode(dict(own), CHARSET).encode("ascii"))


def verified(key: rsa.RSAPublicKey, message: bytes, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def answer_of(raw: bytes, node: str, key: rsa.RSAPublicKey) -> dict[str, Any] | None:
    """The node's object, if Alipay's key signed its text as it stands there; else None."""
    try:
        members = _members(raw.decode(CHARSET))
        signature = json.loads(members["sign"])
        text = members.get(node) or members["error_response"]
        if not isinstance(signature, str) or not verified(key, text.encode(CHARSET), signature):
            return None
        value = json.loads(text)
    except (ValueError, KeyError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _members(text: str) -> dict[str, str]:
    """The raw texts of a JSON object's members. ValueError where it isn't one.

    Of two with one name the last counts, for the signature and for what is read alike.
    """
    members: dict[str, str] = {}
    at = _blank(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("no object")
    at = _blank(text, at + 1)
    while True:
        name, at = _decoder.raw_decode(text, at)
        at = _blank(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            raise ValueError("no member")
        start = _blank(text, at + 1)
        _value, at = _decoder.raw_decode(text, start)
        members[name] = text[start:at]
        at = _blank(text, at)
        if text[at : at + 1] == "}":
            if text[at + 1 :].strip():
                raise ValueError("something follows")
            return members
        if text[at : at + 1] != ",":
            raise ValueError("no end")
        at = _blank(text, at + 1)


def _blank(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n") and at < len(text):
        at += 1
    return at


def notice_of(raw: bytes, key: rsa.RSAPublicKey) -> dict[str, str] | None:
    """A notice's parameters, if Alipay's key signed them; else None.

    Alipay's two kinds of notice differ in whether `sign_type` is signed along.
    """
    try:
        given = dict(
            parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=MAX_PARAMETERS,
            )
        )
    except ValueError:
        return None
    signature = given.pop("sign", "")
    if not signature:
        return None
    without_type = {name: value for name, value in given.items() if name != "sign_type"}
    for parameters in (without_type, given):
        content = get_sign_content({n: v for n, v in parameters.items() if v})
        if verified(key, content.encode(CHARSET), signature):
            return given
    return None
