"""The synchronous driver of the claim: one thread, one claim, redis-py and the group committer."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import psycopg
import redis.exceptions
import structlog
from django.conf import settings
from django.db import OperationalError
from redis import Redis

from engine.lib import crypto, lua
from engine.lib.auth import Caller
from engine.lib.redis import stock as stock_client
from packets import closing, demand, recovery, stock
from packets.claiming import circuit, committer, flow, inviters, winners
from packets.claiming.effects import (
    AskInviter,
    AskPostgres,
    AskTargeted,
    ChargeAmount,
    CheckLimits,
    ClaimDirect,
    Claimed,
    ClaimRequest,
    CloseEnded,
    Commit,
    Committed,
    Effect,
    GiveBack,
    Mark,
    MayHaveWon,
    Outcome,
    PacketView,
    Peek,
    Peeked,
    Portion,
    PushFlags,
    Rebuild,
    RedisAway,
    Refill,
    Reservation,
    Reserve,
    Reserved,
    Slot,
    TryPassword,
    Unavailable,
    Verdict,
)
from packets.claiming.eligibility import PASSWORD_TRIES
from packets.claiming.limits import asked
from packets.claiming.registry import registry
from packets.models import PacketTarget

log = structlog.get_logger(__name__)


def password_key() -> bytes:
    """The key of pass phrase digests, derived from SECRET_KEY."""
    return hashlib.sha256(b"laisee.password" + settings.SECRET_KEY.encode()).digest()


def ticket_keys() -> Mapping[str, bytes]:
    """The keys of tickets by id, derived from ENCRYPTION_KEYS, the current one first."""
    return crypto.derived_keys("ticket")


def reserve_call(effect: Reserve) -> lua.Call:
    slot = effect.slot
    return lua.Call(
        lua.load("packets", "claim"),
        (
            stock.meta_key(slot.packet, slot.lane_number),
            stock.bucket_key(slot.packet, slot.lane_number, slot.bucket),
        ),
        (stock.member(slot.participant, slot.serial), b"1" if effect.known_absent else b"0"),
    )


def password_call(effect: TryPassword) -> lua.Call:
    return lua.Call(
        lua.load("packets", "password"),
        (stock.tries_key(effect.slot.packet, effect.slot.lane_number),),
        (effect.slot.participant, b"1" if effect.right else b"0", PASSWORD_TRIES),
    )


def reservation_of(reply: list[Any]) -> Reservation:
    """The reply of claim.lua as a value; an unknown code is a defect and raises."""
    code = Reserved(int(reply[0]))
    if code not in (Reserved.NEW, Reserved.REPEAT, Reserved.MARKED):
        return Reservation(code, epoch=int(reply[1]))
    epoch, index, amount_fen, tier, left_count, committed_ms = (int(part) for part in reply[1:7])
    committed_at = dt.datetime.fromtimestamp(committed_ms / 1000, tz=dt.UTC)
    return Reservation(
        code,
        epoch=epoch,
        portion=Portion(epoch, index, amount_fen, tier),
        left_count=left_count,
        committed_at=committed_at if code is Reserved.MARKED else None,
    )


def peeked(slot: Slot, text: Any) -> Peeked:
    """What a record says; one that can't be read is no record."""
    try:
        portion, committed_ms = stock.record_parts(bytes(text or b""))
    except ValueError:
        return Peeked()
    if not committed_ms:
        return Peeked(reserved=True)
    at = dt.datetime.fromtimestamp(committed_ms / 1000, tz=dt.UTC)
    return Peeked(claimed=Claimed(slot.claim_id, portion, at))


def count_calls(effect: GiveBack | ChargeAmount) -> list[lua.Call]:
    if isinstance(effect, GiveBack):
        return [one.charge.give_back(one.window) for one in effect.counted]
    return [charge.add(effect.amount_fen) for charge in effect.charges]


def record_place(slot: Slot) -> tuple[str, bytes]:
    """Where Redis has the record of a claim: key and field."""
    key = stock.bucket_key(slot.packet, slot.lane_number, slot.bucket)
    return key, stock.member(slot.participant, slot.serial)


def without_redis(known: circuit.Circuit, slot: Slot) -> Reservation | None:
    """What is to be said instead of asking Redis; None: ask it."""
    if known.is_open():
        return Reservation(Reserved.UNREACHABLE)
    return Reservation(Reserved.DIRECT) if known.follows(slot) else None


