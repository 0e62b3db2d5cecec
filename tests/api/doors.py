"""The doors through which a client comes in. One contract: the same stories run through each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django.test import Client
from django.test.client import ClientHandler

from packets import selectors
from packets.claiming.registry import registry

BASE = "/api/v1"
JSON = {"Content-Type": "application/json"}


def forget_packets() -> None:
    """As if the second were over for which a process shows the same of a packet to everyone."""
    registry.forget()
    selectors._recent_cache.clear()


@dataclass(frozen=True)
class Answer:
    """What came back. `json` is None where the body is empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def code(self) -> str:
        """The problem's code, after checking that it is a whole problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.headers
        problem = self.json
        assert set(problem) - {"errors"} == {
            "type",
            "title",
            "status",
            "detail",
            "instance",
            "code",
        }
        assert problem["status"] == self.status
        assert problem["instance"] == self.headers["X-Request-ID"]
        return str(problem["code"])

    @property
    def pointers(self) -> list[tuple[str, str]]:
        """(pointer, code) of each error of a 422."""
        return [(error["pointer"], error["code"]) for error in self.json["errors"]]


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


class EdgeHandler(ClientHandler):
    """Knows the edge's addresses only."""

    def get_response(self, request: Any) -> Any:
        request.urlconf = "engine.edge_urls"
        return super().get_response(request)


class EdgeDoor(WebDoor):
    """The edge, behind an ingress that sends it the hot routes and everything else to the web."""

    HOT = re.compile(rf"{BASE}/packets/[^/]*(/claims)?/?$")

    def client(self, path: str) -> Client:
        client = super().client(path)
        if self.HOT.match(path):
            client.handler = EdgeHandler()
        return client


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
