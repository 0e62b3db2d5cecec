"""A worker that runs the previous version's scripts, and knows its tasks and no others."""

from __future__ import annotations

from engine.lib.redis import stock
from engine.run.celery_app import app
from tests.upgrading import previous

previous.install_scripts()
app.loader.import_default_modules()
app.finalize()
for name in [name for name in app.tasks if not name.startswith("celery.")]:
    if name not in previous.MESSAGES:
        app.tasks.pop(name)
app.tasks.pop("packets.tasks.load_claimants")


@app.task(name="packets.tasks.load_claimants")
def load_claimants(lane_id: int) -> None:
    """As it was: one lane, whole, and whoever else may be at it."""
    from packets import claimants

    claimants.load(lane_id, client=stock())
