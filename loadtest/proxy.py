"""A small TCP proxy on loopback that makes a network bad, for `slow_network` and its tests.

It stands between two ends that know nothing of it. What the near end sends is passed on later, by
a delay and a jitter, in its order; what the far end answers is passed on at once: so every round
trip takes that much longer. A share of what is sent can cut its connection instead: half of it
before it was passed on, half after, when the far end acts and nobody hears of it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import cast

BACKLOG = 1_024
HELD_BYTES = 1_048_576  # on their way at once on one connection; whoever sends more has to wait
NEXT_S = 1e-6  # pieces of one connection leave at times of their own, or they could overtake
START_TIMEOUT_S = 5.0
END_S = 0.01  # some turns of the loop, in which the connections that were cut end


@dataclass(frozen=True, slots=True)
class Weather:
    """What the network does to whatever is sent to the far end."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # on top of the delay, evenly between nothing and this
    cut_share: float = 0.0  # of the pieces that are sent: they end their connection


FINE = Weather()


class Proxy:
    """`with Proxy(lambda: ("127.0.0.1", 5432)) as proxy:` listens on `proxy.port`.

    The far end is asked for anew by each connection. `weather` may be changed at any time; it holds
    for what is sent from then on, also on connections that are open already.
    """

    def __init__(self, far: Callable[[], tuple[str, int]], *, seed: int = 1) -> None:
        self.weather = FINE
        self.far = far
        self.dice = random.Random(seed)
        self.links: set[_Near] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._listening.wait(START_TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        server = loop.run_until_complete(
            loop.create_server(lambda: _Near(self, loop), sock=self._listener, backlog=BACKLOG)
        )
        self._listening.set()
        loop.run_forever()
        server.close()
        for link in list(self.links):
            link.cut()
        loop.run_until_complete(asyncio.sleep(END_S))
        loop.close()


class _End(asyncio.Protocol):
    """One side of a connection through the proxy."""

    transport: asyncio.Transport | None = None
    other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def close(self) -> None:
        """Once everything that was written to it has left."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


class _Far(_End):
    def __init__(self, near: _Near) -> None:
        self.other = near

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        assert self.other is not None
        self.other.close()


class _Near(_End):
    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._loop = proxy, loop
        self._due = 0.0  # of the last piece that is on its way
        self._held = 0  # bytes on their way
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.links.add(self)
        assert self.transport is not None
        self.transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        far = _Far(self)
        try:
            await self._loop.create_connection(lambda: far, *self._proxy.far())
        except (OSError, ValueError, KeyError):  # it is away, or nobody knows yet where it is
            self.abort()
            return
        self.other = far
        assert self.transport is not None
        if self.transport.is_closing():
            far.abort()
            return
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        weather, dice = self._proxy.weather, self._proxy.dice
        if weather.cut_share and dice.random() < weather.cut_share:
            if dice.random() < 0.5:
                self.cut()
                return
            self._later(weather, data)
            self.abort()  # nobody is there any more to hear the answer
            return
        self._later(weather, data)
        if self._held > HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def _later(self, weather: Weather, data: bytes) -> None:
        wait_s = weather.delay_s + self._proxy.dice.uniform(0.0, weather.jitter_s)
        if wait_s == 0.0 and not self._held:
            self._pass_on(data)
            return
        self._held += len(data)
        self._due = max(self._due + NEXT_S, self._loop.time() + wait_s)
        self._loop.call_at(self._due, self._arrived, data)

    def _arrived(self, data: bytes) -> None:
        self._held -= len(data)
        self._pass_on(data)
        if self._held <= HELD_BYTES and self.transport is not None:
            self.transport.resume_reading()

    def _pass_on(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        return False  # nobody here goes on listening once they have said all

    def connection_lost(self, _error: Exception | None) -> None:
        self._proxy.links.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        if self.other is not None:
            # After what is still on its way.
            self._loop.call_at(max(self._due + NEXT_S, self._loop.time()), self.other.close)

    def cut(self) -> None:
        """End both sides at once."""
        if self.other is not None:
            self.other.abort()
        self.abort()
