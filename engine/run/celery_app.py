"""The Celery app as the supervisor runs it: it says when it is ready and dies with its parent.

`-A engine.celery` is the same app without a supervisor.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from celery.signals import beat_init, worker_process_init, worker_ready

from engine.celery import app
from engine.run.child import die_with_parent

__all__ = ["app"]


def _say_ready(**_: object) -> None:
    """`DATA_DIR/run/<name>.ready` is what the supervisor waits for."""
    data_dir, name = os.environ.get("LAISEE_RUN_DATA_DIR"), os.environ.get("LAISEE_RUN_PROCESS")
    if data_dir and name:
        (Path(data_dir) / "run" / f"{name}.ready").touch()


def _tie(**_: object) -> None:
    # A task that is cut off is delivered again (acks_late) and finds its rows as they were.
    die_with_parent(signal.SIGKILL, os.getppid())


worker_ready.connect(_say_ready, weak=False)
beat_init.connect(_say_ready, weak=False)
worker_process_init.connect(_tie, weak=False)
