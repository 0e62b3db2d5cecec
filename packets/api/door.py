"""The edge's door: the hot routes over RSGI, with the web door's own answers.

A claim that is plainly well-formed is answered here, through `EdgeDriver`. Whatever isn't (another
method, a broken token, a body that doesn't parse, a browser's preflight, a packet's page) goes to
Django's own handler in a few threads of this process: the two doors can't disagree about what they
both say, because only one of them says it.

Both queues are bounded; a request over the bound hears 503 with Retry-After before anything
happens.
"""

from __future__ import annotations

import asyncio
import functools
import io
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from engine.lib import counters, fast_token
from engine.lib.auth import Caller, key_ring
from engine.lib.middleware import client_ip_from, request_id_from
from engine.lib.problem import (
    CONTENT_TYPE,
    DEPENDENCY_ERRORS,
    Code,
    ProblemError,
    body_of,
    unavailable,
)
from engine.lib.renderers import MAX_BODY_BYTES, MAX_EVENTS_BODY_BYTES, MEDIA_TYPE
from engine.wsgi import application as django
from packets import sightings
from packets.api import schemas, shapes
from packets.api.body import Bodies, TooSlow
from packets.claiming import flow
from packets.claiming.cluster_pipe import stock_pipe
from packets.claiming.edge import EdgeDriver
from packets.claiming.effects import ClaimRequest, Outcome, PacketView, Unavailable
from packets.claiming.limits import OVER_LIMIT, OverLimit
from packets.claiming.registry import registry
from packets.claiming.sync import password_key, ticket_keys

log = structlog.get_logger(__name__)

MAX_CLAIMS = 4_096  # claims in flight in this process
DJANGO_THREADS = 2  # for what isn't a plain claim: enough for packet pages, few against nonsense
MAX_DJANGO = 256  # such requests in flight or waiting
ALIVE = b'{"status":"ok"}'
MAX_IDS = 10_000  # texts of packet ids whose values are remembered

_CLAIMS = re.compile(r"/api/v1/packets/([0-9a-f]{32})/claims/?\Z")
_EMPTY = ClaimRequest()
_body = msgspec.json.Decoder(schemas.ClaimBody)

