"""What people get while rude clients are about: the p99 moves by no more than half.

Rounds with and without the rude ones take turns, and the medians are compared, so that whatever
else this machine does falls on both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.run.paths import CHECKOUT
from loadtest.bench import client
from loadtest.target import mint_token
from tests.faults import drill, rude
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.nightly, pytest.mark.timeout(600)]

ROUNDS = 5  # of each
ROUND_S = 6.0
PEOPLE = 200
IN_FLIGHT = 8  # people who are served at once: enough to see, too few to be the load themselves
MOVES_AT_MOST = 1.5


def orders(copy: Copy) -> client.Order:
    """Winners who ask again: Redis answers, through everything that a claim goes through."""
    seeded = json.loads(copy.manage("seed_demo"))
    packet = drill.open_packet(copy, PEOPLE)
    requests = []
    for number in range(PEOPLE):
        token = mint_token(user=f"polite-{number}", **seeded["client_key"])
        requests.append(
            (
                f"POST /api/v1/packets/{packet}/claims HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
                "content-length: 2\r\n\r\n{}"
            ).encode()
        )
    return client.Order("127.0.0.1", copy.edge_port, requests, IN_FLIGHT, ROUND_S, repeat=True)


@contextmanager
def rude_clients(port: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.rude", str(port)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None
    finally:
        process.communicate(timeout=30)


def p99_ms(order: client.Order) -> float:
    heard = client.send(order)
    assert set(heard.status) == {200} and heard.unanswered == 0
    assert all(b'"won"' in body for body in heard.body)
    return statistics.quantiles(heard.latency_s, n=100)[98] * 1000


def test_rude_clients_move_the_p99_of_others_by_no_more_than_half(laisee: Copy) -> None:
    order = orders(laisee)
    p99_ms(order)  # everybody wins, and what is slow the first time is over
    quiet, loud = [], []
    for _ in range(ROUNDS):
        quiet.append(p99_ms(order))
        with rude_clients(laisee.edge_port):
            loud.append(p99_ms(order))
    moved = statistics.median(loud) / statistics.median(quiet)
    print(
        f"\nrude: {rude.IDLE} idle, {rude.HALF} half heads, {rude.SLOW} slow bodies, "
        f"{rude.GARBAGE}/s garbage, {rude.HUGE}/s huge; p99 of {IN_FLIGHT} in flight "
        f"{statistics.median(quiet):.2f} ms without, {statistics.median(loud):.2f} ms with: "
        f"x {moved:.2f}\n  without {sorted(quiet)}\n  with {sorted(loud)}"
    )
    assert moved <= MOVES_AT_MOST
