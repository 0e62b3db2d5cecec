"""The processes of one copy: how each is started, when it is ready, how it is stopped.

In the order they start; they stop in the reverse one. A service knows nothing of the others.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.run import spawn
from engine.run.config import Config
from engine.run.paths import CHECKOUT, Places
from engine.run.postgres import PostgresServer
from engine.run.valkey import ValkeyServer

# Web: two processes on two cores. A thread holds one database connection while it answers.
WEB_WORKERS = 2
WEB_THREADS = 8
EDGE_WORKERS = 2
# Connections of one worker (that is what Granian counts, idle ones too): somebody who opens ten
# thousand and says nothing must not keep the others out. What is asked on them is bounded apart, by
# the web's threads and by the edge's own queues.
CONNECTIONS = 16_384
BACKLOG = 4_096
# A connection that sends no complete head for so long is closed; so is one that is kept alive.
HEADER_TIMEOUT_MS = 30_000
# Seconds for requests under way at a stop; a client that stalls its body gets no longer.
DRAIN_S = 5
# Seconds a worker has to finish its task; what is cut off is delivered again.
WARM_SHUTDOWN_S = 15.0
# Name -> queues, pool, how many tasks at once. Who only waits for others has threads: payout
# providers, of whom a slow one must not hold up settlement, and client apps' webhooks, of which one
# endpoint holds at most a quarter.
WORKERS = {
    "worker": ("default,settle,growth", "prefork", 2),
    "payouts": ("payout", "threads", 8),
    "webhooks": ("webhook", "threads", 16),
}
DOORS = ("web", "edge")
# What serves people, wherever it runs: a copy of `make run` has them, and so has every deployment.
PROCESSES = (*DOORS, *WORKERS, "beat")


@dataclass(frozen=True)
class Service:
    """One supervised process. Stages stop from the highest number to the lowest."""

    name: str
    stage: int
    spawn: Callable[[], subprocess.Popen[bytes]]
    ready: Callable[[], bool]
    stop_signal: int
    stop_timeout_s: float


def postgres(server: PostgresServer) -> Service:
    return Service("postgres", 0, server.spawn, server.answers, signal.SIGINT, 20.0)


def valkey(server: ValkeyServer) -> Service:
    return Service("valkey", 1, server.spawn, server.answers, signal.SIGTERM, 10.0)


def door_command(name: str, host: str, port: int, workers: int | None = None) -> list[str]:
    """`web` or `edge`: Granian, which replaces a worker that dies by itself."""
    command = [sys.executable, "-m", "granian", "--host", host, "--port", str(port)]
    command += ["--no-ws", "--http", "1" if name == "edge" else "auto", "--backlog", str(BACKLOG)]
    command += ["--backpressure", str(CONNECTIONS)]
    command += ["--http1-header-read-timeout", str(HEADER_TIMEOUT_MS)]
    if name == "edge":
        command += ["--interface", "rsgi", "--workers", str(workers or EDGE_WORKERS)]
        command += ["--loop", "uvloop", "--runtime-mode", "st"]
    else:
        command += ["--interface", "wsgi", "--workers", str(workers or WEB_WORKERS)]
        command += ["--blocking-threads", str(WEB_THREADS)]
    command += ["--respawn-failed-workers", "--respawn-interval", "0.2"]
    return [*command, "--workers-kill-timeout", str(DRAIN_S), f"engine.run.{name}:application"]


def http_door(config: Config, name: str, environ: Mapping[str, str]) -> Service:
    port = config.edge_port if name == "edge" else config.port
    command = door_command(name, "127.0.0.1", port)
    extra = {"LAISEE_DOOR": name}
    return Service(
        name,
        3,
        lambda: _python(config.places, name, command, {**environ, **extra}),
        lambda: answers(port, "/readyz"),
        signal.SIGTERM,
        DRAIN_S + 5.0,
    )


def sandbox_command(port: int) -> list[str]:
    """The payout sandbox: one process, because its books have one writer."""
    command = [sys.executable, "-m", "granian", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-ws", "--http", "1", "--interface", "rsgi", "--workers", "1"]
    command += ["--runtime-mode", "st", "--loop", "uvloop", "--log-level", "warning"]
    command += ["--respawn-failed-workers", "--respawn-interval", "0.2"]
    return [*command, "--workers-kill-timeout", "1", "engine.run.sandbox:application"]


def sandbox(config: Config, environ: Mapping[str, str]) -> Service:
    port = config.sandbox_port
    extra = {"SANDBOX_DIR": str(config.places.sandbox)}
    return Service(
        "sandbox",
        2,
        lambda: _python(config.places, "sandbox", sandbox_command(port), {**environ, **extra}),
        lambda: answers(port, "/healthz"),
        signal.SIGTERM,
        5.0,
    )


def worker_command(name: str, workers: int | None = None) -> list[str]:
    """One of WORKERS."""
    queues, pool, concurrency = WORKERS[name]
    command = [sys.executable, "-m", "celery", "-A", "engine.run.celery_app", "worker"]
    command += ["-n", f"{name}@%h", "-Q", queues, "-P", pool, "-c", str(workers or concurrency)]
    command += ["--prefetch-multiplier", "1"]
    return [
        *command,
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "-l",
        "WARNING",
    ]


def worker(config: Config, name: str, environ: Mapping[str, str]) -> Service:
    return _celery(config.places, name, 2, worker_command(name), environ, WARM_SHUTDOWN_S)


def beat_command() -> list[str]:
    command = [sys.executable, "-m", "celery", "-A", "engine.run.celery_app", "beat"]
    # At INFO it would write a line for every sweep of every second.
    command += ["-l", "WARNING"]
    # In memory: every entry runs within seconds, so there is nothing worth a file that a kill
    # could spoil.
    return [*command, "--scheduler", "celery.beat:Scheduler", "--pidfile="]


def beat(config: Config, environ: Mapping[str, str]) -> Service:
    return _celery(config.places, "beat", 3, beat_command(), environ, 5.0)


def answers(port: int, path: str) -> bool:
    """Whether GET `path` on 127.0.0.1 answers 200."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", path, headers={"Host": f"127.0.0.1:{port}"})
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def _celery(
    places: Places,
    name: str,
    stage: int,
    command: list[str],
    environ: Mapping[str, str],
    stop_timeout_s: float,
) -> Service:
    mark = places.run / f"{name}.ready"  # touched by engine/run/celery_app.py

    def start() -> subprocess.Popen[bytes]:
        mark.unlink(missing_ok=True)
        return _python(places, name, command, environ)

    return Service(name, stage, start, mark.exists, signal.SIGTERM, stop_timeout_s)


def _python(
    places: Places, name: str, command: list[str], environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return spawn.start(
        command,
        name=name,
        data_dir=places.root,
        log=places.log_file(name),
        death_signal=signal.SIGTERM,
        environ=environ,
        cwd=CHECKOUT,
    )


def python_environment(values: Mapping[str, str], places: Places) -> dict[str, str]:
    """The environment of our own processes: the caller's, with this copy's values on top."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LAISEE_", "GRANIAN_", "MAKE", "MFLAGS")) and name != "PYTHONPATH"
    }
    return {
        **kept,
        **values,
        "DATA_DIR": str(places.root),
        "DJANGO_SETTINGS_MODULE": "engine.settings",
        "PYTHONUNBUFFERED": "1",
        # The last lines of a log say what is wrong: a taken address, not fifty frames of Rust.
        "RUST_BACKTRACE": "0",
    }
