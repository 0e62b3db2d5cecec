"""The threads of a process share one group committer with two connections.

While a batch of a lane is on its way, the claims that arrive gather into the next one: many claims,
one flush of the disk. A lane has one batch in flight, so a lane in trouble occupies one connection
and the other lanes go on. No thread of its own: the thread that finds its lane free and a
connection unused leads the batch for everybody waiting.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from packets.claiming.effects import Committed, Slot, Truth, Unavailable
from packets.claiming.journal import Journal, Row
from packets.claiming.trouble import LATE_AFTER_S, MAX_WAIT_S, Trouble

CONNECTIONS = 2  # of one process; more would only queue at the same lane's lock
MAX_BATCH = 128  # rows of one commit


@dataclass
class _Entry:
    commit: Row
    since: float
    taken: bool = False
    outcome: Committed | Unavailable | BaseException | None = None


@dataclass
class GroupCommitter:
    """`commit` blocks until Postgres has answered for this claim."""

    new_journal: Callable[[], Journal] = Journal
    connections: int = CONNECTIONS
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: dict[int, collections.deque[_Entry]] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)
    _idle: list[Journal] = field(default_factory=list)
    _trouble: Trouble = field(default_factory=lambda: Trouble())

    def __post_init__(self) -> None:
        self._idle = [self.new_journal() for _ in range(self.connections)]

    def check(self, lane_id: int) -> None:
        """Raises Unavailable where a portion reserved now would wait for its commit too long.

        Of this lane alone: one in trouble holds up no other.
        """
        with self._changed:
            self._trouble.check(lane_id)
            queue = self._waiting.get(lane_id)
            if queue and time.monotonic() - queue[0].since > LATE_AFTER_S:
                raise Unavailable("commits are late")

    def commit(self, commit: Row) -> Committed:
        lane_id = commit.slot.lane_id
        self._trouble.check(lane_id)
        entry = _Entry(commit, time.monotonic())
        with self._changed:
            self._waiting.setdefault(lane_id, collections.deque()).append(entry)
        while entry.outcome is None:
            led = self._next_batch(lane_id, entry)
            if led is not None:
                self._lead(lane_id, *led)
        if isinstance(entry.outcome, Committed):
            return entry.outcome
        raise entry.outcome

    def _next_batch(self, lane_id: int, entry: _Entry) -> tuple[Journal, list[_Entry]] | None:
        """Wait until answered (None), or until this thread is to lead a batch of its lane."""
        with self._changed:
            while entry.outcome is None:
                queue = self._waiting.get(lane_id)
                if (
                    queue
                    and lane_id not in self._busy
                    and self._trouble.may_start(lane_id, len(self._idle))
                ):
                    self._busy.add(lane_id)
                    batch = [queue.popleft() for _ in range(min(len(queue), MAX_BATCH))]
                    if not queue:
                        del self._waiting[lane_id]
                    for taken in batch:
                        taken.taken = True
                    return self._idle.pop(), batch
                left_s = entry.since + MAX_WAIT_S - time.monotonic()
                if not entry.taken and left_s <= 0:
                    assert queue is not None
                    queue.remove(entry)
                    raise Unavailable("the commit queue is too long")
                self._changed.wait(None if entry.taken else left_s)
        return None

    def _lead(self, lane_id: int, journal: Journal, batch: list[_Entry]) -> None:
        outcomes: list[Committed | Unavailable] | list[BaseException]
        try:
            outcomes = journal.commit(lane_id, [entry.commit for entry in batch])
        except BaseException as error:  # noqa: BLE001 (whatever it is, nobody may wait for ever)
            outcomes = [error] * len(batch)
        with self._changed:
            self._trouble.learn(lane_id, outcomes)
            for entry, outcome in zip(batch, outcomes, strict=True):
                entry.outcome = outcome
            self._busy.discard(lane_id)
            self._idle.append(journal)
            self._changed.notify_all()

    def truth(self, slot: Slot) -> Truth:
        """Postgres's word on a slot, on one of the same connections."""
        until = time.monotonic() + MAX_WAIT_S
        with self._changed:
            while not self._idle:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise Unavailable("no committing connection is free")
                self._changed.wait(left_s)
            journal = self._idle.pop()
        try:
            return journal.truth(slot)
        finally:
            with self._changed:
                self._idle.append(journal)
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            for journal in self._idle:
                journal.close()


_committers: dict[int, GroupCommitter] = {}
_lock = threading.Lock()


def of_process() -> GroupCommitter:
    """This process's committer; a forked child gets one of its own."""
    with _lock:
        pid = os.getpid()
        if pid not in _committers:
            _committers.clear()
            _committers[pid] = GroupCommitter()
        return _committers[pid]


def reset() -> None:
    """Close the connections and start anew (tests switch databases)."""
    with _lock:
        for committer in _committers.values():
            committer.close()
        _committers.clear()
