"""Postgres has ended and begun again: at the edge, threads that no request begins and ends in."""

from __future__ import annotations

import asyncio
import threading

import psycopg
import pytest
from django.db import connection

from packets.claiming import edge, sync, winners
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import MayHaveWon, Unavailable
from packets.claiming.pipe import Pipe, address_of
from tests import world

pytestmark = pytest.mark.django_db(transaction=True)

QUESTIONS = 4 * edge.SLOW_THREADS  # of each person: every thread has its turn, several times


def cut_everybody(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as link:
        link.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name = 'laisee'"
        )


async def connect_all(driver: EdgeDriver) -> None:
    """Every slow thread has a connection of its own, from some earlier work."""
    together = threading.Barrier(edge.SLOW_THREADS)

    def connect() -> None:
        together.wait(10)
        connection.ensure_connection()

    connected = [driver.slow_threads.submit(connect) for _ in range(edge.SLOW_THREADS)]
    await asyncio.gather(*map(asyncio.wrap_future, connected))


def test_a_connection_that_was_cut_costs_one_503(superuser_dsn: str) -> None:
    """One for each thread, and then never again: none keeps what was cut."""
    packet = world.open_packet(100, 1)
    assert world.claim(packet, "alice").claim is not None
    asked = [MayHaveWon(world.slot_of(packet, name)) for name in ("alice", "bob")]

    async def story() -> list[bool | None]:
        driver = EdgeDriver(Pipe(address_of(sync.settings.REDIS_URL)))
        heard: list[bool | None] = []
        try:
            await connect_all(driver)
            cut_everybody(superuser_dsn)
            for _ in range(QUESTIONS):
                winners.forget()
                for effect in asked:
                    try:
                        heard.append(await driver.perform(effect))
                    except Unavailable:
                        heard.append(None)
        finally:
            await driver.close()
        return heard

    heard = asyncio.run(story())
    assert heard.count(None) <= edge.SLOW_THREADS
    assert set(heard[0::2]) <= {True, None} and set(heard[1::2]) <= {False, None}
