"""Stopping acts on the very next claim at every process of both doors, and letting go does too.

Each process is asked over a connection that it is known to hold (by /proc), kept from before the
stop: nobody can have been lucky with who answered.
"""

from __future__ import annotations

import http.client
import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.run.services import EDGE_WORKERS, WEB_WORKERS
from tests.browser.crowd import Crowd
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

DOORS = {"web": WEB_WORKERS, "edge": EDGE_WORKERS}
MOST_KNOCKS = 40  # the kernel spreads connections by their ports; that 40 all meet one: 2 in 10^12
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def demo(laisee: Copy) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(laisee.manage("seed_demo"))
    return found


@pytest.fixture
def crowd(laisee: Copy, demo: dict[str, Any]) -> Crowd:
    return Crowd(laisee, demo["client_key"]["kid"], demo["client_key"]["secret"])


def claim(crowd: Crowd, link: http.client.HTTPConnection, packet: str) -> str:
    """Somebody new claims over this connection; the result."""
    link.request(
        "POST",
        f"/api/v1/packets/{packet}/claims",
        body=b"{}",
        headers={
            "Authorization": f"Bearer {crowd._token(f'knocker-{next(_numbers)}')}",
            "Content-Type": "application/json",
        },
    )
    return str(json.loads(link.getresponse().read())["result"])


def holder(link: http.client.HTTPConnection, pids: list[int]) -> int:
    """The process at the other end of the connection."""
    mine, theirs = link.sock.getsockname()[1], link.sock.getpeername()[1]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{line[9]}]"
        for line in lines
        if [int(end.split(":")[1], 16) for end in line[1:3]] == [theirs, mine]
    }
    return next(pid for pid in pids if drill.files_of(pid) & sockets)


def connections(crowd: Crowd, packet: str) -> dict[str, list[http.client.HTTPConnection]]:
    """One connection to each process of each door, over which somebody has won already."""
    found: dict[str, list[http.client.HTTPConnection]] = {}
    for door, expected in DOORS.items():
        url = urlsplit(crowd.copy.edge_url if door == "edge" else crowd.copy.base_url)
        pids = drill.workers(crowd.copy, door)
        assert len(pids) == expected, (door, pids)
        held: dict[int, http.client.HTTPConnection] = {}
        for _knock in range(MOST_KNOCKS):
            link = http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)
            assert claim(crowd, link, packet) == "won"
            if held.setdefault(holder(link, pids), link) is not link:
                link.close()
            if len(held) == expected:
                break
        assert len(held) == expected, (door, held)
        found[door] = list(held.values())
    return found


def everywhere(result: str) -> dict[str, list[str]]:
    return {door: [result] * count for door, count in DOORS.items()}


@pytest.mark.parametrize("which", ["all", "one campaign"])
def test_the_kill_switch_acts_on_the_next_claim_of_every_process(
    which: str, demo: dict[str, Any], crowd: Crowd
) -> None:
    packet = demo["packet"]
    extra = ["--campaign", demo["campaign"]] if which == "one campaign" else []
    links = connections(crowd, packet)  # each process has seen the packet open

    def next_claims() -> dict[str, list[str]]:
        return {door: [claim(crowd, link, packet) for link in links[door]] for door in DOORS}

    crowd.copy.manage("kill_switch", "on", "--reason", "drill", *extra)
    stopped = next_claims()
    crowd.copy.manage("kill_switch", "off", *extra)
    again = next_claims()

    assert stopped == everywhere("paused")
    assert again == everywhere("won")
