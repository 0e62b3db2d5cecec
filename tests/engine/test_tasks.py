"""The kernel's chores, as Celery runs them."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from engine.celery import app
from engine.lib import clock
from engine.models import IdempotencyRecord


@pytest.mark.django_db
def test_old_answers_are_forgotten() -> None:
    for hours in (1, 23, 25, 100):
        moment = clock.now() - dt.timedelta(hours=hours)
        IdempotencyRecord.objects.create(
            principal="p", key=str(hours), run=uuid.uuid4(), lease_until=moment, created_at=moment
        )
    task = app.conf.beat_schedule["engine.tasks.idempotency_purge"]["task"]
    app.loader.import_default_modules()
    app.tasks[task].apply()
    assert sorted(IdempotencyRecord.objects.values_list("key", flat=True)) == ["1", "23"]
