"""Performs the flow's effects for one simulated process: the synchronous driver's own code, with
a link that can break, a circuit without a thread and a committer whose answers can get lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from packets import rebalancing, stock
from packets.claiming import circuit, registry
from packets.claiming.effects import (
    ClaimDirect,
    Commit,
    Committed,
    Effect,
    PacketView,
    PushFlags,
    Refill,
    Reservation,
    Reserve,
    Reserved,
    Slot,
    Truth,
    Unavailable,
)
from packets.claiming.journal import _COMMIT, Journal, _committed, _values, connect
from packets.claiming.sync import SyncDriver
from tests.conftest import wait_until
from tests.simulator.links import Link
from tests.simulator.oracle import Violation


class Circuit(circuit.Circuit):
    """The scheduler says when Redis is back, and when a followed lane is looked at again."""

    def trip(self, why: object) -> None:
        self._away = True

    def follow(self, slot: Slot) -> None:
        self._followed[slot.lane_id] = float("inf")

    def back(self) -> None:
        self._away = False
        self._followed.clear()


@dataclass
class Committer:
    """One row at a time, on the run's one connection."""

    journal: Journal

    def check(self, lane_id: int) -> None:
        """Nothing waits here, so nothing is late."""

    def commit(self, row: Commit | ClaimDirect) -> Committed:
        (answer,) = self.journal.commit(row.slot.lane_id, [row])
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    def truth(self, slot: Slot) -> Truth:
        return self.journal.truth(slot)

    def overlapped(self, row: Commit) -> Committed:
        """The same commit from two sessions: the second waits for the lane while the first ends."""
        first = connect()
        found: list[Any] = []

        def second() -> None:
            try:
                found.append(self.commit(row))
            except Exception as error:
                found.append(error)

        try:
            first.execute("BEGIN")
            values = _values(row.slot.lane_id, [row], [row.portion])
            (answer,) = first.execute(_COMMIT, values).fetchall()
            thread = threading.Thread(target=second)
            thread.start()
            backend = self.journal._open().info.backend_pid
            waits = "SELECT NOT granted FROM pg_locks WHERE pid = %s AND NOT granted"
            wait_until(lambda: found or first.execute(waits, [backend]).fetchone())
            first.execute("COMMIT")
            thread.join()
        finally:
            first.close()
        if isinstance(found[0], Exception):
            raise found[0]
        if _committed(answer).claimed != found[0].claimed:
            raise Violation("two sessions were told different things about one claim")
        return found[0]  # type: ignore[no-any-return]


@dataclass
class Process(SyncDriver):
    """A process of a door: its memory is its circuit and its view of the packet."""

    client: Link
    committer: Committer
    circuit: Circuit = field(default_factory=Circuit)
    view: PacketView | None = None

    def look(self, packet: Any) -> PacketView:
        if self.view is None:
            self.view = registry.read(packet)
        assert self.view is not None
        return self.view

    def forget(self) -> None:
        self.circuit.back()
        self.view = None

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, PushFlags):
            # Without the real one's limit of one a second: time is the scheduler's.
            self.view = None
            return None if self.circuit.is_open() else stock.push_flags(self.client, effect.packet)
        if isinstance(effect, Refill):
            # Without the real one's thread: the scheduler makes the move.
            slot = effect.slot
            return rebalancing.note(self.client, slot.packet, {slot.lane_number: 1})
        return super()._perform(effect)

    def _reserve(self, effect: Reserve) -> Reservation:
        slot = effect.slot
        key = stock.bucket_key(slot.packet, slot.lane_number, slot.bucket)
        usable = not self.circuit.is_open() and not self.client.wire.away
        known = None
        if usable and not self.client.wire.fate:
            known = self.client.hget(key, stock.member(slot.participant, slot.serial))
        answer = super()._reserve(effect)
        marked = known is not None and not known.endswith(b",0")
        if marked and answer.code in (Reserved.NEW, Reserved.REPEAT):
            raise Violation("somebody whose claim is marked was given a reservation")
        return answer
