"""What adapters share: one call within the limits, and what isn't an answer about the money."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import urlsplit

import orjson
from django.utils.translation import gettext as _

from engine.lib.outgoing import Answer, CallFailed, Limits, call
from packets.providers import base
from packets.providers.base import CredentialsMissing, Kind, ProviderUnavailable, Result

# Of a day's statement: a million lines are about a third of it.
STATEMENT_MAX_BYTES = 512 * 1024 * 1024
STATEMENT_CALL_S = 300.0
CODE_MAX_CHARS = 80
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_CODE = re.compile(r"[A-Za-z0-9_.\-]+\Z")


def address_of(given: str, usual: str) -> str:
    """The provider's address, for an account that names none or another. Raises CredentialsMissing.

    Money moves behind it and names stand in it, so it is reached over TLS; only a stand-in on this
    machine need not be.
    """
    address = (given or usual).rstrip("/")
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  # raises ValueError
        local = parts.scheme == "http" and parts.hostname in LOOPBACK
        fine = bool(parts.hostname) and "@" not in parts.netloc and not parts.query
    except ValueError:
        local = fine = False
    if not fine or not (local or parts.scheme == "https"):
        raise CredentialsMissing("base_url", _("This must be an https:// address."))
    return address


def called(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    within_s: float | None = None,
) -> Answer | Result:
    """The answer, or UNKNOWN where there is none: the provider may have acted all the same."""
    try:
        return call(method, url, headers=headers, body=body, limits=_limits(within_s))
    except CallFailed as failed:
        return Result(Kind.UNKNOWN, code=failed.what)


def fetched(url: str, headers: Mapping[str, str], into: IO[bytes], allowed: str) -> None:
    """A day's statement into a file. `allowed` is our own address: over TLS like it, or not."""
    if urlsplit(url).scheme not in ("https", urlsplit(allowed).scheme):
        raise ProviderUnavailable("the statement's address isn't a safe one")
    limits = Limits(
        base.CONNECT_TIMEOUT_S, base.READ_TIMEOUT_S, STATEMENT_CALL_S, STATEMENT_MAX_BYTES
    )
    try:
        answer = call("GET", url, headers=headers, limits=limits, into=into)
    except (CallFailed, ValueError) as failed:
        raise ProviderUnavailable(str(failed)) from failed
    if answer.status != 200:
        raise ProviderUnavailable(f"the statement's address answered {answer.status}")
    into.seek(0)


def _limits(within_s: float | None) -> Limits:
    call_s = base.CALL_LIMIT_S if within_s is None else within_s
    return Limits(base.CONNECT_TIMEOUT_S, base.READ_TIMEOUT_S, call_s, base.ANSWER_MAX_BYTES)


def unknown(code: str, answer: Answer) -> Result:
    return Result(Kind.UNKNOWN, code=code, http_status=answer.status)


def object_in(raw: bytes) -> dict[str, Any] | None:
    """The JSON object in `raw`, if that is what it is."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def code_in(given: Mapping[str, Any], name: str) -> str:
    """A provider's code, as far as it is one; never a message."""
    value = given.get(name)
    plain = isinstance(value, str) and len(value) <= CODE_MAX_CHARS and _CODE.match(value)
    return str(value) if plain else ""


def text_in(given: Mapping[str, Any], name: str) -> str:
    """A short text of the provider's, such as its reference; without what Postgres can't keep."""
    value = given.get(name)
    if not isinstance(value, str):
        return ""
    return "".join(filter(str.isprintable, value[:CODE_MAX_CHARS]))


def retry_after_s(answer: Answer) -> float | None:
    """Seconds of the Retry-After header, where it holds some."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) <= 5 else None
