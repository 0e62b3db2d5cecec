"""The doors as servers: how they end, and what people get who share them with rude clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.run.services import answers
from loadtest.target import mint_token
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

# --- the end --------------------------------------------------------------------------------------

PEOPLE = 64
HELD_S = 0.1  # longer than a batch takes, and shorter than the commits wait for a lock


@pytest.fixture(scope="module")
def seeded(laisee: Copy) -> dict[str, Any]:
    drill.fresh_packet(laisee)
    found: dict[str, Any] = json.loads(laisee.manage("seed_demo"))
    return found


def ask(copy: Copy, seeded: dict[str, Any], person: int) -> http.client.HTTPConnection:
    """One person's claim, sent in full on a connection of its own; the answer isn't read yet."""
    link = http.client.HTTPConnection("127.0.0.1", copy.edge_port, timeout=15)
    # Let in by a worker before it asks: one that still stood before the door would be nobody's.
    link.request("GET", "/healthz")
    link.getresponse().read()
    token = mint_token(user=f"drain-{person}", **seeded["client_key"])
    link.request(
        "POST",
        f"/api/v1/packets/{seeded['packet']}/claims",
        body=b"{}",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    return link


def answer(link: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    with link.getresponse() as response:
        return response.status, json.loads(response.read())


def claim(copy: Copy, seeded: dict[str, Any], person: int) -> dict[str, Any]:
    """Asked until it is answered, as an app does."""
    found: dict[str, Any] = {}

    def answered() -> bool:
        try:
            status, said = answer(ask(copy, seeded, person))
        except (OSError, http.client.HTTPException):
            return False
        found.update(said)
        return status == 200 and said["result"] == "won"

    wait_until(answered, 20, "an answer of the edge")
    return found


def test_whoever_was_let_in_is_answered(laisee: Copy, seeded: dict[str, Any]) -> None:
    """The lane is held by somebody else while the requests come in, so that all of them are under
    way when the edge is told to end."""
    with drill.owner(laisee) as link, ThreadPoolExecutor(PEOPLE) as pool:
        link.execute("BEGIN")
        link.execute(
            "SELECT 1 FROM packets_lane WHERE packet_id = %s::uuid FOR UPDATE", [seeded["packet"]]
        )
        links = list(pool.map(lambda n: ask(laisee, seeded, n), range(PEOPLE)))
        drill.wait_for_somebody_blocked(link)
        os.kill(laisee.pids()["edge"], signal.SIGTERM)
        time.sleep(HELD_S)
        link.execute("ROLLBACK")
        heard = list(pool.map(answer, links))

    won = {n: said["claim"] for n, (status, said) in enumerate(heard) if status == 200}
    # Not one connection was cut; who was refused may ask again.
    assert {status for status, _ in heard} <= {200, 503}
    assert won, heard[0]
    for person in range(PEOPLE):
        again = claim(laisee, seeded, person)
        assert person not in won or again["claim"] == won[person]
    assert drill.claimed_count(laisee, seeded["packet"]) == PEOPLE


# --- rude clients ---------------------------------------------------------------------------------

IDLE = 9_000  # more than a door once let in
SLOW = 100
HALF = (
    b"POST /api/v1/packets/%s/claims HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n{"
)
DOORS = ["web", "edge"]


def port_of(copy: Copy, door: str) -> int:
    return copy.port if door == "web" else copy.edge_port


@contextlib.contextmanager
def many_sockets() -> Iterator[list[socket.socket]]:
    """Closed in the end; as many as the machine lets one process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[socket.socket] = []
    try:
        yield opened
    finally:
        for one in opened:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("door", DOORS)
def test_thousands_who_say_nothing_keep_nobody_out(
    laisee: Copy, seeded: dict[str, Any], door: str
) -> None:
    port = port_of(laisee, door)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wait_until(lambda: answers(port, "/readyz"), 20, door)
    with many_sockets() as idle:
        while len(idle) < min(IDLE, hard - 500):
            idle.append(connect(port))
        assert all(answers(port, "/healthz") for _ in range(20))
        assert claim(laisee, seeded, 1)["result"] == "won"


@pytest.mark.parametrize("door", DOORS)
def test_slow_bodies_hold_nobody_up(laisee: Copy, door: str) -> None:
    port = port_of(laisee, door)
    with many_sockets() as slow:
        for _ in range(SLOW):
            slow.append(connect(port))
            slow[-1].sendall(HALF % (b"0" * 32, 9))
        assert all(answers(port, "/readyz") for _ in range(20))


@pytest.mark.parametrize("door", DOORS)
def test_a_huge_body_is_refused_unread(laisee: Copy, door: str) -> None:
    with connect(port_of(laisee, door)) as link:
        link.sendall(HALF % (b"0" * 32, 300_000_000))
        said = link.recv(65_536)
    assert said.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("door", DOORS)
def test_garbage_ends_its_own_connection_only(laisee: Copy, door: str) -> None:
    port, before = port_of(laisee, door), laisee.pids()
    for garbage in (
        b"\x00\xff\x17 garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 500 + b"\r\n",
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ):
        with connect(port) as link:
            link.sendall(garbage)
            assert link.recv(65_536).split(b" ")[1] in (b"400", b"414", b"431"), garbage[:30]
            assert link.recv(65_536) == b""  # and it is closed
    assert answers(port, "/healthz") and laisee.pids() == before
