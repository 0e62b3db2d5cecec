"""How many claims were answered with what, by the second: for people who watch, never for money.

Each process counts in memory; a thread of its own adds the counts to Redis once a second and
forgets them. Counting takes a dictionary's time, can't fail and can't wait: when Redis is away the
counts of that time are lost, and nobody hears of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter

import redis.exceptions
import structlog
from redis import Redis

from engine.lib.redis import stock as stock_client

log = structlog.get_logger(__name__)

FLUSH_S = 1.0
KEPT_S = 3_600  # seconds for which Redis remembers a second
MAX_KEYS = 10_000  # different counts between two flushes; beyond, new ones aren't counted
PREFIX = "count:"

_lock = threading.Lock()
_counts: Counter[tuple[int, str]] = Counter()
_thread: threading.Thread | None = None


def count(name: str) -> None:
    """One more of `name`, now. Never raises, never waits for anything but a dictionary."""
    key = (int(time.time()), name)
    with _lock:
        if key in _counts or len(_counts) < MAX_KEYS:
            _counts[key] += 1
    if _thread is None:
        _start()


def _start() -> None:
    """The flushing thread of this process."""
    global _thread
    with _lock:
        if _thread is not None:
            return
        _thread = threading.Thread(target=_run, name="counters", daemon=True)
        _thread.start()


def _forked() -> None:
    """A child has none of its parent's threads, and what those held is nobody's to give back."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()
    _counts.clear()


os.register_at_fork(after_in_child=_forked)


def _run() -> None:
    while True:
        time.sleep(FLUSH_S)
        flush()


def flush(link: Redis | None = None) -> int:
    """Add what was counted to Redis; how many counts that were. Lost where Redis is away."""
    with _lock:
        counted = dict(_counts)
        _counts.clear()
    if not counted:
        return 0
    try:
        pipe = (link or stock_client()).pipeline(transaction=False)
        for (second, name), number in counted.items():
            pipe.hincrby(f"{PREFIX}{second}", name, number)
        for second in {second for second, _ in counted}:
            pipe.expire(f"{PREFIX}{second}", KEPT_S)
        pipe.execute()
    except (redis.exceptions.RedisError, OSError) as error:
        log.debug("counts_lost", error=type(error).__name__)
        return 0
    return len(counted)


def read(
    seconds: int, link: Redis | None = None, until: int | None = None
) -> dict[int, dict[str, int]]:
    """What all processes counted in the last `seconds`, by second; {} where Redis is away."""
    last = int(time.time()) if until is None else until
    wanted = range(last - seconds + 1, last + 1)
    try:
        pipe = (link or stock_client()).pipeline(transaction=False)
        for second in wanted:
            pipe.hgetall(f"{PREFIX}{second}")
        found = pipe.execute()
    except (redis.exceptions.RedisError, OSError):
        return {}
    return {
        second: {_text(name): int(number) for name, number in row.items()}
        for second, row in zip(wanted, found, strict=True)
    }


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
