"""A closed crowd that costs little: keep-alive connections in one epoll loop, requests as bytes.

Locust's users cost about a millisecond each; on two shared cores they would be most of what is
measured. This sends requests that were made beforehand, one under way on each connection, and keeps
status, time and body of each answer. It runs in a process of its own, whose CPU the bench states:

    python -m loadtest.bench.client < order.pickle > result.pickle

(a pickled Order in, a pickled Heard out, between two processes of one program).
"""

from __future__ import annotations

import pickle
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

READ_BYTES = 65_536  # an answer is a few hundred bytes
SILENCE_S = 10.0  # without any answer for so long the round is over: the rest counts as unanswered
NO_STATUS = 0  # a connection that broke
_LENGTH = b"content-length:"


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, and for how long. `repeat`: begin again when the requests are used up."""

    host: str
    port: int
    requests: Sequence[bytes]
    in_flight: int
    seconds: float
    repeat: bool


@dataclass(slots=True)
class Heard:
    """One entry for each answer, in the order of the answers."""

    request: list[int] = field(default_factory=list)  # which of the order's requests
    status: list[int] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    elapsed_s: float = 0.0
    cpu_s: float = 0.0  # of this process, while the crowd was under way
    unanswered: int = 0


def body_of(data: bytes) -> bytes | None:
    """The body of one whole HTTP/1.1 answer with a length; None while some of it is missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(_LENGTH)
    if at < 0:
        raise ValueError(f"an answer without a length: {head!r}")
    line_end = head.find(b"\r\n", at)
    length = int(head[at + len(_LENGTH) : line_end if line_end >= 0 else end])
    body = data[end + 4 :]
    if len(body) > length:
        raise ValueError("more than one answer to one request")
    return body if len(body) == length else None


class _Crowd:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.heard = Heard()
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.under_way: dict[int, tuple[int, float]] = {}
        self.partial: dict[int, bytes] = {}
        self.next = 0

    def connect(self) -> None:
        link = socket.create_connection((self.order.host, self.order.port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        self.sockets[link.fileno()] = link
        self.poll.register(link.fileno(), select.EPOLLIN)

    def send(self, number: int) -> None:
        order = self.order
        which = self.next
        if which == len(order.requests):
            if not order.repeat:
                return
            which = 0
        self.next = which + 1
        self.under_way[number] = (which, time.perf_counter())
        self.sockets[number].send(order.requests[which])

    def run(self) -> Heard:
        for _ in range(self.order.in_flight):
            self.connect()
        cpu_s, started = time.process_time(), time.perf_counter()
        until = started + self.order.seconds
        for number in list(self.sockets):
            self.send(number)
        while self.under_way:
            ready = self.poll.poll(SILENCE_S)
            if not ready:
                break
            for number, _ in ready:
                if self.answer(number) and time.perf_counter() < until:
                    self.send(number)
        heard = self.heard
        heard.elapsed_s = time.perf_counter() - started
        heard.cpu_s = time.process_time() - cpu_s
        heard.unanswered = len(self.under_way)
        for link in self.sockets.values():
            link.close()
        return heard

    def answer(self, number: int) -> bool:
        """Whether the connection is free for the next request."""
        try:
            data = self.sockets[number].recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self.lost(number)
            return False
        if number in self.partial:
            data = self.partial.pop(number) + data
        body = body_of(data)
        if body is None:
            self.partial[number] = data
            return False
        self.keep(number, int(data[9:12]), body)
        return True

    def keep(self, number: int, status: int, body: bytes) -> None:
        which, since = self.under_way.pop(number)
        heard = self.heard
        heard.latency_s.append(time.perf_counter() - since)
        heard.request.append(which)
        heard.status.append(status)
        heard.body.append(body)

    def lost(self, number: int) -> None:
        """The connection is gone: nobody knows what became of its request."""
        self.poll.unregister(number)
        self.sockets.pop(number).close()
        self.partial.pop(number, None)
        if number in self.under_way:
            self.keep(number, NO_STATUS, b"")


def send(order: Order) -> Heard:
    """Carry the order out in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench.client"],
        input=pickle.dumps(order),
        stdout=subprocess.PIPE,
        check=True,
    )
    heard: Heard = pickle.loads(done.stdout)
    return heard


def main() -> None:
    # Under the module's own name, so that both processes mean the same classes.
    from loadtest.bench.client import _Crowd

    order: Order = pickle.load(sys.stdin.buffer)
    pickle.dump(_Crowd(order).run(), sys.stdout.buffer)


if __name__ == "__main__":
    main()
