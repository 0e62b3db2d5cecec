"""The kernel's own chores. Each is a scan of due rows and safe to run twice at once."""

from __future__ import annotations

from celery import shared_task

from engine.lib.idempotency import records_purge


@shared_task(name="engine.tasks.idempotency_purge")
def idempotency_purge() -> None:
    """Forget answers that are no longer replayed; what they made keeps its key for ever."""
    records_purge()


@shared_task(name="engine.tasks.webhook_sweep")
def webhook_sweep() -> dict[str, int]:
    """Deliver webhooks that are due; each run of it is one more caller."""
    from engine.webhooks.deliveries import deliver_due

    return deliver_due()
