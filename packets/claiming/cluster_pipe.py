"""The pipe to a cluster: one multiplexed connection to every master, and the map of the slots.

Every command of ours touches the keys of one lane, which share a hash tag and so a slot. A node
that doesn't have the slot says who does: MOVED changes the map (and has it read anew, once at a
time), ASK sends this one command to where the slot is going. What a slot on its way can't answer
yet (TRYAGAIN) is asked again for a while. A node that is gone has the map read from another one.

Invariant: a command is sent again only where it wasn't performed, or where its connection broke
and it is idempotent, as every script is.
"""

from __future__ import annotations

import asyncio
import binascii
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hiredis
import structlog
from django.conf import settings

from engine.lib.lua import Argument, Call
from packets.claiming.effects import RedisAway, RedisLost, Unavailable
from packets.claiming.pipe import TIMEOUT_S, Address, Command, Pipe, address_of, checked

log = structlog.get_logger(__name__)

SLOTS = 16_384
MAX_REDIRECTS = 5  # of one command; more means that nodes disagree
TRY_AGAIN_S = 0.02  # between two tries of a command whose slot is on its way
MAX_TRY_AGAIN_S = 2.0  # then the client may ask again
REFRESH_EVERY_S = 0.1  # the map is read at most so often


def slot_of(key: Argument) -> int:
    """The slot of a key: CRC16 of what stands between its first braces, or of all of it."""
    name = key if isinstance(key, bytes) else str(key).encode()
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return binascii.crc_hqx(name, 0) % SLOTS


class ClusterPipe:
    """What a Pipe is to one server, to all masters of a cluster."""

    def __init__(self, seed: Address) -> None:
        self._seed_address = seed
        self._seed = Pipe(seed)
        self._pipes: dict[tuple[str, int], Pipe] = {}
        self._owners: list[Pipe | None] = [None] * SLOTS
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = 0.0
        self._turn = itertools.count()

    # --- what drivers call ------------------------------------------------------------------------

    async def call(self, call: Call) -> Any:
        """The script's reply. Raises Unavailable."""
        slot = slot_of(call.keys[0])
        reply = await self._ask(slot, call.by_sha())
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await self._ask(slot, call.by_text())
        return checked(reply)

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """The replies of several scripts that are on their way together, to whichever node."""
        return list(await asyncio.gather(*map(self.call, calls)))

    async def ask(self, command: Command) -> Any:
        """The reply of a command that changes nothing."""
        return await self.command(command)

    async def command(self, command: Command) -> Any:
        """The reply of a command whose first argument is a key; an error is a value."""
        return await self._ask(slot_of(command[1]), command)

    def send(self, command: Command) -> None:
        """Send and forget; lost where the slot's owner isn't known or is another one by now."""
        pipe = self._owners[slot_of(command[1])]
        if pipe is not None:
            pipe.send(command)

    def renew(self) -> None:
        """From now on commands go through new connections, by a map that is read anew."""
        for pipe in self._pipes.values():
            pipe.renew()
        self._refresh_soon()

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        for pipe in (self._seed, *self._pipes.values()):
            pipe.abort()

    # --- one command ------------------------------------------------------------------------------

    async def _ask(self, slot: int, command: Command) -> Any:
        since = time.monotonic()
        redirects = 0
        pipe = self._owners[slot] or await self._owner(slot)
        asking = False
        while True:
            try:
                reply = await (pipe.asking(command) if asking else pipe.command(command))
            except RedisAway as trouble:
                # Its connection broke, or the node is gone: another one knows who has the slot.
                redirects += 1
                await self._refresh()
                owner = self._owners[slot]
                gone = owner is pipe and not isinstance(trouble, RedisLost)
                if owner is None or gone or redirects > MAX_REDIRECTS:
                    raise
                pipe, asking = owner, False
                continue
            if not isinstance(reply, hiredis.ReplyError):
                return reply
            kind, *rest = str(reply).split(" ", 2)
            if kind == "TRYAGAIN":
                if time.monotonic() - since > MAX_TRY_AGAIN_S:
                    raise Unavailable("Redis: the slot is on its way")
                await asyncio.sleep(TRY_AGAIN_S)
                pipe, asking = self._owners[slot] or await self._owner(slot), False
                continue
            if kind not in ("MOVED", "ASK"):
                return reply
            redirects += 1
            if redirects > MAX_REDIRECTS:
                raise Unavailable(f"Redis: redirected {redirects} times")
            pipe, asking = self._pipe_at(rest[1], pipe), kind == "ASK"
            if not asking:
                self._owners[slot] = pipe
                self._refresh_soon()

    async def _owner(self, slot: int) -> Pipe:
        """The master of a slot that isn't in the map yet."""
        await self._refresh()
        pipe = self._owners[slot]
        if pipe is None:
            raise RedisAway("Redis: the slot has no master")
        return pipe

    def _pipe_at(self, endpoint: str, told_by: Pipe) -> Pipe:
        """The pipe to `host:port`; without a host it is the one of the node that said so."""
        host, _, port = endpoint.rpartition(":")
        return self._pipe(host.strip("[]") or told_by.address.host, int(port))

    def _pipe(self, host: str, port: int) -> Pipe:
        found = self._pipes.get((host, port))
        if found is None:
            address = replace(self._seed_address, host=host, port=port)
            found = self._pipes[host, port] = Pipe(address)
        return found

    # --- the map ----------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Read the map, together with whoever else wants it read."""
        self._refresh_soon()
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)

    def _refresh_soon(self) -> None:
        if self._refreshing is None and time.monotonic() - self._refreshed_at > REFRESH_EVERY_S:
            self._refreshing = asyncio.create_task(self._read_map())
            self._refreshing.add_done_callback(self._refreshed)

    def _refreshed(self, _: asyncio.Task[None]) -> None:
        self._refreshing = None
        self._refreshed_at = time.monotonic()

    async def _read_map(self) -> None:
        """From the first node that answers; another one first each time, lest one be behind."""
        known = [*self._pipes.values()]
        first = next(self._turn) % len(known) if known else 0
        for pipe in (*known[first:], *known[:first], self._seed):
            try:
                reply = await asyncio.wait_for(pipe.command((b"CLUSTER", b"SLOTS")), TIMEOUT_S)
            except (Unavailable, TimeoutError):
                continue
            if isinstance(reply, hiredis.ReplyError) or not reply:
                continue
            self._take(reply, pipe)
            return
        log.warning("cluster_unknown", asked=len(known) + 1)

    def _take(self, ranges: list[Any], told_by: Pipe) -> None:
        """`ranges`: [first slot, last slot, [host, port, …] of the master, replicas …]."""
        owners: list[Pipe | None] = [None] * SLOTS
        for first, last, master, *_ in ranges:
            host = (master[0] or b"").decode() or told_by.address.host
            owners[first : last + 1] = [self._pipe(host, master[1])] * (last + 1 - first)
        self._owners = owners
        masters = set(owners)
        for place, pipe in [*self._pipes.items()]:
            if pipe not in masters:
                # What it was asked may still be answered.
                del self._pipes[place]
                asyncio.get_running_loop().call_later(TIMEOUT_S, pipe.abort)


def stock_pipe() -> Pipe | ClusterPipe:
    """To wherever the settings say that the stock is."""
    address = address_of(settings.REDIS_URL)
    return ClusterPipe(address) if settings.REDIS_CLUSTER else Pipe(address)
