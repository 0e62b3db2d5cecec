"""The kernel's own chores. Each is a scan of due rows and safe to run twice at once."""

from __future__ import annotations

from celery import shared_task

from engine.lib.idempotency import records_purge


@shared_task(name="engine.tasks.idempotency_purge")
def idempotency_purge() -> None:
    """Forget answers that are no longer replayed; what they made keeps its key for ever."""
    records_purge()
