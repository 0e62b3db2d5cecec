"""One small packet a seed, on servers that all seeds share; and the faults that can befall it."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import redis
from django.conf import settings
from django.db import connection

from engine.lib.auth import Caller
from packets import rebalancing, services, stock, tickets
from packets.claiming import winners
from packets.claiming.journal import Journal
from packets.models import Gate, Packet
from tests import world as stage
from tests.simulator.driver import Committer, Process
from tests.simulator.links import MASTER, OLD_MASTER, Link

PROCESSES = 3
FUNDS_FEN = 10**12


@dataclass
class Base:
    """What the seeds of a run share."""

    funder: Any
    gate: Gate
    journal: Journal
    processes: list[Process]
    staff: Link
    servers: dict[int, redis.Redis]


@contextmanager
def base() -> Iterator[Base]:
    url = settings.REDIS_URL
    journal = Journal()
    links = [Link(url) for _ in range(PROCESSES + 1)]
    processes = [Process(client=link, committer=Committer(journal)) for link in links[1:]]
    servers = {db: redis.Redis.from_url(url, db=db) for db in (MASTER, OLD_MASTER)}
    made = Base(stage.funder(FUNDS_FEN), stage.gate(), journal, processes, links[0], servers)
    try:
        # The scheduler decides when moves are made: no time has to pass between them.
        with mock.patch.object(rebalancing, "BETWEEN_S", 0.0):
            yield made
    finally:
        journal.close()
        for client in (*links, *servers.values()):
            client.close()


@dataclass
class World:
    """A seed's packet, its people, and its Redis: a master, a snapshot, perhaps an old master."""

    base: Base
    rng: random.Random
    packet: Packet
    callers: list[Caller]
    tickets: dict[tuple[int, int], str] = field(default_factory=dict)
    snapshot: dict[bytes, bytes] = field(default_factory=dict)
    slow: list[tuple[Any, Any]] = field(default_factory=list)  # loaders that haven't loaded yet

    @property
    def lane_ids(self) -> list[int]:
        return list(self.packet.lanes.order_by("number").values_list("id", flat=True))

    # --- Redis ------------------------------------------------------------------------------------

    def keys(self, server: redis.Redis) -> list[bytes]:
        return sorted(server.scan_iter(f"*{self.packet.id.hex}*", count=1_000))

    def dump(self, database: int = MASTER) -> dict[bytes, bytes]:
        server = self.base.servers[database]
        return {key: server.dump(key) for key in self.keys(server)}

    def restore(self, copy: dict[bytes, bytes], database: int = MASTER) -> None:
        server = self.base.servers[database]
        if old := self.keys(server):
            server.delete(*old)
        for key, value in copy.items():
            server.restore(key, 0, value)

    # --- time -------------------------------------------------------------------------------------

    def leases_end(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE packets_lane SET loader_until = loader_until - interval '1 hour',"
                " direct_until = direct_until - interval '1 hour' WHERE packet_id = %s",
                [self.packet.id],
            )

    def window_ends(self, ago_s: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE packets_packet SET closes_at ="
                " clock_timestamp() - make_interval(secs => %s) WHERE id = %s",
                [ago_s, self.packet.id],
            )
        for server in self.base.servers.values():
            for number in range(self.packet.lane_count):
                if server.exists(key := stock.meta_key(self.packet.id, number)):
                    server.hset(key, "closes_ms", 1)

    def moves_age(self) -> None:
        """Whoever waited for a portion and didn't come back has left."""
        names = rebalancing.wanted_key(self.packet.id), rebalancing.served_key(self.packet.id)
        self.base.servers[MASTER].delete(*names)

    def watches_age(self) -> None:
        """Ten minutes pass for whoever watches a gap in the reservations."""
        server = self.base.servers[MASTER]
        for number in range(self.packet.lane_count):
            key = stock.meta_key(self.packet.id, number)
            if int(server.hget(key, "watch_ms") or 0):
                server.hincrby(key, "watch_ms", -600_000)


def make(base: Base, seed: int) -> World:
    """The packet of a seed. Only amounts and ids differ when a seed is run again."""
    rng = random.Random(seed)
    lanes = rng.choice((1, 1, 2, 3))
    count = lanes + rng.randint(1, 4)
    needs_ticket = rng.random() < 0.25
    with mock.patch.object(services, "secrets") as drawn:
        drawn.token_bytes.side_effect = rng.randbytes
        now = dt.datetime.now(dt.UTC)
        packet = services.packet_create(
            funder=base.funder,
            gate=base.gate,
            total_fen=count * rng.randint(2, 60),
            count=count,
            strategy=rng.choice(("lucky", "fixed", "double_mean")),
            lane_count=lanes,
            opens_at=now - dt.timedelta(minutes=1),
            closes_at=now + dt.timedelta(hours=1),
            client_apps=[stage.APP],
            needs_ticket=needs_ticket,
        )
        services.packet_open(packet_id=packet.id, actor="simulator")
    callers = [stage.person(f"s{seed}-{i}") for i in range(rng.randint(2, 8))]
    world = World(base, rng, Packet.objects.get(id=packet.id), callers)
    if needs_ticket:
        for i, caller in enumerate(callers):
            for serial in range(1, rng.randint(1, 2) + 1):
                world.tickets[i, serial] = tickets.ticket_issue(
                    packet_id=packet.id,
                    client_app_id=caller.client_app_id,
                    subject=caller.subject,
                    key=uuid.uuid4().hex,
                    reason="simulated",
                )
    winners.forget()
    for process in base.processes:
        process.forget()
        process.client.wire.away, process.client.wire.fate = False, ""
        process.client.lead_to(MASTER)
    base.staff.wire.fate = ""
    world.snapshot = world.dump()
    return world
