"""A client that still talks to a master that was replaced: it looks again, and fences nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from redis import Redis

from engine.lib.redis import stock as stock_client
from engine.run.valkey import ValkeyServer
from packets import recovery
from packets.claiming import pipe, sync
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import Outcome, Result
from packets.claiming.pipe import Pipe, address_of
from packets.models import Lane, LaneEpoch, Packet
from tests import world
from tests.relay import Relay

pytestmark = pytest.mark.django_db(transaction=True)

Claim = Callable[[Packet, str], Outcome]


@pytest.fixture
def relay(valkey_server: ValkeyServer, redis_url: str) -> Iterator[Relay]:
    """In front of a master that lets in whoever its successor lets in."""
    old, new = urlsplit(valkey_server.url), urlsplit(redis_url)
    Redis.from_url(valkey_server.url).config_set("requirepass", new.password or "")
    with Relay(new._replace(netloc=f":{new.password}@{old.hostname}:{old.port}").geturl()) as made:
        yield made


def fail_over(packet: Packet, relay: Relay, redis_url: str) -> None:
    """The name of the stock leads to another server now, where the lane was rebuilt."""
    relay.far_url = redis_url
    world.wipe_redis()
    lane = packet.lanes.get()
    assert recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=None)
    assert Lane.objects.get().epoch == 2


def opened_on(client: Redis) -> Packet:
    """A packet whose stock is there too, in epoch 1."""
    packet = world.open_packet(10_000, 20)
    epoch = LaneEpoch.objects.get()
    recovery.finish_epoch(client, packet.lanes.get(), epoch)
    return packet


def test_at_the_web_door(relay: Relay, redis_url: str) -> None:
    client = Redis.from_url(relay.url)
    packet = opened_on(client)
    driver = sync.SyncDriver(client)
    assert driver.run(world.steps(packet, "alice")).result is Result.WON
    fail_over(packet, relay, redis_url)

    told = [driver.run(world.steps(packet, name)) for name in ("bob", "carol", "bob")]

    assert [outcome.result for outcome in told] == [Result.WON] * 3
    assert Lane.objects.get().epoch == 2  # nobody rebuilt what was well


def test_at_the_edge(relay: Relay, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "RENEW_AFTER_S", 0)  # its connection is young
    packet = opened_on(Redis.from_url(relay.url))
    alice, *others = [world.steps(packet, f"user{number}") for number in range(11)]

    async def crowd() -> list[Outcome]:
        driver = EdgeDriver(Pipe(address_of(relay.url)))
        try:
            assert (await driver.run(alice)).result is Result.WON
            await driver.slow(fail_over, packet, relay, redis_url)
            return await asyncio.gather(*map(driver.run, others))
        finally:
            await driver.close()

    assert [outcome.result for outcome in asyncio.run(crowd())] == [Result.WON] * 10
    assert Lane.objects.get().epoch == 2
