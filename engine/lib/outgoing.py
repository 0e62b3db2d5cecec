"""One HTTP call to somebody else's server, bounded in every direction.

A provider's or an integrator's server may be slow, endless or hostile, and a call that hangs holds
a worker and its lease. So connecting, each wait for data and the whole call have limits, the answer
has a size, redirects are handed back instead of followed (a signed request belongs to one address),
and no proxy or password file of the environment has a say. Each call has a connection of its own: a
reused one that the other side has just closed would leave open whether the request was read.

`CallFailed` says that there is no whole answer. Whether the other side acted is unknown then.
"""

from __future__ import annotations

import functools
import http
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit

CONNECT_S = 3.0  # seconds for one address, and again for TLS; who is reachable answers in less
READ_S = 10.0  # seconds without a single byte
CALL_S = 20.0  # seconds for the whole call; leases are longer than this
MAX_ANSWER_BYTES = 256 * 1024  # no answer about one payout is a hundredth of it
CHUNK_BYTES = 64 * 1024  # of an answer that goes to a file
USER_AGENT = "Laisee/1"


class CallFailed(Exception):
    """No whole answer; `what` is one of resolve, connect, tls, timeout, too_large, broken."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(f"{what}: {detail}" if detail else what)
        self.what = what


@dataclass(frozen=True)
class Limits:
    connect_s: float = CONNECT_S
    read_s: float = READ_S
    call_s: float = CALL_S
    max_bytes: int = MAX_ANSWER_BYTES
    # For who needs the status only: a longer answer is cut, and one that breaks off is what came.
    cut: bool = False


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes


@dataclass
class _Clock:
    """What is left of the call; every wait takes its timeout from here."""

    limits: Limits
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.limits.call_s

    def at_most(self, seconds: float) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the whole call took too long")
        return min(seconds, left)


class _Incoming(io.RawIOBase):
    """What the other side sends; a byte now and then doesn't prolong the call."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._clock.at_most(self._clock.limits.read_s))
        return self._sock.recv_into(buffer)


class _Line:
    """The part of a socket that http.client uses. Closing is left to whoever opened the socket."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._clock.at_most(self._clock.limits.read_s))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, self._clock))

    def close(self) -> None:
        pass


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    limits: Limits | None = None,
    address: str | None = None,
    into: IO[bytes] | None = None,
) -> Answer:
    """The answer, whatever its status. Raises CallFailed.

    `address` is connected to in place of the name's own, which still stands in `Host` and in the
    certificate: for who has checked an address and must reach that one. The body of a 200 is
    written to `into` piece by piece where that is given, and is empty in the answer.
    """
    clock = _Clock(limits or Limits())
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("an http(s) address without a user is needed")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _connected(address or parts.hostname, port, clock) as plain:
            sock = _secured(plain, parts.hostname, clock) if parts.scheme == "https" else plain
            with sock:
                sent = {"Host": parts.netloc, **(headers or {})}
                return _exchange(sock, clock, method, path, sent, body, into)
    except TimeoutError as late:
        raise CallFailed("timeout", str(late)) from late
    except (OSError, http.client.HTTPException) as broken:
        raise CallFailed("broken", type(broken).__name__) from broken


def _connected(host: str, port: int, clock: _Clock) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as unknown:
        raise CallFailed("resolve", str(unknown)) from unknown
    trouble = "no address"
    for family, kind, protocol, _, where in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(clock.at_most(clock.limits.connect_s))
            sock.connect(where)
        except OSError as refused:
            sock.close()
            trouble = str(refused)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
    raise CallFailed("connect", trouble)


def _secured(plain: socket.socket, host: str, clock: _Clock) -> socket.socket:
    plain.settimeout(clock.at_most(clock.limits.connect_s))
    try:
        return _tls().wrap_socket(plain, server_hostname=host)
    except OSError as refused:
        raise CallFailed("tls", str(refused)) from refused


def _exchange(
    sock: socket.socket,
    clock: _Clock,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    into: IO[bytes] | None,
) -> Answer:
    connection = http.client.HTTPConnection("unused")
    connection.sock = _Line(sock, clock)  # what it uses of one
    sent = {"User-Agent": USER_AGENT, "Connection": "close", **headers}
    connection.request(method, path, body=body or None, headers=sent)
    response = connection.getresponse()
    told = {name.lower(): value for name, value in response.getheaders()}
    if clock.limits.cut:
        return Answer(response.status, told, _beginning(response, clock.limits.max_bytes))
    most, content, read = clock.limits.max_bytes, bytearray(), 0
    while piece := response.read(min(CHUNK_BYTES, most + 1 - read)):
        read += len(piece)
        if read > most:
            raise CallFailed("too_large", f"more than {most} bytes")
        if into is not None and response.status == http.HTTPStatus.OK:
            into.write(piece)
        else:
            content += piece
    if response.length:
        raise CallFailed("broken", "the answer ended too early")
    return Answer(response.status, told, bytes(content))


def _beginning(response: http.client.HTTPResponse, most: int) -> bytes:
    try:
        return response.read(most)
    except http.client.IncompleteRead as broken:
        return broken.partial[:most]
    except (OSError, http.client.HTTPException):
        return b""
