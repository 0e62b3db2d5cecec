"""One call of a webhook, to an address that was checked.

The name is resolved once, every address it has is judged, and the connection goes to one of those:
a name that answers differently a moment later changes nothing. Host, SNI and certificate are those
of the name. Whatever goes wrong, what comes back is an outcome, never an exception.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from engine.lib.errors import ServiceError
from engine.lib.outgoing import CallFailed, Limits, call
from engine.webhooks.addresses import Address, address_is_allowed, url_check
from engine.webhooks.models import ANSWER_KEPT_CHARS, ERROR_MAX_CHARS

# Seconds for everything: what the standard advises a receiver to be quicker than.
CALL_S = 15.0
RESOLVE_S = 5.0  # seconds; a resolver may hang for much longer than a call may take
CONNECT_S = 3.0
READ_S = 10.0
# A name's further addresses are tried only when connecting fails.
MAX_ADDRESSES = 3
# The system's resolver can't be interrupted: what it keeps waiting waits in threads of its own.
RESOLVERS = 16

_resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call. `status` is None where no answer came; `error` then says why."""

    status: int | None
    latency_ms: int
    answer: str = ""
    error: str = ""

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """410: the receiver wants no more."""
        return self.status == 410


class _Refused(Exception):
    """No call is made; the text says why, for the log."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system resolves it. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def deliver(url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
    """POST `body` there, in at most CALL_S."""
    started = time.monotonic()

    def took_ms() -> int:
        return int((time.monotonic() - started) * 1000)

    try:
        addresses = _addresses(url)
        trouble = "no address"
        for address in addresses[:MAX_ADDRESSES]:
            left_s = CALL_S - (time.monotonic() - started)
            if left_s <= 0:
                break
            limits = Limits(CONNECT_S, READ_S, left_s, ANSWER_KEPT_CHARS, cut=True)
            try:
                answer = call(
                    "POST", url, headers=headers, body=body, limits=limits, address=str(address)
                )
            except CallFailed as failed:
                trouble = str(failed)
                if failed.what != "connect":
                    break
            else:
                return Outcome(answer.status, took_ms(), _text(answer.body))
    except _Refused as refused:
        trouble = str(refused)
    return Outcome(None, took_ms(), error=trouble[:ERROR_MAX_CHARS])


def _addresses(url: str) -> list[Address]:
    loopback = settings.WEBHOOK_ALLOW_LOOPBACK
    try:
        url_check(url, loopback=loopback)
    except ServiceError as refusal:
        raise _Refused(f"refused: {refusal.code}") from refusal
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    waiting: Future[Sequence[str]] = _resolvers.submit(resolve, host, port)
    try:
        found = [ipaddress.ip_address(text) for text in waiting.result(RESOLVE_S)]
    except TooLate:
        waiting.cancel()
        raise _Refused("resolve: timeout") from None
    except (OSError, UnicodeError, ValueError) as unknown:
        raise _Refused(f"resolve: {unknown}") from unknown
    # One that isn't allowed is enough: nobody's receiver lives both here and in the internet.
    for address in found:
        if not address_is_allowed(address, loopback=loopback):
            raise _Refused(f"refused: {host} leads to {address}")
        if parts.scheme == "http" and not address.is_loopback:
            raise _Refused("refused: scheme")
    return found


def _text(body: bytes) -> str:
    return body.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")[
        :ANSWER_KEPT_CHARS
    ]
