"""The clients of the stock's Redis (or Valkey), with every default that could hurt written out."""

from __future__ import annotations

import functools

from django.conf import settings
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

CONNECT_TIMEOUT_S = 0.3
# A script takes microseconds; past this the server is gone or stalled, and the client hears 503.
SOCKET_TIMEOUT_S = 0.5
MAX_CONNECTIONS = 64  # of one process


@functools.cache
def stock() -> Redis:
    """The process's client of the stock. Commands are retried once: every script is idempotent."""
    return Redis.from_url(
        settings.REDIS_URL,
        decode_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 1),
        health_check_interval=15,
        max_connections=MAX_CONNECTIONS,
    )


def probe_client() -> Redis:
    """One connection that waits shortly and tries nothing twice: to ask whether Redis is back."""
    return Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