# What Django's middlewares put on every answer of the API (the contract suite compares the doors).
COMMON = [
    ("cache-control", "no-store"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
]
_CLAIM_HEADERS = [("content-type", MEDIA_TYPE), ("allow", "POST, OPTIONS"), *COMMON]
_ALIVE_HEADERS = [("content-type", MEDIA_TYPE), *COMMON]
_PROBLEM_HEADERS = [("content-type", CONTENT_TYPE), ("allow", "POST, OPTIONS"), *COMMON]


class Door:
    """The RSGI application; one of them in each worker process."""

    def __init__(self) -> None:
        self._driver: EdgeDriver | None = None
        self._django_threads = ThreadPoolExecutor(DJANGO_THREADS, thread_name_prefix="django")
        self._bodies = Bodies()
        self._claims = 0
        self._at_django = 0
        self._password_key = password_key()
        self._ticket_keys = ticket_keys()
        self._hosts: set[str] = set()
        self._server = ("127.0.0.1", str(settings.EDGE_PORT))

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._driver is not None:
            loop.run_until_complete(self._driver.close())
        self._django_threads.shutdown(wait=True)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        path = scope.path
        if path == "/healthz" and scope.method == "GET":
            request_id = request_id_from(scope.headers.get("x-request-id"))
            protocol.response_bytes(200, [*_ALIVE_HEADERS, ("x-request-id", request_id)], ALIVE)
        elif scope.method == "POST" and (match := _CLAIMS.match(path)):
            await self._claim(scope, protocol, match[1])
        else:
            body = await self._body(scope, protocol)
            if body is not None:
                await self._at(scope, protocol, body)

    async def _body(self, scope: Any, protocol: Any) -> bytes | None:
        """None: its sender has been told that it took too long."""
        try:
            return await self._bodies.read(scope.headers, protocol)
        except TooSlow:
            request_id = request_id_from(scope.headers.get("x-request-id"))
            problem = ProblemError(400, Code.BAD_REQUEST, "The body did not arrive in time.")
            headers = [*_PROBLEM_HEADERS, ("connection", "close"), ("x-request-id", request_id)]
            protocol.response_bytes(400, headers, body_of(problem, request_id))
            return None

    # --- a plain claim ----------------------------------------------------------------------------

    async def _claim(self, scope: Any, protocol: Any, packet_hex: str) -> None:
        body = await self._body(scope, protocol)
        if body is None:
            return
        headers = scope.headers
        request = _request_of(body) if self._is_plain(headers) else None
        caller = view = None
        if request is not None:
            authorization = headers.get("authorization")
            caller = self._known_caller(authorization) or await self._caller(authorization)
        if caller is not None:
            packet_id = _packet_id(packet_hex)
            fresh, view = registry.peek(packet_id)
            if not fresh:
                view = await self._view(packet_id)
        if request is None or caller is None or view is None:
            await self._at(scope, protocol, body)
            return
        request_id = request_id_from(headers.get("x-request-id"))
        try:
            if self._claims >= MAX_CLAIMS:
                raise Unavailable("too many claims in flight")
            self._claims += 1
            try:
                address = self._address(scope) if view.limits else ""
                outcome = await self._run(view, caller, request, address)
            finally:
                self._claims -= 1
        except OverLimit as over:
            counters.count(f"{view.id.hex}:{OVER_LIMIT}")
            _problem(protocol, request_id, shapes.over_limit(over))
            return
        except Unavailable as trouble:
            self._trouble(protocol, request_id, trouble)
            return
        except Exception as error:
            log.error("unhandled exception", exc_info=error)
            problem = ProblemError(500, Code.INTERNAL, "Something went wrong on our side.")
            headers = [*_PROBLEM_HEADERS, ("x-request-id", request_id)]
            protocol.response_bytes(500, headers, body_of(problem, request_id))
            return
        _answer(protocol, request_id, outcome, view, caller)
        if outcome.is_new_win:
            peer = scope.client.rpartition(":")[0]
            sightings.note(view.id, caller, peer, headers.get("x-forwarded-for") or "")

    def _address(self, scope: Any) -> str:
        return client_ip_from(
            scope.client.rpartition(":")[0],
            scope.headers.get("x-forwarded-for") or "",
            settings.TRUSTED_PROXIES,
        )

    def _known_caller(self, authorization: str | None) -> Caller | None:
        """Who a plain token of a key at hand names; nothing is waited for."""
        if authorization is None or not authorization.startswith("Bearer "):
            return None
        token = authorization[7:]
        kid = fast_token.kid_of(token)
        key = key_ring.peek(kid) if kid is not None else None
        return fast_token.verify(token, key, time.time()) if key is not None else None

    async def _caller(self, authorization: str | None) -> Caller | None:
        """The same, reading the keys where they are old; None: let Django judge it."""
        if authorization is None or not authorization.startswith("Bearer "):
            return None
        token = authorization[7:]
        kid = fast_token.kid_of(token)
        if kid is None:
            return None
        key = key_ring.peek(kid)
        if key is None:
            try:
                key = await self._driver_now().slow_once(kid, key_ring.get, kid)
            except DEPENDENCY_ERRORS:
                return None
        return fast_token.verify(token, key, time.time()) if key is not None else None

    def _is_plain(self, headers: Any) -> bool:
        accept = headers.get("accept")
        host = headers.get("host") or ""
        return (
            headers.get("content-type") == MEDIA_TYPE
            and (accept is None or accept == "*/*" or accept == MEDIA_TYPE)
            and headers.get("origin") is None
            and (host in self._hosts or self._host_is_allowed(host))
        )

    def _host_is_allowed(self, host: str) -> bool:
        domain, _ = split_domain_port(host)
        allowed = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
        if allowed and len(self._hosts) < 1_000:
            self._hosts.add(host)
        return allowed

    async def _view(self, packet_id: uuid.UUID) -> PacketView | None:
        """The packet as seen within the last second; None: let Django say what is to be said."""
        driver = self._driver_now()
        try:
            read: PacketView | None = await driver.slow_once(packet_id, registry.view, packet_id)
            return read
        except DEPENDENCY_ERRORS:
            return None

    def _driver_now(self) -> EdgeDriver:
        if self._driver is None:
            self._driver = EdgeDriver(stock_pipe())
        return self._driver

    async def _run(
        self, view: PacketView, caller: Caller, request: ClaimRequest, address: str
    ) -> Outcome:
        steps = flow.claim(view, caller, request, self._password_key, self._ticket_keys, address)
        return await self._driver_now().run(steps)

    def _trouble(self, protocol: Any, request_id: str, trouble: Unavailable) -> None:
        log.warning("claim_unavailable", detail=trouble.what)
        problem = ProblemError(
            503,
            Code.UNAVAILABLE,
            "The claim could not be completed. Send the same request again: nothing is lost.",
        )
        protocol.response_bytes(
            503,
            [
                *_PROBLEM_HEADERS,
                ("retry-after", str(trouble.retry_after_s)),
                ("x-request-id", request_id),
            ],
            body_of(problem, request_id),
        )

    # --- everything else --------------------------------------------------------------------------

    async def _at(self, scope: Any, protocol: Any, body: bytes) -> None:
        """Let Django answer, in a thread."""
        if self._at_django >= MAX_DJANGO:
            request_id = request_id_from(scope.headers.get("x-request-id"))
            problem = unavailable("This door is busy. Send the same request again.")
            protocol.response_bytes(
                503,
                [*_PROBLEM_HEADERS, ("retry-after", "1"), ("x-request-id", request_id)],
                body_of(problem, request_id),
            )
            return
        self._at_django += 1
        try:
            status, headers, answer = await asyncio.get_running_loop().run_in_executor(
                self._django_threads, self._ask_django, scope, body
            )
        finally:
            self._at_django -= 1
        protocol.response_bytes(status, headers, answer)

    def _ask_django(self, scope: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        said: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            said[:] = [int(status[:3]), [(name.lower(), value) for name, value in headers]]

        answer = django(_environ(scope, body, self._server), start_response)
        try:
            content = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        return said[0], said[1], content


@functools.lru_cache(maxsize=MAX_IDS)
def _packet_id(packet_hex: str) -> uuid.UUID:
    return uuid.UUID(hex=packet_hex)


def _request_of(body: bytes) -> ClaimRequest | None:
    if body == b"{}":
        return _EMPTY
    if len(body) > MAX_BODY_BYTES:
        return None
    try:
        parsed = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Two members of one name, or text that Django would refuse: whatever isn't plain goes there.
    if body.count(b'"') > 2 * 2 * 3 or b"\\" in body:
        return None
    return schemas.claim_request(parsed)


def _problem(protocol: Any, request_id: str, problem: ProblemError) -> None:
    said = [(name.lower(), value) for name, value in problem.headers.items()]
    headers = [*_PROBLEM_HEADERS, *said, ("x-request-id", request_id)]
    protocol.response_bytes(problem.status, headers, body_of(problem, request_id))


def _answer(
    protocol: Any, request_id: str, outcome: Outcome, view: PacketView, caller: Caller
) -> None:
    headers = [*_CLAIM_HEADERS, ("x-request-id", request_id)]
    if outcome.retry_after_s is not None:
        headers.append(("retry-after", str(outcome.retry_after_s)))
    answer = shapes.claim_answer(outcome, view, caller.participant)
    if not outcome.test:
        counters.count(f"{view.id.hex}:{outcome.result}")
    protocol.response_bytes(200, headers, msgspec.json.encode(answer))


def _environ(scope: Any, body: bytes, server: tuple[str, str]) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path,
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": server[0],
        "SERVER_PORT": server[1],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": scope.client.rpartition(":")[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body[: MAX_EVENTS_BODY_BYTES + 1]),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[key] = value
        elif key not in ("TRANSFER_ENCODING",):
            environ[f"HTTP_{key}"] = value
    # A body that is declared too large was not read: Django refuses it by what was declared.
    environ.setdefault("CONTENT_LENGTH", str(len(body)))
    return environ


application = Door()
