"""A Valkey of a measurement's own, with nothing kept on disk; and what it costs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from engine.run.paths import Places
from engine.run.valkey import ValkeyServer


@contextmanager
def valkey() -> Iterator[tuple[ValkeyServer, Redis]]:
    root = Path(tempfile.mkdtemp(prefix="laisee-valkey-"))
    places = Places(root)
    places.make()
    server = ValkeyServer(places)
    try:
        server.start()
        with Redis.from_url(server.url) as client:
            # The log on disk costs the same for either side; without it the ratio says more.
            client.config_set("appendonly", "no")
            yield server, client
    finally:
        server.kill()
        shutil.rmtree(root, ignore_errors=True)


def cpu_s(client: Redis) -> float:
    """Seconds of CPU that the server has used since it began, by its own finer clock."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
