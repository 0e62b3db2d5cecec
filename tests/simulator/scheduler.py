"""Runs one seed: chooses the next step, performs it, and has the oracle look after each.

Everything is decided by the seed's random numbers, so the same seed takes the same steps. At the
end all faults are mended and everybody asks again until the answer is one for good.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from engine.lib.errors import TransitionRefused
from packets import closing, ledger, rebalancing, recovery, services, settlement
from packets.claiming import flow
from packets.claiming.effects import (
    ClaimRequest,
    Commit,
    Effect,
    Outcome,
    Reserve,
    Result,
    Slot,
    Unavailable,
)
from packets.claiming.sync import password_key, ticket_keys
from packets.models import Lane, Packet
from tests.simulator.links import MASTER, Killed
from tests.simulator.oracle import FINAL, Oracle, holds
from tests.simulator.world import World

HEALING_ROUNDS = 12
MAX_FLOWS = 6


@dataclass
class Request:
    """A claim under way in a process."""

    who: str
    process: int
    steps: flow.Flow
    slot: Slot
    had_won: bool
    pending: Effect | None = None


@dataclass
class Simulation:
    seed: int
    world: World
    oracle: Oracle
    rng: random.Random
    trace: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    late: list[tuple[int, Effect]] = field(default_factory=list)  # sent, and not arrived yet
    redis_changed: bool = False

    def say(self, text: str) -> None:
        self.trace.append(text)

    # --- claims -----------------------------------------------------------------------------------

    def tickets(self) -> list[tuple[int, int]]:
        return list(self.world.tickets) or [(i, 0) for i in range(len(self.world.callers))]

    def begin(self, who: tuple[int, int] | None = None, process: int | None = None) -> Request:
        i, serial = who or self.rng.choice(self.tickets())
        number = self.rng.randrange(len(self.world.base.processes)) if process is None else process
        view = self.world.base.processes[number].look(self.world.packet.id)
        caller = self.world.callers[i]
        slot = flow.slot_of(view, caller.participant, serial)
        asked = ClaimRequest(ticket=self.world.tickets.get((i, serial)))
        steps = flow.claim(view, caller, asked, password_key(), ticket_keys())
        had_won = slot.claim_id in self.oracle.claims
        request = Request(f"{i}/{serial}", number, steps, slot, had_won)
        self.requests.append(request)
        self.say(f"{request.who} asks process {number}")
        self._send(request, None)
        return request

    def _send(self, request: Request, reply: Any) -> Outcome | None:
        try:
            request.pending = request.steps.send(reply)
            return None
        except StopIteration as stop:
            outcome: Outcome = stop.value
            self.requests.remove(request)
            self.say(f"{request.who} hears {outcome.result}")
            self.look()
            self.oracle.answered(request.slot, outcome, request.had_won)
            return outcome

    def advance(self, request: Request, fate: str = "") -> Outcome | None:
        """Perform what a request waits for, and give it the reply. `fate` says what goes wrong."""
        effect, process = request.pending, self.world.base.processes[request.process]
        assert effect is not None
        self.say(f"{request.who} {type(effect).__name__} {fate}".rstrip())
        if fate in ("late", "dies"):
            self.requests.remove(request)
            if fate == "late":
                self.late.append((request.process, effect))
            return None
        try:
            if fate == "twice":
                process.perform(effect)
            if fate == "overlapped" and isinstance(effect, Commit):
                reply: Any = process.committer.overlapped(effect)
            else:
                reply = process.perform(effect)
        except Unavailable as error:
            self.requests.remove(request)
            self.say(f"{request.who} hears 503 ({error.what})")
            return None
        except Killed:
            self.kill(request.process)
            return None
        if isinstance(effect, Reserve):
            self.say(f"  {reply.code.name} epoch {reply.epoch}")
        elif hasattr(reply, "verdict"):
            self.say(f"  {reply.verdict} epoch {reply.lane_epoch}")
        if fate == "answer lost":
            self.requests.remove(request)
            return None
        return self._send(request, reply)

    def arrive(self) -> None:
        number, effect = self.late.pop(self.rng.randrange(len(self.late)))
        self.say(f"late: {type(effect).__name__}")
        try:
            self.world.base.processes[number].perform(effect)
        except Unavailable:
            self.say("  unavailable")
        except Killed:
            self.kill(number)

    def kill(self, number: int) -> None:
        self.say(f"process {number} dies")
        self.requests = [one for one in self.requests if one.process != number]
        process = self.world.base.processes[number]
        process.forget()
        process.client.wire.fate = ""

    def foreign(self) -> None:
        """A process of another version takes another lane for somebody's home."""
        world, process = self.world, self.world.base.processes[0]
        i, serial = self.rng.choice(self.tickets())
        slot = flow.slot_of(process.look(world.packet.id), world.callers[i].participant, serial)
        lanes = world.lane_ids
        number = (slot.lane_number + 1) % len(lanes)
        there = Slot(slot.packet, lanes[number], number, 0, slot.participant, serial, slot.claim_id)
        self.say(f"{i}/{serial} asks in lane {number}")
        try:
            found = process.perform(Reserve(there, True))
            if found.portion is not None:
                self.say(f"  {process.perform(Commit(there, found.portion, 1, 'x')).verdict}")
        except (Unavailable, Killed):
            return

    # --- healing ----------------------------------------------------------------------------------

    def heal(self) -> None:
        """All faults end; everybody comes back until the answer is one for good."""
        world, base = self.world, self.world.base
        self.say("all faults end")
        self.requests, self.late = [], []
        for process in base.processes:
            process.client.wire.away, process.client.wire.fate = False, ""
            process.client.lead_to(MASTER)
            process.forget()
        base.staff.wire.fate = ""
        services.gate_set(gate_id=base.gate.id, state="open", actor="simulator")
        if Packet.objects.get(id=world.packet.id).state == Packet.State.PAUSED:
            services.packet_resume(packet_id=world.packet.id, actor="simulator")
        self.look()
        waiting = self.tickets()
        for _ in range(HEALING_ROUNDS):
            base.processes[0].view = None
            world.moves_age()
            waiting = [who for who in waiting if not self._asked_for_good(who)]
            if not waiting:
                break
            world.leases_end()
            world.watches_age()
            for lane in Lane.objects.filter(id__in=world.lane_ids).select_related("packet"):
                if lane.state != Lane.State.CLOSED:
                    recovery._look_after(base.staff, lane)
            rebalancing.rebalance(base.staff, packet_id=world.packet.id)
            self.look()
        holds(not waiting, f"everybody gets an answer for good ({waiting} don't)")

    def _asked_for_good(self, who: tuple[int, int]) -> bool:
        request = self.begin(who, 0)
        outcome: Outcome | None = None
        while request in self.requests:
            outcome = self.advance(request)
        return outcome is not None and outcome.result in (Result.WON, *FINAL)

    def end(self) -> None:
        """Close it, settle it, and look where the money is."""
        world = self.world
        self.say("closes and settles")
        try:
            closing.packet_close(packet_id=world.packet.id, actor="simulator")
        except TransitionRefused:
            self.say("  closed already")
        for lane_id in world.lane_ids:
            settlement.settle_lane(lane_id)
        self.look()
        packet = Packet.objects.get(id=world.packet.id)
        assert packet.escrow_id is not None
        holds(ledger.balance_fen(packet.escrow_id) == 0, "the escrow is empty at the end")

    def look(self) -> None:
        self.oracle.check(redis_changed=self.redis_changed)
        self.redis_changed = False