@dataclass
class SyncDriver:
    """Performs effects one after the other. Raises Unavailable where a dependency can't answer."""

    client: Redis = field(default_factory=stock_client)
    committer: committer.GroupCommitter = field(default_factory=committer.of_process)
    circuit: circuit.Circuit = field(default_factory=circuit.of_process)

    def run(self, steps: flow.Flow) -> Outcome:
        reply: Any = None
        trouble: Unavailable | None = None
        try:
            while True:
                effect = steps.send(reply) if trouble is None else steps.throw(trouble)
                try:
                    reply, trouble = self.perform(effect), None
                except Unavailable as error:
                    trouble = error  # the flow's to judge: something may have to be given back
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    def perform(self, effect: Effect) -> Any:
        try:
            return self._perform(effect)
        except redis.exceptions.RedisError as error:
            if circuit.is_away(error):
                self.circuit.trip(error)
                raise RedisAway(f"Redis: {type(error).__name__}") from error
            raise Unavailable(f"Redis: {type(error).__name__}") from error
        except (OperationalError, psycopg.OperationalError) as error:
            raise Unavailable(f"Postgres: {type(error).__name__}") from error

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case AskTargeted():
                return PacketTarget.objects.filter(
                    packet_id=effect.packet, participant=effect.participant
                ).exists()
            case MayHaveWon():
                return winners.may_have_won(effect.slot)
            case TryPassword():
                return self._try_password(effect)
            case Peek():
                return self._peek(effect)
            case AskInviter():
                return inviters.ask(effect.code)
            case CheckLimits():
                calls = [charge.ask() for charge in effect.charges]
                return tuple(map(asked, effect.charges, lua.run_all(self.client, calls)))
            case GiveBack() | ChargeAmount():
                return self._count(effect)
            case Reserve():
                return self._reserve(effect)
            case Commit():
                return self.committer.commit(effect)
            case ClaimDirect():
                return self._claim_direct(effect)
            case AskPostgres():
                return self.committer.truth(effect.slot)
            case Mark():
                return self._mark(effect)
            case PushFlags():
                return self._push_flags(effect)
            case CloseEnded():
                return closing.packet_close_ended(packet_id=effect.packet)
            case Rebuild():
                return self._rebuild(effect)
            case Refill():
                return demand.of_process().ask(effect.slot.packet, effect.slot.lane_number)
            case _:
                assert_never(effect)

    def _peek(self, effect: Peek) -> Peeked:
        if self.circuit.is_open():
            return Peeked(away=True)
        try:
            return peeked(effect.slot, self.client.hget(*record_place(effect.slot)))
        except redis.exceptions.RedisError as error:
            if not circuit.is_away(error):
                raise
            self.circuit.trip(error)
            return Peeked(away=True)

    def _count(self, effect: GiveBack | ChargeAmount) -> None:
        """What becomes of a claim after its answer is known: it must not change that answer."""
        try:
            lua.run_all(self.client, count_calls(effect))
        except redis.exceptions.RedisError as error:
            log.warning("count_lost", error=type(error).__name__)

    def _reserve(self, effect: Reserve) -> Reservation:
        # While commits run late a portion reserved now would be held by somebody who has left.
        self.committer.check(effect.slot.lane_id)
        if (without := without_redis(self.circuit, effect.slot)) is not None:
            return without
        try:
            return reservation_of(reserve_call(effect).run(self.client))
        except redis.exceptions.RedisError as error:
            if not circuit.is_away(error):
                raise
            self.circuit.trip(error)
            return Reservation(Reserved.UNREACHABLE)

    def _claim_direct(self, effect: ClaimDirect) -> Committed:
        committed = self.committer.commit(effect)
        if committed.verdict is Verdict.FENCED:
            self.circuit.unfollow(effect.slot)
        return committed

    def _try_password(self, effect: TryPassword) -> bool:
        """Tries are counted in Redis alone: without it, no pass phrase may be guessed at."""
        if self.circuit.is_open():
            raise RedisAway("Redis is away: tries can't be counted")
        return bool(password_call(effect).run(self.client))

    def _rebuild(self, effect: Rebuild) -> None:
        if self.circuit.is_open():
            return
        slot = effect.slot
        try:
            done = recovery.rebuild(self.client, lane_id=slot.lane_id, seen_epoch=effect.seen_epoch)
        except redis.exceptions.RedisError as error:
            if not circuit.is_away(error):
                raise
            self.circuit.trip(error)
            return
        if not done and recovery.is_direct(slot.lane_id):
            self.circuit.follow(slot)

    def _push_flags(self, effect: PushFlags) -> None:
        """At most once a second for a packet: a crowd that meets a stale flag needs it once."""
        if not registry.may_push(effect.packet):
            return
        registry.forget(effect.packet)
        if self.circuit.is_open():
            return
        try:
            stock.push_flags(self.client, effect.packet)
        except redis.exceptions.RedisError as error:
            # The flags are read again with whatever is loaded when Redis is back.
            if not circuit.is_away(error):
                raise
            self.circuit.trip(error)

    def _mark(self, effect: Mark) -> None:
        if self.circuit.is_open():
            return
        try:
            stock.mark(self.client, effect.slot, effect.claimed)
        except redis.exceptions.RedisError as error:
            # The claim is committed: without the mark the next repeat asks Postgres, no more.
            log.warning("mark_lost", error=type(error).__name__)


def claim(
    packet_id: uuid.UUID, caller: Caller, request: ClaimRequest, address: str = ""
) -> tuple[Outcome, PacketView] | None:
    """Claim a packet for the caller. None: there is no such packet.

    Raises OverLimit (429), and Unavailable (503, the same request may be sent again).
    """
    try:
        view = registry.view(packet_id)
    except OperationalError as error:
        raise Unavailable(f"Postgres: {type(error).__name__}") from error
    if view is None:
        return None
    steps = flow.claim(view, caller, request, password_key(), ticket_keys(), address)
    outcome = SyncDriver().run(steps)
    return outcome, view
