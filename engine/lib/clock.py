"""The wall clock, in one place so that tests and drills can say which they mean."""

from __future__ import annotations

import datetime as dt
import time


def now() -> dt.datetime:
    """The current time, aware, in UTC."""
    return dt.datetime.now(tz=dt.UTC)


def now_ms() -> int:
    """Milliseconds since the epoch, as Redis scripts see time."""
    return time.time_ns() // 1_000_000


def to_ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def rfc3339(moment: dt.datetime) -> str:
    """`2027-02-05T12:00:00.123456Z`."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
