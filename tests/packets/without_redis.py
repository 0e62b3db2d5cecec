"""A stock of the test's own that can be taken away, and claims through both doors' drivers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import uvloop
from django.conf import settings as django_settings
from redis import Redis

from engine.lib.redis import stock as stock_client
from engine.run.paths import Places
from engine.run.valkey import ValkeyServer
from packets.claiming import circuit, flow, sync
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import ClaimRequest, Outcome
from packets.claiming.pipe import Pipe, address_of
from packets.claiming.registry import registry
from packets.models import Packet
from tests import world

ANSWER_WITHIN_S = 30


@contextmanager
def a_server(folder: Path) -> Iterator[ValkeyServer]:
    """For the tests of a module; `own_stock` mends what the one before did to it."""
    places = Places(folder)
    places.make()
    made = ValkeyServer(places)
    yield made
    made.kill()


def _mend(server: ValkeyServer) -> None:
    if server.process is None or server.process.poll() is not None:
        server.start(wipe=True)
        return
    _tell(server, "REPLICAOF", "NO", "ONE")
    _tell(server, "CONFIG", "SET", "maxmemory", 0)
    _tell(server, "FLUSHALL")


@contextmanager
def own_stock(server: ValkeyServer, settings: Any) -> Iterator[ValkeyServer]:
    """This process's stock is `server`, and its circuit begins closed."""
    _mend(server)
    settings.REDIS_URL = server.url
    stock_client.cache_clear()
    circuit.reset()
    try:
        yield server
    finally:
        stock_client.cache_clear()
        circuit.reset()


class Claimer(Protocol):
    """Claims as one door makes them."""

    def claim(self, packet: Packet, name: str, **request: Any) -> Outcome: ...

    def crowd(self, packet: Packet, names: list[str]) -> list[Outcome | BaseException]: ...

    def close(self) -> None: ...


class Web:
    def claim(self, packet: Packet, name: str, **request: Any) -> Outcome:
        return world.claim(packet, name, **request)

    def crowd(self, packet: Packet, names: list[str]) -> list[Outcome | BaseException]:
        return world.together([lambda name=name: self.claim(packet, name) for name in names])

    def close(self) -> None:
        pass


class Edge:
    """The edge's driver on an event loop of its own."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.driver = self._run(self._driver())

    async def _driver(self) -> EdgeDriver:
        return EdgeDriver(Pipe(address_of(django_settings.REDIS_URL)))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(ANSWER_WITHIN_S)

    def _steps(self, packet: Packet, name: str, **request: Any) -> flow.Flow:
        view = registry.view(packet.id)
        assert view is not None
        asked = ClaimRequest(**request)
        keys = sync.password_key(), sync.ticket_keys()
        return flow.claim(view, world.person(name), asked, *keys)

    def claim(self, packet: Packet, name: str, **request: Any) -> Outcome:
        outcome: Outcome = self._run(self.driver.run(self._steps(packet, name, **request)))
        return outcome

    def crowd(self, packet: Packet, names: list[str]) -> list[Outcome | BaseException]:
        steps = [self._steps(packet, name) for name in names]

        async def all_at_once() -> list[Outcome | BaseException]:
            runs = (self.driver.run(step) for step in steps)
            return await asyncio.gather(*runs, return_exceptions=True)

        found: list[Outcome | BaseException] = self._run(all_at_once())
        return found

    def close(self) -> None:
        self._run(self.driver.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


DOORS: dict[str, Callable[[], Claimer]] = {"web": Web, "edge": Edge}


@dataclass(frozen=True)
class Loss:
    """A way to lose Redis, and to have it back."""

    lose: Callable[[ValkeyServer], object]
    find: Callable[[ValkeyServer], object]


def _signal(server: ValkeyServer, number: int) -> None:
    assert server.process is not None
    os.kill(server.process.pid, number)


def _tell(server: ValkeyServer, *command: str | int) -> None:
    with Redis.from_url(server.url) as link:
        link.execute_command(*command)


LOSSES: dict[str, Loss] = {
    "killed": Loss(lambda server: server.kill(), lambda server: server.start(wipe=True)),
    # It takes connections and commands, and answers nothing.
    "stopped": Loss(
        lambda server: _signal(server, signal.SIGSTOP),
        lambda server: _signal(server, signal.SIGCONT),
    ),
    "full": Loss(
        lambda server: _tell(server, "CONFIG", "SET", "maxmemory", 1),
        lambda server: _tell(server, "CONFIG", "SET", "maxmemory", 0),
    ),
    "replica": Loss(
        lambda server: _tell(server, "REPLICAOF", "127.0.0.1", 1),
        lambda server: _tell(server, "REPLICAOF", "NO", "ONE"),
    ),
}
