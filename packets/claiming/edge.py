"""The driver for the peak: thousands of claims in flight on one event loop.

It performs the same effects of the same flow as `sync.py`, but together: the scripts of one turn of
the loop go to Redis as one write on a multiplexed connection, and while a commit of a lane is on
its way the next batch gathers. Rare effects (a rebuild, a list to look into) run in a thread.

Everything that waits is bounded: a queue that is full, or commits that run late, answer 503 before
anything is reserved.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, assert_never

import structlog
from django.db import close_old_connections

from engine.lib.clock import to_ms
from packets import demand, stock
from packets.claiming import circuit, flow, inviters, winners
from packets.claiming.cluster_pipe import ClusterPipe
from packets.claiming.effects import (
    AskInviter,
    AskPostgres,
    AskTargeted,
    ChargeAmount,
    CheckLimits,
    ClaimDirect,
    CloseEnded,
    Commit,
    Committed,
    Effect,
    GiveBack,
    Mark,
    MayHaveWon,
    Outcome,
    Peek,
    Peeked,
    PushFlags,
    Rebuild,
    RedisAway,
    Refill,
    Reservation,
    Reserve,
    Reserved,
    Slot,
    Truth,
    TryPassword,
    Unavailable,
    Verdict,
)
from packets.claiming.journal import Journal
from packets.claiming.limits import Asked, asked
from packets.claiming.pipe import Pipe
from packets.claiming.sync import (
    SyncDriver,
    count_calls,
    password_call,
    peeked,
    record_place,
    reservation_of,
    reserve_call,
    without_redis,
)
from packets.claiming.trouble import LATE_AFTER_S, MAX_WAIT_S, Trouble

log = structlog.get_logger(__name__)

CONNECTIONS = 3  # of one process to Postgres: two for commits, and one more for look-ups
MAX_BATCH = 128  # rows of one commit, or slots of one look-up
MAX_QUEUED = 4_096  # claims of one lane that may wait for their commit
SLOW_THREADS = 4  # for the rare effects

Job = tuple[Any, "asyncio.Future[Any]", float]


@dataclass
class Lanes:
    """Batches per lane over a bounded number of connections: one in flight for each lane.

    `work` runs in a thread with a journal: (journal, lane id, jobs) → answers, in order.
    """

    loop: asyncio.AbstractEventLoop
    threads: ThreadPoolExecutor
    idle: list[Journal]
    work: Callable[[Journal, int, Sequence[Any]], Sequence[Any]]
    on_idle: list[Callable[[], None]] = field(default_factory=list)
    trouble: Trouble = field(default_factory=Trouble)
    _queues: dict[int, collections.deque[Job]] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)

    def submit(self, lane_id: int, job: Any) -> asyncio.Future[Any]:
        self.trouble.check(lane_id)
        queue = self._queues.setdefault(lane_id, collections.deque())
        if len(queue) >= MAX_QUEUED:
            raise Unavailable("the commit queue is full")
        future: asyncio.Future[Any] = self.loop.create_future()
        queue.append((job, future, time.monotonic()))
        if len(queue) == 1:
            # The claims of this turn of the loop gather before the first batch leaves.
            self.loop.call_soon(self.start, lane_id)
        return future

    def check(self, lane_id: int) -> None:
        """Raises Unavailable where a portion reserved now would wait for its commit too long.

        Of this lane alone: one in trouble holds up no other.
        """
        self.trouble.check(lane_id)
        queue = self._queues.get(lane_id)
        if queue and time.monotonic() - queue[0][2] > LATE_AFTER_S:
            raise Unavailable("commits are late")

    def start(self, lane_id: int) -> None:
        if lane_id in self._busy:
            return
        self._refuse(lane_id, MAX_WAIT_S, "the commit queue is too long")
        queue = self._queues.get(lane_id)
        if not queue or not self.trouble.may_start(lane_id, len(self.idle)):
            return
        journal = self.idle.pop()
        self._busy.add(lane_id)
        batch = [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]
        if not queue:
            del self._queues[lane_id]
        running = self.loop.run_in_executor(
            self.threads, self.work, journal, lane_id, [job for job, _, _ in batch]
        )
        running.add_done_callback(functools.partial(self._done, lane_id, journal, batch))

    def start_any(self) -> None:
        """Whoever waits longest first."""
        waiting = sorted(
            (queue[0][2], lane_id)
            for lane_id, queue in self._queues.items()
            if lane_id not in self._busy and queue
        )
        for _, lane_id in waiting:
            self.start(lane_id)

    def _refuse(self, lane_id: int, older_than_s: float, why: str) -> None:
        """Whoever waits longer than this may ask again: what they reserved is theirs."""
        queue = self._queues.get(lane_id, collections.deque())
        since = time.monotonic() - older_than_s
        while queue and queue[0][2] <= since:
            _, future, _ = queue.popleft()
            if not future.cancelled():
                future.set_exception(Unavailable(why))
        if not queue:
            self._queues.pop(lane_id, None)

    def _done(
        self, lane_id: int, journal: Journal, batch: list[Job], running: asyncio.Future[Any]
    ) -> None:
        self._busy.discard(lane_id)
        self.idle.append(journal)
        error = running.exception()
        answers = [error] * len(batch) if error is not None else running.result()
        self.trouble.learn(lane_id, answers)
        if self.trouble.has(lane_id):
            self._refuse(lane_id, 0.0, "the lane is in trouble")
        for (_, future, _), answer in zip(batch, answers, strict=True):
            if future.cancelled():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        for wake in self.on_idle:
            wake()


class EdgeDriver:
    """Performs the effects of many flows on the running loop."""

    def __init__(self, pipe: Pipe | ClusterPipe) -> None:
        self.loop = asyncio.get_running_loop()
        self.pipe = pipe
        self.circuit = circuit.of_process()
        self.threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="postgres")
        self.slow_threads = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="slow")
        commits, asks = [Journal() for _ in range(CONNECTIONS - 1)], [Journal()]
        self.commits = Lanes(self.loop, self.threads, commits, Journal.commit)
        self.asks = Lanes(self.loop, self.threads, asks, _truths)
        self._once: dict[Any, asyncio.Future[Any]] = {}
        self.commits.on_idle = [self.commits.start_any]
        self.asks.on_idle = [self.asks.start_any]

    async def run(self, steps: flow.Flow) -> Outcome:
        reply: Any = None
        trouble: Unavailable | None = None
        try:
            while True:
                effect = steps.send(reply) if trouble is None else steps.throw(trouble)
                trouble = None
                # What is known at once needs no coroutine; most people of a night are told so.
                if isinstance(effect, Mark):
                    self._mark(effect)
                    reply = None
                elif isinstance(effect, MayHaveWon):
                    reply = winners.ask(effect.slot)
                    if reply is None:
                        reply = await self.perform(effect)
                else:
                    try:
                        reply = await self.perform(effect)
                    except Unavailable as error:
                        trouble = error  # the flow's to judge: it may have to give something back
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    async def perform(self, effect: Effect) -> Any:
        match effect:
            case Reserve():
                return await self._reserve(effect)
            case Commit():
                committed: Committed = await self.commits.submit(effect.slot.lane_id, effect)
                return committed
            case ClaimDirect():
                return await self._claim_direct(effect)
            case Mark():
                return self._mark(effect)
            case AskPostgres():
                truth: Truth = await self.asks.submit(effect.slot.lane_id, effect.slot)
                return truth
            case TryPassword():
                return await self._try_password(effect)
            case Peek():
                return await self._peek(effect)
            case AskInviter():
                inviter = inviters.known(effect.code)
                if inviter is None:
                    inviter = await self.slow_once(effect, SyncDriver().perform, effect)
                return inviter
            case CheckLimits():
                return await self._check_limits(effect)
            case GiveBack() | ChargeAmount():
                return await self._count(effect)
            case Rebuild():
                if effect.seen_epoch is not None:
                    self.pipe.renew()
                # A crowd that meets a fenced lane needs it mended once.
                key = "rebuild", effect.slot.lane_id
                return await self.slow_once(key, SyncDriver().perform, effect)
            case Refill():
                return demand.of_process().ask(effect.slot.packet, effect.slot.lane_number)
            case CloseEnded():
                # One waits for a lane in somebody's hands, not every thread for the whole crowd.
                return await self.slow_once(effect, SyncDriver().perform, effect)
            case MayHaveWon():
                # The first one has the filter read, for all.
                read = "winners", effect.slot.packet
                await self.slow_once(read, SyncDriver().perform, effect)
                return winners.ask(effect.slot) is not False
            case AskTargeted() | PushFlags():
                return await self.slow(SyncDriver().perform, effect)
            case _:
                assert_never(effect)

    async def slow(self, work: Callable[..., Any], *args: Any) -> Any:
        return await self.loop.run_in_executor(self.slow_threads, _in_order, work, *args)

    async def slow_once(self, key: Any, work: Callable[..., Any], *args: Any) -> Any:
        """The same, but callers of one key that come while it runs share its result."""
        running = self._once.get(key)
        if running is None:
            running = self.loop.run_in_executor(self.slow_threads, _in_order, work, *args)
            self._once[key] = running
            running.add_done_callback(lambda _: self._once.pop(key, None))
        return await asyncio.shield(running)

    async def _reserve(self, effect: Reserve) -> Reservation:
        self.commits.check(effect.slot.lane_id)
        if (without := without_redis(self.circuit, effect.slot)) is not None:
            return without
        try:
            return reservation_of(await self.pipe.call(reserve_call(effect)))
        except RedisAway as trouble:
            self.circuit.trip(trouble)
            return Reservation(Reserved.UNREACHABLE)

    async def _peek(self, effect: Peek) -> Peeked:
        if self.circuit.is_open():
            return Peeked(away=True)
        try:
            text = await self.pipe.ask((b"HGET", *record_place(effect.slot)))
        except RedisAway as trouble:
            self.circuit.trip(trouble)
            return Peeked(away=True)
        return peeked(effect.slot, text if isinstance(text, bytes) else b"")

    async def _check_limits(self, effect: CheckLimits) -> tuple[Asked, ...]:
        try:
            replies = await self.pipe.calls([charge.ask() for charge in effect.charges])
        except RedisAway as trouble:
            self.circuit.trip(trouble)
            raise
        return tuple(map(asked, effect.charges, replies))

    async def _count(self, effect: GiveBack | ChargeAmount) -> None:
        """What becomes of a claim after its answer is known: it must not change that answer."""
        try:
            await self.pipe.calls(count_calls(effect))
        except Unavailable as trouble:
            log.warning("count_lost", error=trouble.what)

    async def _claim_direct(self, effect: ClaimDirect) -> Committed:
        committed: Committed = await self.commits.submit(effect.slot.lane_id, effect)
        if committed.verdict is Verdict.FENCED:
            self.circuit.unfollow(effect.slot)
        return committed

    async def _try_password(self, effect: TryPassword) -> bool:
        """Tries are counted in Redis alone: without it, no pass phrase may be guessed at."""
        if self.circuit.is_open():
            raise RedisAway("Redis is away: tries can't be counted")
        try:
            return bool(await self.pipe.call(password_call(effect)))
        except RedisAway as trouble:
            self.circuit.trip(trouble)
            raise

    def _mark(self, effect: Mark) -> None:
        if self.circuit.is_open():
            return
        slot = effect.slot
        self.pipe.send(
            (
                b"HSET",
                stock.bucket_key(slot.packet, slot.lane_number, slot.bucket),
                stock.member(slot.participant, slot.serial),
                stock.record(effect.claimed.portion, to_ms(effect.claimed.committed_at)),
            )
        )

    async def close(self) -> None:
        self.threads.shutdown(wait=True)
        self.slow_threads.shutdown(wait=True)
        for journal in (*self.commits.idle, *self.asks.idle):
            journal.close()
        await self.pipe.close()


def _in_order(work: Callable[..., Any], *args: Any) -> Any:
    """Django lets go of a connection at the end of a request, and here are none: without this, one
    that Postgres cut would be this thread's for ever, and whatever it is asked would fail."""
    try:
        return work(*args)
    finally:
        close_old_connections()


def _truths(journal: Journal, lane_id: int, slots: Sequence[Slot]) -> list[Truth]:
    return journal.truths(slots)
