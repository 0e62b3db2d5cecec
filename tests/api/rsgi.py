"""Runs the edge's RSGI application in this process, on a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace

import uvloop
from requests.structures import CaseInsensitiveDict

from packets.api.door import Door
from tests.api.answers import Answer

ANSWER_WITHIN_S = 30


class _Protocol:
    """What Granian hands to an application: the body, and where the answer goes."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.answer: tuple[int, list[tuple[str, str]], bytes] | None = None

    async def __call__(self) -> bytes:
        return self.body

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        assert self.answer is None, "answered twice"
        self.answer = (status, headers, body)


@cache
def _running() -> tuple[Door, asyncio.AbstractEventLoop]:
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, name="edge", daemon=True).start()
    return Door(), loop


def ask(method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    door, loop = _running()
    scope = SimpleNamespace(
        method=method,
        path=path,
        query_string=query,
        scheme="http",
        client="127.0.0.1:50000",
        headers={
            "host": "testserver",
            **({"content-length": str(len(body))} if body else {}),
            **{name.lower(): value for name, value in headers.items()},
        },
    )
    protocol = _Protocol(body)
    asyncio.run_coroutine_threadsafe(door.__rsgi__(scope, protocol), loop).result(ANSWER_WITHIN_S)
    assert protocol.answer is not None, "no answer"
    status, found, content = protocol.answer
    # As HTTP has it: names of headers have no case.
    return Answer(status, CaseInsensitiveDict(found), content)
