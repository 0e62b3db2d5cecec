"""What goes wrong in the middle of a drill, at stated seconds: `kill_redis@60,kill_postgres@120`.

Faults act on the copy that the drill started, through the pids it leaves in `DATA_DIR/run`; its
supervisor starts again what was killed. A fault is over when the dependency itself answers again;
from then on the recovery of the claims is measured (`loadtest.verdict`).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from loadtest.target import TargetProblem, read_env_file
from loadtest.verdict import Fault

LOOK_EVERY_S = 0.02
BACK_PATIENCE_S = 60.0  # a dependency that isn't back by then never came back
PROBE_TIMEOUT_S = 1
WANTED = re.compile(r"([a-z_]+)@([0-9]+(?:\.[0-9]+)?)\Z")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`at_s`: seconds after the drill's beginning."""

    name: str
    at_s: float


class System:
    """The drill's own copy, as far as faults reach into it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    @property
    def env(self) -> Mapping[str, str]:
        return read_env_file(self.data_dir / "run" / "env")

    def pid(self, name: str) -> int:
        return int((self.data_dir / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)


def _redis_answers(system: System) -> bool:
    try:
        with redis.Redis.from_url(
            system.env["REDIS_URL"],
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
        ) as link:
            return bool(link.ping())
    except redis.RedisError:
        return False


def _postgres_answers(system: System) -> bool:
    try:
        with psycopg.connect(system.env["DATABASE_URL"], connect_timeout=PROBE_TIMEOUT_S) as link:
            return link.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def _lose_redis(system: System) -> None:
    # Deleted first, while the server still has its files open: when it comes back, within a
    # moment, nothing is there to be loaded.
    for entry in (system.data_dir / "valkey").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    system.kill("valkey")


def _kill(*names: str) -> Callable[[System], None]:
    def act(system: System) -> None:
        for name in names:
            system.kill(name)

    return act


@dataclass(frozen=True, slots=True)
class Kind:
    """`process`: whose pid changes; `answers`: whether the dependency is back, beyond its pid."""

    act: Callable[[System], None]
    process: str
    answers: Callable[[System], bool]
    meaning: str


KINDS: dict[str, Kind] = {
    "kill_redis": Kind(_kill("valkey"), "valkey", _redis_answers, "kill -9; it loads its file"),
    "lose_redis": Kind(_lose_redis, "valkey", _redis_answers, "kill -9, and its files are gone"),
    "kill_postgres": Kind(_kill("postgres"), "postgres", _postgres_answers, "kill -9"),
    "kill_workers": Kind(
        _kill("worker", "payouts", "webhooks"), "worker", lambda _: True, "kill -9 of all three"
    ),
    "kill_edge": Kind(_kill("edge"), "edge", lambda _: True, "kill -9 of the edge's master"),
    "kill_web": Kind(_kill("web"), "web", lambda _: True, "kill -9 of the web door's master"),
}


def parse(text: str) -> list[Wanted]:
    """`name@second,…` in the order of their times. Raises ValueError."""
    wanted = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = WANTED.match(part)
        if match is None or match[1] not in KINDS:
            raise ValueError(
                f"{part!r} is no fault: name@second, with one of {', '.join(sorted(KINDS))}"
            )
        wanted.append(Wanted(match[1], float(match[2])))
    return sorted(wanted, key=lambda one: one.at_s)


class Faults:
    """Plays the faults in a thread of its own; `played` after `join`."""

    def __init__(self, wanted: list[Wanted], system: System, begins_file: Path) -> None:
        self.wanted, self.system, self.begins_file = wanted, system, begins_file
        self.played: list[Fault] = []
        self._problem: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        if wanted:
            self._thread.start()

    def join(self) -> list[Fault]:
        self._ended.set()
        if self.wanted:
            self._thread.join(BACK_PATIENCE_S + 5)
        if self._problem is not None:
            raise TargetProblem(f"a fault could not be made: {self._problem}")
        return self.played

    def _run(self) -> None:
        try:
            while not self.begins_file.exists():
                if self._ended.wait(LOOK_EVERY_S):
                    return
            begins_at = float(self.begins_file.read_text())
            for one in self.wanted:
                if self._ended.wait(max(0.0, begins_at + one.at_s - time.time())):
                    return
                self.played.append(self._play(one.name))
        except (OSError, ValueError, KeyError) as problem:
            self._problem = problem

    def _play(self, name: str) -> Fault:
        kind = KINDS[name]
        before = self.system.pid(kind.process)
        began_at = time.time()
        kind.act(self.system)
        deadline = time.monotonic() + BACK_PATIENCE_S
        while time.monotonic() < deadline:
            if self._replaced(kind.process, before) and kind.answers(self.system):
                return Fault(name, began_at, time.time())
            time.sleep(LOOK_EVERY_S)
        return Fault(name, began_at, None)

    def _replaced(self, process: str, before: int) -> bool:
        try:
            return self.system.pid(process) != before
        except (OSError, ValueError):
            return False
