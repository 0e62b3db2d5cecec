"""A dependency dies with −9 in the middle of the crowd: no answered win is lost, none is doubled.

Each drill kills one process while hundreds of claims are under way, notes when it answers again,
and holds the crowd's log against Postgres at the end.
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

PEOPLE = 2_000
WINS_BEFORE_THE_FAULT = 200  # of 1,000: enough has happened, and enough is left to see it go on


def kill_redis_and_delete_its_data(laisee: Copy) -> None:
    # Deleted first, while the server still has its files open: when it comes back, within a
    # moment, nothing is there to be loaded.
    for entry in laisee.places.valkey.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    laisee.kill("valkey")


def web_answers(laisee: Copy) -> bool:
    try:
        with urllib.request.urlopen(f"{laisee.base_url}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


Faults = dict[str, tuple[Callable[[Copy], object], Callable[[Copy], bool], str]]
FAULTS: Faults = {
    "redis": (kill_redis_and_delete_its_data, drill.redis_answers, "valkey"),
    "postgres": (lambda copy: copy.kill("postgres"), drill.postgres_answers, "postgres"),
    "web": (lambda copy: copy.kill("web"), web_answers, "web"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_answered_win_survives(laisee: Copy, name: str) -> None:
    fault, answers, process = FAULTS[name]
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, f"kill-{name}", people=PEOPLE)
    crowd.wait_for_wins(WINS_BEFORE_THE_FAULT)
    before = laisee.pids()[process]

    fault(laisee)
    drill.wait_for_new_process(laisee, process, before)
    answered_at = drill.when_true(lambda: answers(laisee), f"an answer of {name}")

    figures = crowd.finish()
    print(drill.totals_line(f"kill {name}", figures))
    flowing_at = drill.first_new_win_after(crowd.log, answered_at)
    assert flowing_at is not None, "nobody won after the fault: the drill came too late"
    print(f"kill {name}: claims flowed again {flowing_at - answered_at:.2f} s after it answered")
    assert flowing_at - answered_at <= drill.RECOVERY_S
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    drill.assert_settled_and_green(laisee, packet, drill.PORTIONS, drill.TOTAL_FEN)


def test_redis_really_lost_its_data(laisee: Copy) -> None:
    """The drill above is worth something only if the stock was gone: the lane is in a new epoch."""
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, "kill-redis-again", people=PEOPLE)
    crowd.wait_for_wins(WINS_BEFORE_THE_FAULT)
    kill_redis_and_delete_its_data(laisee)
    figures = crowd.finish()
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    epochs = {claim["epoch"] for claim in drill.export(laisee, packet)[1]}
    assert min(epochs) == 1
    assert max(epochs) >= 2
    print(drill.totals_line("lose redis", figures), f"epochs {sorted(epochs)}")


def test_a_worker_killed_while_it_settles_loses_and_doubles_nothing(laisee: Copy) -> None:
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, "kill-worker", people=PEOPLE)
    kills = 0
    # While claims come in, settlement is always in the middle of something: kill it three times.
    for wins in (200, 400, 600):
        crowd.wait_for_wins(wins)
        before = laisee.kill("worker")
        drill.wait_for_new_process(laisee, "worker", before)
        kills += 1
    settled_at_the_last_kill = drill.settled_count(laisee, packet)
    figures = crowd.finish()
    print(drill.totals_line("kill worker", figures))
    print(f"kill worker: {kills} kills, {settled_at_the_last_kill} claims settled at the last one")
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    drill.assert_settled_and_green(laisee, packet, drill.PORTIONS, drill.TOTAL_FEN)
