"""The Celery app. Every periodic job is a scan of due rows and safe to run twice at once."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engine.settings")

app = Celery("laisee")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _logs(**_options: object) -> None:
    """Celery leaves logging alone where somebody answers this signal; ours is one for all."""
    from engine.lib.logs import configure

    configure()


# Settlement has a queue of its own, so that nothing else makes it wait; payouts wait for providers,
# in a process of their own.
app.conf.task_routes = {
    "packets.tasks.settle_*": {"queue": "settle"},
    "packets.tasks.payout_*": {"queue": "payout"},
    # Webhooks wait for others' servers, in a process where nobody else waits for them.
    "engine.tasks.webhook_*": {"queue": "webhook"},
    "referrals.tasks.*": {"queue": "growth"},
}

# Seconds between sweeps. The claim path wakes nobody: a broker that hangs must not make a claim
# wait, and a sweep a second is soon enough.
SWEEPS = {
    "packets.tasks.settle_sweep": 1.0,
    "packets.tasks.settle_parked": 300.0,
    "packets.tasks.payout_sweep": 1.0,
    "packets.tasks.payout_overdue": 600.0,
    "packets.tasks.expire_sweep": 2.0,
    "packets.tasks.stranded_sweep": 5.0,
    "packets.tasks.rebalance_sweep": 1.0,
    "packets.tasks.stock_expire_sweep": 10.0,
    "packets.tasks.reconcile_sweep": 5.0,
    "packets.tasks.differences_sweep": 60.0,
    "packets.tasks.three_way_sweep": 300.0,
    "campaign.tasks.campaign_clock": 1.0,
    "campaign.tasks.target_uploads": 2.0,
    "campaign.tasks.notices_mail": 30.0,
    "campaign.tasks.board_samples": 10.0,
    "campaign.tasks.exhausted_sweep": 5.0,
    "engine.tasks.idempotency_purge": 3600.0,
    "engine.tasks.webhook_sweep": 1.0,
    "referrals.tasks.touches_sweep": 1.0,
    "referrals.tasks.growth_claims": 1.0,
    "referrals.tasks.growth_rewards": 1.0,
    "referrals.tasks.growth_tickets": 1.0,
    "referrals.tasks.bans_sweep": 5.0,
    "referrals.tasks.risk_sweep": 300.0,
    "referrals.tasks.identities_forget": 3600.0,
    "referrals.tasks.growth_snapshots": 20.0,
    "referrals.tasks.risk_work": 2.0,
}
app.conf.beat_schedule = {
    # A sweep that waited longer than its period is superseded by the next: no pile-up behind a
    # slow one, or after the worker was away.
    task: {"task": task, "schedule": every_s, "options": {"expires": max(every_s, 5.0)}}
    for task, every_s in SWEEPS.items()
}
