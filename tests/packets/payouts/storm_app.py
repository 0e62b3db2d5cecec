"""The Celery app of a storm's workers and beats: ours, with waits that fit into a test.

Nothing that decides is changed, only how long is waited. A running sweep is delivered again after
VISIBLE_S, while it runs; both beats send more sweeps than anybody needs.
"""

from __future__ import annotations

import os

import django

from tests.packets.payouts import storm_clock  # first: it moves what others import

django.setup()

from celery.app import base  # noqa: E402
from celery.signals import task_prerun  # noqa: E402
from celery.worker import request  # noqa: E402

from engine.run import spawn  # noqa: E402
from engine.run.celery_app import app  # noqa: E402
from packets.payouts import breaker, queue, rules  # noqa: E402

RUNS = "runs"  # the file, in the storm's folder
VISIBLE_S = 3
SWEEP_EVERY_S = 0.5
EXPIRES_S = 30.0  # a message that is delivered again must still be worth its run
WAIT_S = 0.5

breaker.FIRST_WAIT_S = breaker.FUNDS_WAIT_S = breaker.LONGEST_WAIT_S = WAIT_S
queue.PROBE_S = WAIT_S
rules.RETRY_S = rules.NEW_NUMBER_S = WAIT_S

# When a message expires is said by the sender's clock and judged by the receiver's.
base.datetime = request.datetime = storm_clock.MovedDatetime

app.conf.beat_schedule = {
    "sweep": {
        "task": "packets.tasks.payout_sweep",
        "schedule": SWEEP_EVERY_S,
        "options": {"expires": EXPIRES_S},
    }
}
app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    "visibility_timeout": VISIBLE_S,
    "unacked_restore_interval": 1,
}
app.conf.visibility_timeout = VISIBLE_S


@task_prerun.connect
def _write_down(task_id: str, **_: object) -> None:
    """One line for each run of a message: the same id twice was delivered twice."""
    with open(os.path.join(os.environ[spawn.MARK_DATA_DIR], RUNS), "a") as file:
        file.write(f"{task_id}\n")


__all__ = ["app"]
