"""The doors through which a client comes in. One contract: the same stories run through each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django.test import Client

from packets import selectors
from packets.claiming.registry import registry
from tests.api import rsgi
from tests.api.answers import Answer

BASE = "/api/v1"
JSON = {"Content-Type": "application/json"}


def forget_packets() -> None:
    """As if the second were over for which a process shows the same of a packet to everyone."""
    registry.forget()
    selectors._recent_cache.clear()


class Door(Protocol):
    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str]
    ) -> Answer: ...


class WebDoor:
    """Django under WSGI, in this process."""

    def client(self, path: str) -> Client:
        return Client(raise_request_exception=False)

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str]
    ) -> Answer:
        kind = headers.get("Content-Type", "")
        response = self.client(path).generic(
            method,
            path,
            body,
            content_type=kind,
            headers={name: value for name, value in headers.items() if name != "Content-Type"},
        )
        content = b"".join(response) if response.streaming else response.content
        return Answer(response.status_code, dict(response.headers), content)


class EdgeDoor(WebDoor):
    """The edge, behind an ingress that sends it the hot routes and everything else to the web.

    Its RSGI application runs on an event loop of its own, in a thread, as Granian would run it.
    """

    HOT = re.compile(rf"{BASE}/packets/[^/]*(/claims)?/?$")

    def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str]
    ) -> Answer:
        bare, _, query = path.partition("?")
        if not self.HOT.match(bare):
            return super().request(method, path, body=body, headers=headers)
        return rsgi.ask(method, bare, query, body, headers)


DOORS: dict[str, Callable[[], Door]] = {"web": WebDoor, "edge": EdgeDoor}


@dataclass(frozen=True)
class Visitor:
    """Somebody at a door, with or without credentials."""

    door: Door
    authorization: str | None = None

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """`body`: bytes as they are, anything else as JSON, None for no body at all."""
        raw = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        return self.send("POST", path, raw, headers={"Content-Type": "application/json", **headers})

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        headers = dict(headers or {})
        if self.authorization is not None:
            headers.setdefault("Authorization", self.authorization)
        return self.door.request(method, BASE + path, body=body, headers=headers)
