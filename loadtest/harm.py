"""How a drill reaches into its own copy: what it kills, stops and slows down, and puts right again.

Acts go through the pids that the copy leaves in `DATA_DIR/run`; its supervisor starts again what
was killed. Everything that lasts is undone by its own function, which may be called at any time.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

from loadtest.proxy import FINE, Proxy, Weather
from loadtest.target import read_env_file

PROBE_TIMEOUT_S = 1
SUPERUSER = "postgres"
# Postgres waits at most this long before a flush, whoever asks it to.
COMMIT_DELAY_AT_MOST_S = 0.1


@dataclass(frozen=True, slots=True)
class System:
    """The drill's own copy, as far as faults reach into it. `networks`: the proxies in place."""

    data_dir: Path
    networks: Mapping[str, Proxy] = field(default_factory=dict)

    @property
    def env(self) -> Mapping[str, str]:
        return read_env_file(self.data_dir / "run" / "env")

    def pid(self, name: str) -> int:
        return int((self.data_dir / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def address(self, name: str) -> tuple[str, int]:
        """Where a server itself listens: what leads to it may lead through a proxy."""
        match name:
            case "door":
                key = "EDGE_URL" if os.environ.get("DOOR") == "edge" else "BASE_URL"
                parts = urlsplit(self.env[key])
            case "postgres":
                parts = urlsplit(self.env["MIGRATION_DATABASE_URL"])
            case _:
                lines = (self.data_dir / "run" / "valkey.conf").read_text().splitlines()
                [port] = [line.split()[1] for line in lines if line.startswith("port ")]
                return "127.0.0.1", int(port)
        return parts.hostname or "", parts.port or 0


# --- whether a dependency answers -----------------------------------------------------------------


def redis_answers(system: System) -> bool:
    try:
        with redis.Redis.from_url(
            system.env["REDIS_URL"],
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
        ) as link:
            return bool(link.ping())
    except redis.RedisError:
        return False


def postgres_answers(system: System) -> bool:
    try:
        with psycopg.connect(system.env["DATABASE_URL"], connect_timeout=PROBE_TIMEOUT_S) as link:
            return link.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


# --- what is gone in a moment ---------------------------------------------------------------------


def lose_redis(system: System) -> None:
    # Deleted first, while the server still has its files open: when it comes back, within a
    # moment, nothing is there to be loaded.
    for entry in (system.data_dir / "valkey").iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    system.kill("valkey")


# --- what lasts -----------------------------------------------------------------------------------


def silence(system: System, name: str) -> None:
    """Stop a service's processes where they are: calls to it are taken and never answered."""
    for pid in _family(system.pid(name)):
        os.kill(pid, signal.SIGSTOP)


def wake(system: System, name: str) -> None:
    for pid in _family(system.pid(name)):
        os.kill(pid, signal.SIGCONT)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def slow_flushes(system: System, delay_s: float) -> None:
    """Every flush of the write-ahead log begins so much later, holding the lock on it.

    Whoever commits waits as on a disk whose fsync takes that much longer; reads and the writes of
    checkpoints don't.
    """
    _postgres_set(system, {"commit_delay": round(delay_s * 1_000_000), "commit_siblings": 0})


def quick_flushes(system: System) -> None:
    """As it was; also what a drill that was killed left slow."""
    _postgres_set(system, {"commit_delay": None, "commit_siblings": None})


def _postgres_set(system: System, settings: Mapping[str, int | None]) -> None:
    host, port = system.address("postgres")
    password = (system.data_dir / "secrets" / f"{SUPERUSER}_password").read_text().strip()
    with psycopg.connect(
        host=host, port=port, user=SUPERUSER, password=password, dbname="postgres",
        autocommit=True, connect_timeout=PROBE_TIMEOUT_S,
    ) as link:  # fmt: skip
        for name, value in settings.items():
            change = "RESET {}" if value is None else "SET {} = {}"
            known = [sql.Identifier(name)] + ([] if value is None else [sql.Literal(value)])
            link.execute(sql.SQL("ALTER SYSTEM " + change).format(*known))
        link.execute("SELECT pg_reload_conf()")


def bad_network(system: System, to: str, weather: Weather) -> None:
    system.networks[to].weather = weather


def good_network(system: System, to: str) -> None:
    system.networks[to].weather = FINE
