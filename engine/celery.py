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


# Settlement has a queue of its own, so that nothing else makes it wait.
app.conf.task_routes = {"packets.tasks.settle_*": {"queue": "settle"}}

# Seconds between sweeps; each sweep finds whatever a lost wake-up left behind.
app.conf.beat_schedule = {
    "settle": {"task": "packets.tasks.settle_sweep", "schedule": 1.0},
    "expire": {"task": "packets.tasks.expire_sweep", "schedule": 2.0},
    "adopt-stranded": {"task": "packets.tasks.stranded_sweep", "schedule": 5.0},
    "campaign-clock": {"task": "campaign.tasks.campaign_clock", "schedule": 2.0},
    "forget-answers": {"task": "engine.tasks.idempotency_purge", "schedule": 3600.0},
}
