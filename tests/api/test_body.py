"""How the edge reads bodies: bounded in size and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from packets.api import body
from packets.api.body import Bodies, TooSlow, declared

BOUND = body.MAX_EVENTS_BODY_BYTES


class Sender:
    """Sends `chunk` again and again, and never says that it is done."""

    def __init__(self, chunk: bytes = b"") -> None:
        self.chunk = chunk
        self.sent = 0

    async def __call__(self) -> bytes:
        await asyncio.sleep(60)
        return b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            self.sent += len(self.chunk)
            yield self.chunk


@pytest.mark.parametrize(
    ("length", "is_read"),
    [("0", True), (str(BOUND), True), (str(BOUND + 1), False), ("9" * 40, False), ("-5", False)],
)
def test_what_a_declared_length_means(length: str, is_read: bool) -> None:
    assert (declared(length) <= BOUND) is is_read


def test_what_is_declared_too_large_is_not_read() -> None:
    sender = Sender()
    assert asyncio.run(Bodies().read({"content-length": str(BOUND + 1)}, sender)) == b""


def test_what_is_not_declared_is_read_up_to_the_bound() -> None:
    sender = Sender(b"x" * 65_536)
    read = asyncio.run(Bodies().read({"transfer-encoding": "chunked"}, sender))
    assert BOUND < len(read) == sender.sent <= BOUND + 65_536


def test_whoever_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(body, "LOOK_EVERY_S", 0.01)

    async def night() -> None:
        bodies = Bodies()
        for _ in range(2):  # the timer rests between them
            with pytest.raises(TooSlow):
                await bodies.read({"content-length": "9"}, Sender())
            assert not bodies._reading and not bodies._late
            await asyncio.sleep(0.03)
            assert not bodies._looking
        # A task that somebody else ends isn't a slow sender.
        reading = asyncio.ensure_future(bodies.read({"content-length": "9"}, Sender()))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(asyncio.wait_for(night(), 10))
