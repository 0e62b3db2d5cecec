"""What the drills share: a crowd beside the test, a fresh packet, and the books afterwards.

The crowd is the product's own (`python -m loadtest.crowd_run`), in processes of its own, so a drill
sees what a person at the other end of the wire sees.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from engine.run.paths import CHECKOUT
from loadtest.answers import Answer, Kind, LogTail, read_log
from tests.conftest import wait_until
from tests.private_copy import Copy
from tests.servers import FOREIGN

PORTIONS = 1_000  # of the demo's packet
TOTAL_FEN = 100_000
CROWD_TIMEOUT_S = 240.0  # a crowd of 5,000 needs about 20 s on two idle cores
RECOVERY_S = 5.0  # promised: claims flow again this long after a dependency answers again
LAG_TIMEOUT_S = 60.0  # promised: settlement has caught up


def clean_environment(copy: Copy) -> dict[str, str]:
    """This process's environment without the test servers, pointed at `copy`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith(("PYTEST", "LAISEE", "DJANGO"))
    }
    return {**kept, "DATA_DIR": str(copy.places.root)}


@dataclass
class Crowd:
    """A crowd that is under way, or over."""

    process: subprocess.Popen[bytes]
    run: str
    log: Path
    figures_file: Path
    console: Path

    def answers(self) -> list[Answer]:
        return LogTail(self.log).new_answers()

    def wins(self) -> int:
        """Distinct people who have heard a win so far."""
        return len({answer.user for answer in self.answers() if answer.won})

    def wait_for_wins(self, count: int) -> None:
        wait_until(
            lambda: self.wins() >= count or self.process.poll() is not None,
            60,
            f"{count} wins of the crowd",
        )
        assert self.process.poll() is None, f"the crowd ended early:\n{self.text()}"

    def finish(self, timeout_s: float = CROWD_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the end; the figures of the run. The exit code is `returncode`."""
        try:
            self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.terminate()
                self.process.wait(30)
        if not self.figures_file.exists():
            pytest.fail(f"the crowd left no figures:\n{self.text()}")
        figures: dict[str, Any] = json.loads(self.figures_file.read_text())
        return figures

    def text(self) -> str:
        return self.console.read_text(errors="replace")


def crowd(
    copy: Copy,
    packet: str,
    run: str,
    *,
    people: int = 0,
    ask_again: Path | None = None,
    patience_s: float = 45.0,
    in_flight: int = 100,
    door: str = "web",
) -> Crowd:
    """Start a crowd on `packet`: `people` new ones, or everybody of the log `ask_again`.

    `patience_s`: how long a person asks again where no answer is settled.
    """
    folder = copy.places.root / "crowd"
    folder.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "loadtest.crowd_run", "--run", run, "--packet", packet),
        *("--people", str(max(people, 100)), "--in-flight", str(in_flight)),
        *(("--ask-again", str(ask_again)) if ask_again is not None else ()),
    ]
    console = folder / f"{run}.console"
    figures_file = folder / f"{run}.json"
    with console.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env={
                **clean_environment(copy),
                "LAISEE_CROWD_PATIENCE_S": str(patience_s),
                "DOOR": door,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    log = ask_again or folder / f"{run}.jsonl"
    return Crowd(process, run, log, figures_file, console)


# --- the packet -----------------------------------------------------------------------------------


def shell(copy: Copy, code: str) -> str:
    """Run Python inside the product, as `manage.py shell` does."""
    return copy.manage("shell", "--no-imports", "-c", code).strip()


def packet_do(copy: Copy, action: str, packet: str) -> None:
    """`pause`, `resume` or `close` a packet by its service, as staff do."""
    shell(
        copy,
        "import uuid; from packets import services; "
        f"services.packet_{action}(packet_id=uuid.UUID({packet!r}), actor='drill', reason='drill')",
    )


def fresh_packet(copy: Copy) -> str:
    """The demo's packet of 1,000 portions, untouched."""
    packet: str = json.loads(copy.manage("seed_demo"))["packet"]
    if claimed_count(copy, packet) > 0:
        packet_do(copy, "close", packet)
        packet = json.loads(copy.manage("seed_demo"))["packet"]
    assert claimed_count(copy, packet) == 0
    return packet


def open_packet(copy: Copy, portions: int) -> str:
    """A packet of the demo's client app with so many portions, 100 fen each on the average."""
    demo = json.loads(copy.manage("seed_demo"))["packet"]
    return shell(
        copy,
        "from packets.models import Packet; from tests import world; "
        f"demo = Packet.objects.get(id={demo!r}); "
        f"made = world.open_packet({portions} * 100, {portions}, client_apps=demo.client_apps); "
        "print(made.id.hex)",
    )


# --- the books ------------------------------------------------------------------------------------


def export(copy: Copy, packet: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(packet, claims) of `manage.py export_claims`."""
    head, *claims = map(json.loads, copy.manage("export_claims", "--packet", packet).splitlines())
    return head, claims


def owner(copy: Copy) -> psycopg.Connection[Any]:
    """Postgres as its owner sees it."""
    return psycopg.connect(copy.env["MIGRATION_DATABASE_URL"], autocommit=True, connect_timeout=2)


def number(copy: Copy, query: str, *values: object) -> int:
    with owner(copy) as link:
        row = link.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


def settled_count(copy: Copy, packet: str) -> int:
    return number(
        copy,
        "SELECT sum(c.settled_count) FROM packets_lanecursor c JOIN packets_lane l"
        " ON l.id = c.lane_id WHERE l.packet_id = %s::uuid",
        packet,
    )


def claimed_count(copy: Copy, packet: str) -> int:
    return number(
        copy,
        "SELECT sum(claimed_count) FROM packets_lane WHERE packet_id = %s::uuid",
        packet,
    )


def wait_for_somebody_blocked(link: psycopg.Connection[Any]) -> None:
    """Another session waits for a lock that this one holds."""

    def blocked() -> bool:
        row = link.execute(
            "SELECT count(*) FROM pg_locks l WHERE NOT l.granted"
            " AND pg_backend_pid() = ANY (pg_blocking_pids(l.pid))"
        ).fetchone()
        return row is not None and row[0] > 0

    wait_until(blocked, 30, "a batch in its middle")


def settled_transfers(copy: Copy, packet: str) -> tuple[int, int]:
    """(transfers, fen) that settlement has made for the packet's claims."""
    with owner(copy) as link:
        row = link.execute(
            "SELECT count(*), coalesce(sum(t.amount_fen), 0) FROM packets_transfer t"
            " JOIN packets_packet p ON p.escrow_id = t.debit_account_id"
            " WHERE t.kind = 'settle' AND p.id = %s::uuid",
            [packet],
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def assert_settled_and_green(copy: Copy, packet: str, claims: int, fen: int) -> None:
    """Settlement catches up, each claim has one transfer, and every invariant holds."""
    wait_until(
        lambda: settled_count(copy, packet) >= claims, LAG_TIMEOUT_S, "the end of settlement"
    )
    assert settled_transfers(copy, packet) == (claims, fen)
    audit = copy.manage_result("audit_money")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def assert_sold_out_exactly(
    figures: dict[str, Any], code: int | None, text: str, portions: int = PORTIONS
) -> None:
    """The whole packet went to so many people, to the fen, and the crowd's log agrees with it."""
    assert code == 0, text
    assert (figures["winners"], figures["won_fen"]) == (portions, portions * 100)
    assert (figures["replays_changed"], figures["replays_unmarked"]) == (0, 0)
    verdict = figures["money"]["ledger_check"]
    assert verdict["ok"], verdict
    assert (verdict["claims"], verdict["claimed_fen"]) == (portions, portions * 100)
    assert verdict["unheard"] == 0


def totals_line(name: str, figures: dict[str, Any]) -> str:
    """What a drill prints: its totals, and the seed that replays its crowd."""
    verdict = figures["money"].get("ledger_check", {})
    return (
        f"{name}: {figures['people']} people, {figures['answers']} answers, "
        f"{figures['winners']} winners, {figures['won_fen']} fen heard; Postgres "
        f"{verdict.get('claims')} claims, {verdict.get('claimed_fen')} fen; "
        f"{figures['asked_again']} asked again, {figures['replays']} heard again, "
        f"p99 {(figures['latency_ms'] or {}).get('p99')} ms, "
        f"{figures['requests_per_s']}/s, crowd seed {figures['options']['seed']}"
    )


# --- the doors' processes -------------------------------------------------------------------------

LISTENING = "0A"  # the state of a listening socket in /proc/net/tcp


def workers(copy: Copy, door: str) -> list[int]:
    """The processes below the door's first one that hold its listening socket."""
    return workers_below(copy.pids()[door], copy.edge_port if door == "edge" else copy.port)


def workers_below(master: int, port: int) -> list[int]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{line[9]}]"
        for line in lines
        if line[3] == LISTENING and int(line[1].split(":")[1], 16) == port
    }
    return [pid for pid in _below(master) if files_of(pid) & sockets]


def _below(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_below(child)]
    return found


def files_of(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


# --- Valkey, Postgres, web ------------------------------------------------------------------------


def stock(copy: Copy) -> redis.Redis:
    """The stock of portions, as an operator reaches it."""
    return redis.Redis.from_url(
        copy.env["REDIS_URL"], socket_timeout=2, socket_connect_timeout=2, decode_responses=False
    )


def redis_answers(copy: Copy) -> bool:
    try:
        with stock(copy) as link:
            return bool(link.ping())
    except redis.RedisError:
        return False


def kill_redis_and_delete_its_data(copy: Copy) -> None:
    # Deleted first, while the server still has its files open: when it comes back, within a
    # moment, nothing is there to be loaded.
    for entry in copy.places.valkey.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    copy.kill("valkey")


def postgres_answers(copy: Copy) -> bool:
    try:
        with owner(copy) as link:
            return link.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def wait_for_new_process(copy: Copy, name: str, before: int) -> None:
    """The supervisor has started another process in the place of `before`."""

    def replaced() -> bool:
        return copy.pids().get(name, before) != before

    wait_until(replaced, 30, f"{name}'s new process")


def when_true(condition: Callable[[], bool], what: str) -> float:
    """Unix seconds at which `condition` was first seen to hold."""
    wait_until(condition, 30, what)
    return time.time()


def first_new_win_after(log: Path, moment: float) -> float | None:
    """Unix seconds of the first win after `moment` by somebody who had not heard one before."""
    heard: set[str] = set()
    for answer in read_log(log):
        if answer.won and answer.user not in heard:
            heard.add(answer.user)
            if answer.at > moment and answer.kind is not Kind.AGAIN:
                return answer.at
    return None
