"""A crowd at the edge's driver, in this process: everybody asks until the answer is final."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvloop

from engine.lib import clock
from packets.claiming import flow
from packets.claiming.cluster_pipe import stock_pipe
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import ClaimRequest, Outcome, Result, Unavailable
from packets.claiming.limits import OverLimit
from packets.claiming.registry import registry
from packets.claiming.sync import password_key
from packets.models import Packet
from tests import world

AGAIN_S = 1.0  # what Retry-After says


@dataclass
class Heard:
    """What the people of a crowd were told."""

    results: Counter[Result] = field(default_factory=Counter)
    wins: dict[uuid.UUID, int] = field(default_factory=dict)  # claim → fen
    busy: int = 0
    unavailable: int = 0
    longest_wait_s: float = 0.0  # from somebody's first `busy` to the final answer
    first_sold_out: dt.datetime | None = None


async def _once(driver: EdgeDriver, packet: Packet, name: str, heard: Heard) -> Outcome | None:
    """One call; None: a 503."""
    fresh, view = registry.peek(packet.id)
    if not fresh:
        view = await driver.slow_once(packet.id, registry.view, packet.id)
    assert view is not None
    try:
        steps = flow.claim(view, world.person(name), ClaimRequest(), password_key(), {})
        outcome = await driver.run(steps)
    except Unavailable:
        heard.unavailable += 1
        return None
    except OverLimit:
        return Outcome(Result.BLOCKED)  # that person goes home
    heard.busy += outcome.result is Result.BUSY
    return outcome


async def _person(
    driver: EdgeDriver, packet: Packet, name: str, heard: Heard, outcome: Outcome | None
) -> None:
    """Everything after the first call, until the answer is final."""
    busy_since: float | None = None
    while outcome is None or outcome.result is Result.BUSY:
        if outcome is not None and busy_since is None:
            busy_since = time.monotonic()
        await asyncio.sleep(AGAIN_S)
        outcome = await _once(driver, packet, name, heard)
    heard.results[outcome.result] += 1
    if busy_since is not None:
        heard.longest_wait_s = max(heard.longest_wait_s, time.monotonic() - busy_since)
    if outcome.result is Result.SOLD_OUT and heard.first_sold_out is None:
        heard.first_sold_out = clock.now()
    if outcome.claim is not None:
        heard.wins[outcome.claim.id] = outcome.claim.portion.amount_fen


async def _crowd(packet: Packet, names: Iterator[str], in_flight: int, heard: Heard) -> None:
    async with driver() as edge, asyncio.TaskGroup() as group:

        async def some() -> None:
            for name in names:
                outcome = await _once(edge, packet, name, heard)
                rest = _person(edge, packet, name, heard, outcome)
                if outcome is None or outcome.result is Result.BUSY:
                    group.create_task(rest)  # who waits keeps nobody from arriving
                else:
                    await rest

        for _ in range(in_flight):
            group.create_task(some())


@asynccontextmanager
async def driver() -> AsyncIterator[EdgeDriver]:
    edge = EdgeDriver(stock_pipe())
    try:
        yield edge
    finally:
        await edge.close()


class Stoppable:
    """So many people's names, or fewer: nobody comes any more after `stop`."""

    def __init__(self, people: int) -> None:
        self.left = people
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def __iter__(self) -> Iterator[str]:
        while self.left and not self._stopped:
            self.left -= 1
            yield f"person{self.left}"


def crowd(packet: Packet, people: Iterable[str], *, in_flight: int = 128) -> Heard:
    """These people, so many first calls at a time; each goes on until the answer is final."""
    heard = Heard()
    uvloop.run(_crowd(packet, iter(people), in_flight, heard))
    return heard
