"""How the edge reads a body: no more of it than anything takes, and not for ever.

A body that its sender declares as too large isn't read at all; one without a declared length is
read up to the bound. Whoever takes longer than BODY_TIMEOUT_S is cut off: a slow sender holds a
little memory here, and neither a thread nor anybody's place.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.lib.renderers import MAX_EVENTS_BODY_BYTES

BODY_TIMEOUT_S = 10.0
LOOK_EVERY_S = 1.0
# Digits of a length that is worth reading as a number.
_MAX_DIGITS = len(str(MAX_EVENTS_BODY_BYTES))


class TooSlow(Exception):
    """The body did not arrive in time."""


class Bodies:
    """Of one process. A deadline for each body would cost more than the body: one timer looks."""

    def __init__(self) -> None:
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    async def read(self, headers: Any, protocol: Any) -> bytes:
        """The body, cut off just past the bound. Raises TooSlow."""
        length = headers.get("content-length")
        if length is None and headers.get("transfer-encoding") is None:
            return b""
        if length is not None and declared(length) > MAX_EVENTS_BODY_BYTES:
            return b""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._reading[task] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_EVERY_S, self._look, loop)
        try:
            return bytes(await protocol()) if length is not None else await _some(protocol)
        except asyncio.CancelledError:
            if task in self._late:
                raise TooSlow from None
            raise
        finally:
            del self._reading[task]
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() - BODY_TIMEOUT_S
        for task, since in self._reading.items():
            if since < due:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._reading)
        if self._looking:
            loop.call_later(LOOK_EVERY_S, self._look, loop)


def declared(length: str) -> int:
    """What Content-Length says; of nonsense, more than anything takes."""
    plain = length.isascii() and length.isdigit() and len(length) <= _MAX_DIGITS
    return int(length) if plain else MAX_EVENTS_BODY_BYTES + 1


async def _some(protocol: Any) -> bytes:
    body = bytearray()
    async for chunk in protocol:
        body += chunk
        if len(body) > MAX_EVENTS_BODY_BYTES:
            break
    return bytes(body)
