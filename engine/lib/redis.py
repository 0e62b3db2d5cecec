"""The clients of the stock's Redis (or Valkey), with every default that could hurt written out.

REDIS_CLUSTER says whether REDIS_URL leads to one server or to any node of a cluster. Both are used
through the same commands: every script and every command of ours touches the keys of one lane.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

from django.conf import settings
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.retry import Retry

CONNECT_TIMEOUT_S = 0.3
# A script takes microseconds; past this the server is gone or stalled, and the client hears 503.
SOCKET_TIMEOUT_S = 0.5
MAX_CONNECTIONS = 64  # of one process to one server
PROBE_KEPT_MS = 1_000


class Translated:
    """Something of redis-py's cluster client, made at its first use.

    redis-py connects when a cluster's client is made, and a cluster that can't be reached raises
    what is no RedisError. Here a client can be had while the cluster is away, as of one server, and
    the same errors say so.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.made(), name)
        return functools.partial(_translating, found) if callable(found) else found

    def made(self) -> Any:
        """The client itself."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = _translating(self._make)
        return self._made

    def pipeline(self, transaction: bool = False) -> Translated:
        assert not transaction, "a transaction would be of one node"
        return Translated(lambda: self.made().pipeline())

    def look_again(self) -> None:
        """Who is master now, through new connections (those in use are left to their users)."""
        cluster = self.made()
        _translating(cluster.nodes_manager.initialize)
        for node in cluster.get_nodes():
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


def _translating(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return call(*args, **options)
    except RedisClusterException as error:
        raise RedisConnectionError(f"cluster: {error}") from error


def _client(retry: Retry, **options: Any) -> Redis:
    options |= {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "retry": retry,
    }
    if settings.REDIS_CLUSTER:
        url = settings.REDIS_URL
        # redis-py's own commands, through other types: what we use of them both clients have.
        return cast("Redis", Translated(lambda: RedisCluster.from_url(url, **options)))
    return Redis.from_url(settings.REDIS_URL, **options)


@functools.cache
def stock() -> Redis:
    """The process's client of the stock. Commands are retried once: every script is idempotent."""
    return _client(
        Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), 1),
        decode_responses=False,
        health_check_interval=15,
        max_connections=MAX_CONNECTIONS,
    )


def look_again(client: Redis) -> None:
    """A server that was replaced may still be talked to: let the next commands find the new one."""
    if settings.REDIS_CLUSTER:
        client.look_again()  # type: ignore[attr-defined]
    else:
        client.connection_pool.disconnect(inuse_connections=False)


class Probe:
    """Asks whether Redis takes writes again; waits shortly and tries nothing twice."""

    def __init__(self) -> None:
        self._client = _client(Retry(NoBackoff(), 0))

    def ask(self) -> None:
        """Raises where it doesn't. Of a cluster every master must, or the next claim would wait.

        It writes: a replica, or a server that is full, answers reads as if all were well.
        """
        for key in self._keys():
            self._client.set(key, 1, px=PROBE_KEPT_MS)

    def _keys(self) -> Iterator[str]:
        if not settings.REDIS_CLUSTER:
            yield "laisee:probe"
            return
        cluster: RedisCluster = cast("Any", self._client).made()
        _translating(cluster.nodes_manager.initialize)  # who is master now
        masters = {slot: nodes[0].name for slot, nodes in cluster.nodes_manager.slots_cache.items()}
        if len(masters) < REDIS_CLUSTER_HASH_SLOTS:
            raise RedisConnectionError("cluster: some slots have no master")
        missing = set(masters.values())
        for number in itertools.count():
            key = f"laisee:probe:{number}"
            master = masters[key_slot(key.encode())]
            if master in missing:
                missing.discard(master)
                yield key
            if not missing:
                return

    def close(self) -> None:
        self._client.close()
