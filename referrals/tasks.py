"""Celery's entrances into growth: each only calls a service, and may run twice, late, or at the
same time.
"""

from __future__ import annotations

from celery import shared_task


@shared_task(name="referrals.tasks.touches_sweep")
def touches_sweep() -> None:
    """Bind friends who claimed with somebody's code."""
    from referrals.forest.touches import touches_bind_due

    touches_bind_due()
