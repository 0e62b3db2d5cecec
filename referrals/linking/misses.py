"""Who tries codes: a network that asked for too many that don't exist has to wait.

Counted in Redis. While it is away nobody waits: a code is one of 2^50, and people must get through.
"""

from __future__ import annotations

import math

import redis.exceptions

from engine.lib import lua
from engine.lib.redis import stock

MISSES = 30  # a network and window; a whole office mistypes less
WINDOW_S = 60


def wait_s(network: str) -> int:
    """Seconds until this network may ask again; 0: now."""
    return _count(network, 0)


def missed(network: str) -> None:
    _count(network, 1)


def _count(network: str, cost: int) -> int:
    script = lua.load("packets", "limit_window")
    try:
        allowed, _left, _window, wait_ms = script.call(
            stock(), (f"share:{{{network}}}:misses",), (MISSES, WINDOW_S * 1_000, 0, cost)
        )
    except (redis.exceptions.RedisError, OSError):
        return 0
    return 0 if allowed else max(1, math.ceil(int(wait_ms) / 1_000))
