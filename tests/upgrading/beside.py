"""Starts the previous version's edge and worker beside those of a running copy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.run.paths import CHECKOUT
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy
from tests.upgrading import previous

READY_S = 60


@contextmanager
def started(copy: Copy, name: str, command: list[str]) -> Iterator[int]:
    """A process like the copy's own `name`, from its environment, that ends with this block."""
    pairs = Path(f"/proc/{copy.pids()[name]}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    environ = dict(os.fsdecode(pair).split("=", 1) for pair in pairs)
    with (copy.root / f"previous-{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            # Another name: when the copy's own one ends, its supervisor must leave this one alone.
            env={**environ, "LAISEE_RUN_PROCESS": f"previous-{name}"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def command_of(copy: Copy, name: str) -> list[str]:
    return Path(f"/proc/{copy.pids()[name]}/cmdline").read_text().rstrip("\0").split("\0")


@contextmanager
def previous_version(copy: Copy) -> Iterator[None]:
    """One edge more on the edge's port, and one worker more on its queues."""
    edge, worker = command_of(copy, "edge"), command_of(copy, "worker")
    edge[-1] = "tests.upgrading.previous_edge:application"
    worker[worker.index("-A") + 1] = "tests.upgrading.previous_worker"
    before = len(drill.workers(copy, "edge"))
    with ExitStack() as running:
        master = running.enter_context(started(copy, "edge", edge))
        running.enter_context(started(copy, "worker", worker))
        wait_until(
            lambda: len(drill.workers_below(master, copy.edge_port)) == before,
            READY_S,
            "the previous version's edges",
        )
        wait_until((copy.places.run / "previous-worker.ready").exists, READY_S, "its worker")
        yield


def given_by_previous(copy: Copy, packet: str) -> int:
    with drill.stock(copy) as link:
        return int(link.hget(f"lane:{{{packet}:0}}:meta", previous.COUNTED) or 0)
