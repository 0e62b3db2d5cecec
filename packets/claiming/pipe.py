"""Many claims share one connection to Redis: what a turn of the loop sends goes as one write.

hiredis packs and parses; this module only decides when to write and which reply belongs to whom.
Replies come in the order of the commands, so a connection needs no more than a queue of futures.
(A pipeline of redis-py costs 10–11 µs a command on the loop, valkey-glide 21–29 µs, this 3 µs:
`tests/bench/clients.py` prints them side by side, docs/adr/0008-the-edge.md keeps the table.)

A connection that breaks breaks everything in it: scripts are sent once more through a new one,
since every script is idempotent. A server that says nothing isn't asked again; its callers hear
that it is away.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis
import structlog

from engine.lib.lua import Argument, Call
from packets.claiming.circuit import says_away
from packets.claiming.effects import RedisAway, RedisLost, Unavailable

log = structlog.get_logger(__name__)

MAX_IN_FLIGHT = 8_192  # commands without an answer yet; beyond, the client hears 503
CONNECT_TIMEOUT_S = 0.3
TIMEOUT_S = 0.5  # a script takes microseconds; past this the server is gone or stalled
RENEW_AFTER_S = 1.0  # an older connection may lead to a master that was replaced
RETRY_CONNECT_S = 0.1  # between two attempts to connect to a server that refuses

Command = tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    username: str = ""
    password: str = ""
    database: int = 0


def address_of(url: str) -> Address:
    """From `redis://user:password@host:port/db`."""
    parts = urlsplit(url)
    return Address(
        parts.hostname or "127.0.0.1",
        parts.port or 6379,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        int(parts.path.strip("/") or 0),
    )


class _Wire(asyncio.Protocol):
    """One connection: commands out, replies in, in the same order."""

    def __init__(self) -> None:
        self.reader = hiredis.Reader()
        self.waiting: collections.deque[asyncio.Future[Any]] = collections.deque()
        self.unsent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.stalled = False
        self.loop = asyncio.get_running_loop()
        self.since = self.last_reply = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Both event loops in use set TCP_NODELAY by themselves.
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        kind = RedisAway if self.stalled else RedisLost
        trouble = kind(f"Redis: connection lost ({type(exc).__name__ if exc else 'closed'})")
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_exception(trouble)

    def data_received(self, data: bytes) -> None:
        self.last_reply = time.monotonic()
        self.reader.feed(data)
        waiting = self.waiting
        while (reply := self.reader.gets()) is not False:
            future = waiting.popleft()
            if not future.done():
                future.set_result(reply)

    def send(self, command: Command) -> asyncio.Future[Any]:
        if len(self.waiting) >= MAX_IN_FLIGHT:
            raise Unavailable("Redis: too many commands in flight")
        if not self.waiting:
            self.last_reply = time.monotonic()
        future: asyncio.Future[Any] = self.loop.create_future()
        self.waiting.append(future)
        if not self.unsent:
            self.loop.call_soon(self._flush)
        self.unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        return future

    def _flush(self) -> None:
        data, self.unsent = b"".join(self.unsent), []
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Pipe:
    """A connection to one server that many callers share."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[_Wire] | None = None
        self._refused_until = 0.0
        self._watch: asyncio.TimerHandle | None = None

    async def call(self, call: Call) -> Any:
        """The script's reply. Raises Unavailable."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        try:
            reply = await wire.send(call.by_sha())
        except RedisLost:
            # Cut on its way, by whatever stands between; a server that is gone refuses the next.
            reply = await self.command(call.by_sha())
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        if str(reply).startswith("NOSCRIPT"):
            reply = await self.command(call.by_text())
        return checked(reply)

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """The replies of several scripts that are on their way together."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        sent = [(call, wire.send(call.by_sha())) for call in calls]
        for _, answer in sent:
            answer.add_done_callback(_ignore)  # one may fail while another is waited for
        replies = []
        for call, answer in sent:
            try:
                reply = await answer
            except RedisLost:
                reply = await self.call(call)
            refused = isinstance(reply, hiredis.ReplyError)
            replies.append(await self.call(call) if refused else reply)
        return replies

    async def ask(self, command: Command) -> Any:
        """The reply of a command that changes nothing; asked again where the connection broke."""
        try:
            return await self.command(command)
        except RedisLost:
            return await self.command(command)

    async def command(self, command: Command) -> Any:
        """The reply as hiredis gives it; an error of the server is a value."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        return await wire.send(command)

    async def asking(self, command: Command) -> Any:
        """The same to a node of a cluster that the key's slot is only just moving to."""
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        wire.send((b"ASKING",)).add_done_callback(_ignore)
        return await wire.send(command)

    def send(self, command: Command) -> None:
        """Send and forget; lost where there is no connection now, or too much on its way."""
        wire = self._wire
        if wire is not None and wire.transport is not None and len(wire.waiting) < MAX_IN_FLIGHT:
            wire.send(command).add_done_callback(_ignore)

    def renew(self) -> None:
        """From now on commands go through a new connection; the old one's are still answered."""
        wire = self._wire
        if wire is not None and time.monotonic() - wire.since > RENEW_AFTER_S:
            self._wire = None
            wire.loop.call_later(TIMEOUT_S, wire.abort)

    async def _connect(self) -> _Wire:
        if self._connecting is None:
            if time.monotonic() < self._refused_until:
                raise RedisAway("Redis: no connection")
            self._connecting = asyncio.create_task(self._open())
            self._connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(self._connecting)
        except (OSError, TimeoutError) as error:
            raise RedisAway(f"Redis: {type(error).__name__}") from error

    def _connected(self, task: asyncio.Task[_Wire]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            self._refused_until = time.monotonic() + RETRY_CONNECT_S

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        _, wire = await asyncio.wait_for(
            loop.create_connection(_Wire, self.address.host, self.address.port), CONNECT_TIMEOUT_S
        )
        try:
            for command in self._greeting():
                reply = await asyncio.wait_for(wire.send(command), CONNECT_TIMEOUT_S)
                if isinstance(reply, hiredis.ReplyError):
                    raise RedisAway(f"Redis: {reply}")
        except BaseException:
            wire.abort()  # one that accepts and says nothing would keep it open for ever
            raise
        self._wire = wire
        if self._watch is None:
            self._watch = loop.call_later(TIMEOUT_S / 2, self._look)
        return wire

    def _greeting(self) -> list[Command]:
        address = self.address
        commands: list[Command] = []
        if address.password:
            user: Command = (address.username,) if address.username else ()
            commands.append((b"AUTH", *user, address.password))
        if address.database:
            commands.append((b"SELECT", address.database))
        return commands or [(b"PING",)]

    def _look(self) -> None:
        """A server that accepts commands and doesn't answer is as good as gone."""
        wire = self._wire
        if wire is not None and wire.waiting and time.monotonic() - wire.last_reply > TIMEOUT_S:
            log.warning("redis_stalled", in_flight=len(wire.waiting))
            wire.stalled = True
            wire.abort()
        self._watch = asyncio.get_running_loop().call_later(TIMEOUT_S / 2, self._look)

    def abort(self) -> None:
        """Whoever still waits for an answer hears that the connection is lost."""
        if self._watch is not None:
            self._watch.cancel()
        if self._wire is not None:
            self._wire.abort()

    async def close(self) -> None:
        self.abort()


def checked(reply: Any) -> Any:
    """The reply; raises Unavailable where it is an error."""
    if isinstance(reply, hiredis.ReplyError):
        raise (RedisAway if says_away(str(reply)) else Unavailable)(f"Redis: {reply}")
    return reply


def _ignore(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
