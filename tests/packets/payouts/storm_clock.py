"""Our own clock and Django's follow `time.time`, which moved_clock/ has put a hand to.

Both read the machine's clock through `datetime`, below Python. Imported before anything that takes
their functions by name.
"""

from __future__ import annotations

import datetime as dt
import time

from django.utils import timezone

from engine.lib import clock


def now() -> dt.datetime:
    return dt.datetime.fromtimestamp(time.time(), dt.UTC)


clock.now = now
timezone.now = now
