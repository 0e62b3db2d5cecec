"""The few threads of an edge for rare effects: no packet's crowd takes all of them."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import time
import uuid
from array import array

import pytest

from packets.claiming import edge, flow, registry, winners
from packets.claiming.effects import CloseEnded, MayHaveWon, RedisAway, Unavailable
from packets.claiming.pipe import Address, Pipe
from packets.models import Packet
from tests import world
from tests.packets.crowd import driver
from tests.packets.settling import locked
from tests.packets.test_claim import end

pytestmark = pytest.mark.django_db(transaction=True)

CROWD = 12 * edge.SLOW_THREADS
SOON_S = 1.0


async def time_of_another(edge_driver: edge.EdgeDriver) -> float:
    """How long something of another packet waits for a thread."""
    await asyncio.sleep(0.1)
    since = time.monotonic()
    await edge_driver.slow(lambda: None)
    return time.monotonic() - since


def test_an_end_that_waits_for_a_lane_holds_up_no_other_packet(owner_dsn: str) -> None:
    packet = world.open_packet()
    end(packet, dt.timedelta(minutes=1))

    async def story() -> float:
        async with driver() as doing:
            crowd = [
                asyncio.ensure_future(doing.perform(CloseEnded(packet.id))) for _ in range(CROWD)
            ]
            waited = await time_of_another(doing)
            heard = await asyncio.gather(*crowd, return_exceptions=True)
            assert all(isinstance(one, Unavailable) for one in heard)
            return waited

    lock = f"SELECT 1 FROM packets_lane WHERE packet_id = '{packet.id}' FOR UPDATE"
    with locked(owner_dsn, lock):
        assert asyncio.run(story()) < SOON_S
    assert Packet.objects.get().state == Packet.State.OPEN


def test_a_crowd_at_a_packet_that_is_over_has_its_winners_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packet = world.open_packet(100, 1)
    assert world.claim(packet, "alice").claim is not None
    reading: list[uuid.UUID] = []
    read = winners._read

    def slowly(packet_id: uuid.UUID) -> array[int] | None:
        reading.append(packet_id)
        time.sleep(2 * SOON_S)
        return read(packet_id)

    winners.forget()
    monkeypatch.setattr(winners, "_read", slowly)
    view = registry.read(packet.id)
    assert view is not None
    names = ["alice", *(f"late{number}" for number in range(CROWD))]
    asked = [MayHaveWon(flow.slot_of(view, world.person(name).participant)) for name in names]

    async def story() -> tuple[float, list[bool]]:
        async with driver() as doing:
            crowd = [asyncio.ensure_future(doing.perform(effect)) for effect in asked]
            return await time_of_another(doing), await asyncio.gather(*crowd)

    waited, heard = asyncio.run(story())
    assert waited < SOON_S and len(reading) == 1
    assert heard == [True] + [False] * CROWD


def test_a_server_that_accepts_and_says_nothing_keeps_no_connection() -> None:
    async def story() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(5)
            one = Pipe(Address("127.0.0.1", silent.getsockname()[1]))
            with pytest.raises(RedisAway):
                await one.command((b"PING",))
            accepted, _ = silent.accept()
            with accepted:
                accepted.settimeout(0.5)
                await asyncio.sleep(0.05)
                heard = b""
                while data := accepted.recv(1_000):  # b"": the other side has closed it
                    heard += data
                return heard

    try:
        heard = asyncio.run(story())
    except ConnectionResetError:
        return  # closed, and at once
    assert b"PING" in heard
