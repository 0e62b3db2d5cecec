"""An edge that is told to end answers everybody whom it has let in.

The lane is held by somebody else while the requests come in, so that all of them are under way at
the moment of the signal.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loadtest.target import mint_token
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

PEOPLE = 64
HELD_S = 0.1  # longer than a batch takes, and shorter than the commits wait for a lock


@pytest.fixture
def seeded(laisee: Copy) -> dict[str, Any]:
    drill.fresh_packet(laisee)
    found: dict[str, Any] = json.loads(laisee.manage("seed_demo"))
    return found


def ask(copy: Copy, seeded: dict[str, Any], person: int) -> http.client.HTTPConnection:
    """One person's claim, sent in full on a connection of its own; the answer isn't read yet."""
    link = http.client.HTTPConnection("127.0.0.1", copy.edge_port, timeout=15)
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
        answers = list(pool.map(answer, links))

    won = {n: said["claim"] for n, (status, said) in enumerate(answers) if status == 200}
    # Not one connection was cut; who was refused may ask again.
    assert {status for status, _ in answers} <= {200, 503}
    assert won, answers[0]
    for person in range(PEOPLE):
        again = claim(laisee, seeded, person)
        assert person not in won or again["claim"] == won[person]
    assert drill.claimed_count(laisee, seeded["packet"]) == PEOPLE
