"""A dependency dies with −9 in the middle of the crowd: no answered win is lost, none is doubled.

Each drill kills one process while hundreds of claims are under way, notes when it answers again,
and holds the crowd's log against Postgres at the end.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

PEOPLE = 800
PORTIONS = 500
WINS_BEFORE_THE_FAULT = 100  # enough has happened, and enough is left to see it go on


def web_answers(laisee: Copy) -> bool:
    try:
        with urllib.request.urlopen(f"{laisee.base_url}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


Faults = dict[str, tuple[Callable[[Copy], object], Callable[[Copy], bool], str]]
FAULTS: Faults = {
    "redis": (drill.kill_redis_and_delete_its_data, drill.redis_answers, "valkey"),
    "postgres": (lambda copy: copy.kill("postgres"), drill.postgres_answers, "postgres"),
    "web": (lambda copy: copy.kill("web"), web_answers, "web"),
}


@pytest.mark.parametrize(
    "name", ["redis", "postgres", pytest.param("web", marks=pytest.mark.nightly)]
)
def test_every_answered_win_survives(laisee: Copy, name: str) -> None:
    fault, answers, process = FAULTS[name]
    packet = drill.open_packet(laisee, PORTIONS)
    crowd = drill.crowd(laisee, packet, f"kill-{name}", people=PEOPLE)
    crowd.wait_for_wins(WINS_BEFORE_THE_FAULT)
    before = laisee.pids()[process]

    fault(laisee)
    # Claims go on without Redis: nobody has to wait for its answer.
    answered_at = time.time()
    drill.wait_for_new_process(laisee, process, before)
    if name != "redis":
        answered_at = drill.when_true(lambda: answers(laisee), f"an answer of {name}")

    figures = crowd.finish()
    print(drill.totals_line(f"kill {name}", figures))
    flowing_at = drill.first_new_win_after(crowd.log, answered_at)
    assert flowing_at is not None, "nobody won after the fault: the drill came too late"
    print(f"kill {name}: claims flowed again {flowing_at - answered_at:.2f} s after it answered")
    assert flowing_at - answered_at <= drill.RECOVERY_S
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text(), PORTIONS)
    drill.assert_settled_and_green(laisee, packet, PORTIONS, PORTIONS * 100)
    if name == "redis":
        # The stock was really gone: the lane went on in a new epoch.
        epochs = {claim["epoch"] for claim in drill.export(laisee, packet)[1]}
        assert (min(epochs), max(epochs) > 1) == (1, True), epochs


def test_a_worker_killed_while_it_settles_loses_and_doubles_nothing(laisee: Copy) -> None:
    """Killed inside a batch: its transfers wait for the escrow's row, which the test holds."""
    packet = drill.open_packet(laisee, PORTIONS)
    crowd = drill.crowd(laisee, packet, "kill-worker", people=PEOPLE)
    wait_until(lambda: drill.settled_count(laisee, packet) > 0, 30, "the first settlement")
    for round_number in (1, 2, 3):
        # The next worker needs a second to start, so the test has the row again before it.
        with drill.owner(laisee) as link, link.transaction():
            link.execute(
                "SELECT a.id FROM packets_account a JOIN packets_packet p ON p.escrow_id = a.id"
                " WHERE p.id = %s::uuid FOR UPDATE OF a",
                [packet],
            )
            drill.wait_for_somebody_blocked(link)
            before = laisee.kill("worker")
            settled = drill.settled_count(laisee, packet)
            claimed = drill.claimed_count(laisee, packet)
        print(f"kill {round_number}: inside a batch, {settled} of {claimed} claims settled")
        assert 0 < settled < claimed
        drill.wait_for_new_process(laisee, "worker", before)
    figures = crowd.finish()
    print(drill.totals_line("kill worker", figures))
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text(), PORTIONS)
    drill.assert_settled_and_green(laisee, packet, PORTIONS, PORTIONS * 100)
