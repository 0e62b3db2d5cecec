"""Rude clients, in a process of their own: `python -m tests.faults.rude PORT`.

It holds IDLE connections that say nothing, HALF heads and SLOW bodies that grow by a byte a second,
and sends GARBAGE and HUGE requests; whatever the server closes is opened anew. It writes "ready"
once all of them are there, and ends when its standard input does.
"""

from __future__ import annotations

import collections
import errno
import os
import resource
import select
import socket
import sys
import time
from enum import Enum

IDLE, HALF, SLOW = 10_000, 200, 200  # connections held
GARBAGE, HUGE = 100, 20  # new connections a second
SOURCES = 16  # addresses: one has no more than 28,000 ports, and closed connections keep theirs
OPENED_AT_ONCE = 100
TICK_S = 0.05

_PATH = b"POST /api/v1/packets/" + b"0" * 32 + b"/claims HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_HEAD = _PATH + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Kind(Enum):
    """What a connection says first; the first three are held."""

    IDLE = b""
    HALF = _PATH + b"X-Never-Ends: "
    SLOW = _HEAD % 4_000
    GARBAGE = b"\x16\x03\x01" + bytes(range(256)) * 8
    HUGE = _HEAD % 300_000_000 + b"{" * 8_000


HELD = {Kind.IDLE: IDLE, Kind.HALF: HALF, Kind.SLOW: SLOW}
SENT = {Kind.GARBAGE: GARBAGE, Kind.HUGE: HUGE}


class Rudeness:
    def __init__(self, port: int) -> None:
        self.port = port
        self.poll = select.epoll()
        self.links: dict[int, tuple[Kind, socket.socket]] = {}
        self.count = collections.Counter[Kind]()
        self.opened = 0

    def open(self, kind: Kind) -> None:
        link = socket.socket()
        link.bind((f"127.0.1.{1 + self.opened % SOURCES}", 0))
        self.opened += 1
        # On one machine this is a matter of microseconds, where the server's queue has room.
        link.settimeout(0.5)
        try:
            link.connect(("127.0.0.1", self.port))
            link.setblocking(False)
            link.send(kind.value)
        except OSError:
            link.close()
            return
        self.links[link.fileno()] = kind, link
        self.count[kind] += 1
        self.poll.register(link.fileno(), select.EPOLLIN)

    def close(self, number: int) -> None:
        kind, link = self.links.pop(number)
        self.count[kind] -= 1
        self.poll.unregister(number)
        link.close()

    def heard(self) -> None:
        """Answers are thrown away; what the server has closed is closed."""
        for number, _ in self.poll.poll(TICK_S):
            try:
                if not self.links[number][1].recv(65_536):
                    self.close(number)
            except OSError:
                self.close(number)

    def drip(self) -> None:
        """A byte more of each half head and each slow body."""
        for number, (kind, link) in list(self.links.items()):
            if kind in (Kind.HALF, Kind.SLOW):
                try:
                    link.send(b"a")
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        self.close(number)

    def top_up(self) -> bool:
        """Whether everything that is held is there."""
        missing = [kind for kind, n in HELD.items() for _ in range(n - self.count[kind])]
        for kind in missing[:OPENED_AT_ONCE]:
            self.open(kind)
        return not missing

    def run(self) -> None:
        said, dripped, began, sent = False, 0.0, 0.0, collections.Counter[Kind]()
        while not told_to_end():
            full = self.top_up()
            if full and not said:
                said, began = True, time.monotonic()
                print("ready", flush=True)
            if said:
                for kind, per_second in SENT.items():
                    while sent[kind] < (time.monotonic() - began) * per_second:
                        self.open(kind)
                        sent[kind] += 1
            if time.monotonic() - dripped > 1.0:
                dripped = time.monotonic()
                self.drip()
            self.heard()


def told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(10)  # elsewhere, it would not take the server's own processors
    Rudeness(int(sys.argv[1])).run()


if __name__ == "__main__":
    main()
