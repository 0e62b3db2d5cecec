"""One hot packet, 256 in flight at the edge, and −9 twenty times at random moments.

A kill comes some wins after the last one's victim has answered again, so all of them lie inside a
crowd however slow the machine is; where it is fast, a second crowd comes on a second packet. At the
end of each its own log is held against Postgres row by row, and people ask once more.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from engine.run import services
from loadtest.answers import Kind, LogTail, read_log
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.nightly, pytest.mark.timeout(1500)]

KILLS = 20
PORTIONS = 50_000  # of one packet in one lane
PEOPLE = 52_000
IN_FLIGHT = 256
WINS_BETWEEN = 1_500  # at most, from one kill to the next
LAST_KILL_AT = PORTIONS - 15_000  # later, the packet may be gone before the victim is back
CROWD_TIMEOUT_S = 1200.0


@dataclass(frozen=True)
class Fault:
    """`kill` returns what was killed; `back` says whether it is there again, and answers."""

    kill: Callable[[Copy, random.Random], str]
    back: Callable[[Copy], bool]


def kill_redis(copy: Copy, dice: random.Random) -> str:
    drill.kill_redis_and_delete_its_data(copy)
    return "valkey"


def kill_postgres(copy: Copy, dice: random.Random) -> str:
    copy.kill("postgres")
    return "postgres"


def kill_edge(copy: Copy, dice: random.Random) -> str:
    """One of the two, or now and then the process above them, which takes both along."""
    victim = dice.choice([*drill.workers(copy, "edge"), copy.pids()["edge"]])
    os.kill(victim, signal.SIGKILL)
    return "all of it" if victim == copy.pids()["edge"] else "one of two"


def edges_answer(copy: Copy) -> bool:
    try:
        there = len(drill.workers(copy, "edge"))
    except (KeyError, FileNotFoundError, ProcessLookupError):  # gone, or being written down
        return False
    return there == services.EDGE_WORKERS and services.answers(copy.edge_port, "/healthz")


FAULTS = {
    "redis": Fault(kill_redis, drill.redis_answers),
    "edge": Fault(kill_edge, edges_answer),
    "postgres": Fault(kill_postgres, drill.postgres_answers),
}


class Winners:
    """How many distinct people have heard a win so far, from a log that grows."""

    def __init__(self, log: Path) -> None:
        self._tail = LogTail(log)
        self._heard: set[str] = set()

    def count(self) -> int:
        self._heard.update(answer.user for answer in self._tail.new_answers() if answer.won)
        return len(self._heard)


def first_wins(log: Path) -> list[float]:
    """When each winner first heard of it, in order."""
    first: dict[str, float] = {}
    for answer in read_log(log):
        if answer.won and answer.kind is not Kind.AGAIN:
            first.setdefault(answer.user, answer.at)
    return sorted(first.values())


def kill_at_random(
    copy: Copy, crowd: drill.Crowd, fault: Fault, dice: random.Random, at_most: int
) -> list[float]:
    """When the dependency answered again, after each of the kills."""
    winners, back_at = Winners(crowd.log), list[float]()
    while len(back_at) < at_most and winners.count() < LAST_KILL_AT:
        due = winners.count() + dice.randrange(1, WINS_BETWEEN)

        def enough(due: int = due) -> bool:
            return winners.count() >= due or crowd.process.poll() is not None

        wait_until(enough, 120, f"{due} wins")
        assert crowd.process.poll() is None, crowd.text()
        before, killed_at = copy.pids(), time.time()
        what = fault.kill(copy, dice)
        if what in before:
            drill.wait_for_new_process(copy, what, before[what])
        wait_until(lambda: fault.back(copy), 60, f"an answer after {what} was killed")
        back_at.append(time.time())
        took = back_at[-1] - killed_at
        print(
            f"  {what} after {due} wins, there again {took:.2f} s and {winners.count()} wins later"
        )
    return back_at


@pytest.mark.parametrize("name", FAULTS)
def test_twenty_kills_lose_and_change_no_answered_win(laisee: Copy, name: str) -> None:
    seed = int(os.environ.get("LAISEE_KILL_SEED") or secrets.randbelow(10**6))
    dice, crowds = random.Random(seed), 0
    waits, pauses = list[float](), list[float]()
    print(f"\nkill {name} {KILLS} times (LAISEE_KILL_SEED={seed})")
    while len(waits) < KILLS:
        crowds += 1
        packet, run = drill.open_packet(laisee, PORTIONS), f"often-{name}-{crowds}"
        crowd = drill.crowd(laisee, packet, run, people=PEOPLE, in_flight=IN_FLIGHT, door="edge")
        back_at = kill_at_random(laisee, crowd, FAULTS[name], dice, KILLS - len(waits))
        figures = crowd.finish(CROWD_TIMEOUT_S)
        print(drill.totals_line(f"kill {name} x {len(back_at)}", figures))
        won_at = first_wins(crowd.log)
        waits += [next(at for at in won_at if at > back) - back for back in back_at]
        pauses.append(max(after - before for before, after in pairwise(won_at)))
        drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text(), PORTIONS)
        drill.assert_settled_and_green(laisee, packet, PORTIONS, PORTIONS * 100)
    print(
        f"kill {name}: claims again at the latest {max(waits):.2f} s after it answered,"
        f" the longest time without a win {max(pauses):.2f} s"
    )
    assert max(waits) <= drill.RECOVERY_S, waits
