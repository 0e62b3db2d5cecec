"""The drill itself: an open crowd, and a verdict that can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.run.paths import CHECKOUT
from loadtest.judging import answers_of
from loadtest.proxy import Proxy, Weather
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy
from tests.servers import FOREIGN

pytestmark = [pytest.mark.fault, pytest.mark.nightly, pytest.mark.timeout(300)]

FROZEN_S = 2.0
OWN_COPY = "own"


def start(copy: Copy, run: str, *arguments: str, host: str = "") -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return subprocess.Popen(
        [sys.executable, "-m", "loadtest.drill_run", "--run", run, *arguments],
        cwd=CHECKOUT,
        env={
            **{k: v for k, v in kept.items() if not k.startswith(("PYTEST", "LAISEE", "DJANGO"))},
            "DATA_DIR": str(copy.places.root),
            "HOST": "" if host == OWN_COPY else host or copy.base_url,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def folder(copy: Copy, run: str) -> Path:
    return copy.places.root / "drill" / run


def result(copy: Copy, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(copy, run) / "result.json").read_text())
    return found


def broken(found: dict[str, Any], group: str) -> list[str]:
    return [c["name"] for c in found["checks"] if c["group"] == group and not c["holds"]]


def door_processes(copy: Copy) -> list[int]:
    master = copy.pids()["web"]
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def test_a_frozen_server_is_seen_by_everybody_who_came_meanwhile(laisee: Copy) -> None:
    """A crowd that waits for answers would see two seconds once for each of its hands."""
    process = start(laisee, "frozen", "--drill", "steady", "--peak", "30")
    begins = folder(laisee, "frozen") / "begins_at"
    wait_until(begins.exists, 60, "the beginning")
    time.sleep(max(0.0, float(begins.read_text()) + 8 - time.time()))
    frozen = door_processes(laisee)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=200)

    found = result(laisee, "frozen")
    assert broken(found, "slo") == ["claims p99"], output
    assert process.returncode == 3
    seconds = found["seconds"]
    assert max(second["p100_ms"] for second in seconds) >= 1_900
    [line] = [check for check in found["checks"] if check["name"] == "claims p99"]
    assert float(line["value"].split()[0]) >= 1_500
    assert found["achieved"] >= 0.95 * found["target"]
    assert broken(found, "money") == broken(found, "errors") == []


def test_a_claim_whose_amount_was_changed_turns_the_verdict_red(laisee: Copy) -> None:
    process = start(laisee, "changed", "--drill", "steady", "--peak", "20", "--length", "5")
    output, _ = process.communicate(timeout=200)
    assert broken(result(laisee, "changed"), "money") == [], output
    packet = result(laisee, "changed")["packets"][0]
    claim = drill.export(laisee, packet)[1][0]
    with drill.owner(laisee) as link:
        # As somebody with all rights would: past every trigger.
        link.execute("ALTER TABLE packets_claim DISABLE TRIGGER USER")
        change = "UPDATE packets_claim SET amount_fen = amount_fen %s WHERE id = %%s::uuid"
        link.execute((change % "+ 1").encode(), [claim["claim"]])
        try:
            again = start(laisee, "changed", "--judge", "changed")
            output, _ = again.communicate(timeout=200)
        finally:
            link.execute((change % "- 1").encode(), [claim["claim"]])
            link.execute("ALTER TABLE packets_claim ENABLE TRIGGER USER")
    assert again.returncode == 4, output
    assert claim["claim"] in output
    assert "the amount that was answered is not the one in Postgres" in output


def test_a_delay_on_the_hot_route_is_a_breach_that_is_named(laisee: Copy) -> None:
    """Nobody told the drill of it, so nothing excuses it."""
    with Proxy(lambda: ("127.0.0.1", laisee.port)) as proxy:
        proxy.weather = Weather(delay_s=0.3)
        host = f"http://127.0.0.1:{proxy.port}"
        arguments = ("--drill", "steady", "--peak", "20", "--length", "8")
        output, _ = start(laisee, "slow", *arguments, host=host).communicate(timeout=200)
    found = result(laisee, "slow")
    assert broken(found, "slo") == ["claims p99"], output
    assert broken(found, "money") == broken(found, "errors") == []
    assert found["seconds"][-1]["p50_ms"] >= 300
    assert "claims p99" in output


def own(copy: Copy, run: str, *arguments: str) -> tuple[int, str]:
    """A drill with faults, on a copy that it starts itself below this one's data."""
    process = start(copy, run, *arguments, host=OWN_COPY)
    output, _ = process.communicate(timeout=280)
    return process.returncode, output


@pytest.mark.timeout(600)
def test_lost_servers_in_the_middle_harm_no_money_and_are_recovered_from(laisee: Copy) -> None:
    faults = "lose_redis@6,kill_postgres@14"
    arguments = ("--drill", "steady", "--peak", "40", "--length", "35", "--faults", faults)
    _, output = own(laisee, "lost", *arguments)
    found = result(laisee, "lost")
    assert broken(found, "money") == broken(found, "errors") == [], output
    assert [fault["name"] for fault in found["faults"]] == ["lose_redis", "kill_postgres"]
    assert all(one["after_s"] is not None and one["after_s"] <= 5 for one in found["recoveries"])


@pytest.mark.timeout(600)
def test_what_lasts_is_felt_and_ends(laisee: Copy) -> None:
    faults = (
        "slow_disk@1+5:delay=100ms,payout_outage@7+12,slow_network@9+3:on=postgres:delay=40ms,"
        "slow_network@14+3:delay=200ms:cut=5%,slow_network@21+4:on=redis:delay=80ms"
    )
    arguments = ("--drill", "rain", "--peak", "200", "--length", "28", "--faults", faults)
    _, output = own(laisee, "lasting", *arguments)
    found = result(laisee, "lasting")
    assert broken(found, "money") == [], output
    assert not [name for name in broken(found, "slo") if name.startswith("recovery")], output
    assert len(found["faults"]) == 5 and all(fault["back_at"] for fault in found["faults"])

    def first_wins_ms(packet: int, begin: float, end: float) -> list[float]:
        """In order; a win that is only told again waits for nothing."""
        return sorted(
            answer.latency_ms
            for answer in answers_of(folder(laisee, "lasting"), packet)
            if answer.won and not answer.replayed and answer.attempt == 1
            and begin <= (answer.scheduled_at or 0) - found["begins_at"] < end
        )  # fmt: skip

    # The flush that a win waits for began later; who came while one was waiting went with it.
    slow_disk = first_wins_ms(1, 2, 5)
    assert len(slow_disk) > 5 and slow_disk[len(slow_disk) // 2] >= 50
    # Nobody wins without Redis having been asked.
    slow_redis = first_wins_ms(2, 22, 24)
    assert len(slow_redis) > 5 and slow_redis[0] >= 80
    seconds = found["seconds"]
    assert max(second["p100_ms"] for second in seconds[9:11]) >= 40  # views ask Postgres
    assert seconds[15]["p50_ms"] >= 200
    assert sum(second["results"].get("no_answer", 0) for second in seconds[14:18]) > 0


def test_a_door_that_is_not_there_is_an_error(laisee: Copy) -> None:
    nobody = "http://127.0.0.1:9"
    arguments = ("--drill", "steady", "--peak", "10", "--length", "2", "--patience", "1")
    process = start(laisee, "nobody", *arguments, host=nobody)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    assert "errors" in broken(result(laisee, "nobody"), "errors")
    assert broken(result(laisee, "nobody"), "money") == []
