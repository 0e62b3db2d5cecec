"""A process's way to Redis: it can be cut, lose an answer, or still lead to an old master.

The old master is another database of the same real server, so that every script runs for real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline, Redis

MASTER, OLD_MASTER = 0, 2


class Killed(Exception):
    """The process died in the middle of what it was doing."""


@dataclass
class Wire:
    """What happens to commands: `fate` strikes when `countdown` of them have passed."""

    away: bool = False
    countdown: int = 0
    fate: str = ""  # lost | answer_lost | dies | dies_after

    def run(self, work: Any) -> Any:
        if self.away:
            raise redis.ConnectionError("cut")
        strikes = self.fate if self.fate and self.countdown == 0 else ""
        self.countdown = max(0, self.countdown - 1)
        if strikes:
            self.fate = ""
        if strikes == "lost":
            raise redis.ConnectionError("lost")
        if strikes == "dies":
            raise Killed
        answer = work()
        if strikes == "answer_lost":
            raise redis.ConnectionError("lost after it was done")
        if strikes == "dies_after":
            raise Killed
        return answer


class _Pool(redis.ConnectionPool):
    def disconnect(self, inuse_connections: bool = True) -> None:
        """Whoever lets go of its connections finds the master with the next one."""
        super().disconnect(inuse_connections)
        self.lead_to(MASTER)

    def lead_to(self, database: int) -> None:
        if self.connection_kwargs.get("db", MASTER) != database:
            super().disconnect()
            self.connection_kwargs["db"] = database
            self.reset()


class _Pipe(Pipeline):
    wire: Wire

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        found: list[Any] = self.wire.run(lambda: super(_Pipe, self).execute(raise_on_error))
        return found


class Link(Redis):
    """The client of one process."""

    def __init__(self, url: str) -> None:
        super().__init__(connection_pool=_Pool.from_url(url))
        self.wire = Wire()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.wire.run(lambda: super(Link, self).execute_command(*args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        pipe = _Pipe(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.wire = self.wire
        return pipe

    @property
    def database(self) -> int:
        return int(self.connection_pool.connection_kwargs.get("db", MASTER))

    def lead_to(self, database: int) -> None:
        self.connection_pool.lead_to(database)
