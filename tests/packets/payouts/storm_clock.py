"""Our own clock, Django's and Celery's follow `time.time`, which moved_clock/ has put a hand to.

They read the machine's clock through `datetime`, below Python. Imported before anything that takes
their functions by name.
"""

from __future__ import annotations

import datetime as dt
import time

from django.utils import timezone

from engine.lib import clock


def now() -> dt.datetime:
    return dt.datetime.fromtimestamp(time.time(), dt.UTC)


class MovedDatetime(dt.datetime):
    """For modules that ask the class."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return now().astimezone(tz) if tz else now().replace(tzinfo=None)


clock.now = now
timezone.now = now
