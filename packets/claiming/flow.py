"""The rule of a claim, written once: a generator that yields effects and receives their replies.

It does no I/O. Three promises live here:

- An answered win is committed: `won` leaves only after `Commit` (or from a record that is marked
  as committed), and says what Postgres returned.
- A win beats every refusal: none leaves before Postgres has been asked for the caller's claim.
- A final refusal is final: `sold_out` and `ended` are said only when Postgres shows every slot
  claimed or the lanes closed; until then the answer is `busy`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, assert_never

import msgspec

from engine.lib import ids
from engine.lib.auth import Caller
from packets.claiming import eligibility
from packets.claiming import ticket as tickets
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
    Forced,
    GiveBack,
    Mark,
    MayHaveWon,
    Outcome,
    PacketView,
    Peek,
    Peeked,
    Portion,
    PushFlags,
    Reason,
    Rebuild,
    RedisAway,
    Refill,
    Reservation,
    Reserve,
    Reserved,
    Result,
    Slot,
    Truth,
    TryPassword,
    Unavailable,
    Verdict,
)
from packets.claiming.limits import Asked, Charge, Measure, OverLimit, asks_for_inviter, charges_of

# Reserve at most so often within one request: the look-up of a winner may cost one more round, and
# something found wrong (a fence, a lost lane, a stale flag) is tried again twice at most. Then the
# client is asked to come back: whoever is mending it is not helped by our asking.
MAX_ROUNDS = 4
MAX_MENDS = 3
BUSY_RETRY_AFTER_S = 1
# Nobody is told to wait longer for an opening: it may be moved to an earlier time.
MAX_OPENING_RETRY_AFTER_S = 30
# Of a forced win: a serial that no claim has, and a time that nobody takes for one.
SAMPLE_SERIAL = 2**31 - 1
SAMPLE_AT = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
NO_KEYS: Mapping[str, bytes] = MappingProxyType({})

Flow = Generator[Effect, Any, Outcome]
Step = Generator[Effect, Any, Outcome | None]


def slot_of(packet: PacketView, participant: bytes, serial: int = 0) -> Slot:
    """Where in Redis and Postgres this participant's claim of this packet has its place."""
    number = ids.home_lane(packet.home_key, participant, len(packet.lane_ids))
    return Slot(
        packet=packet.id,
        lane_id=packet.lane_ids[number],
        lane_number=number,
        bucket=ids.bucket(participant, packet.buckets[number]),
        participant=participant,
        serial=serial,
        claim_id=ids.claim_id(packet.id, participant, serial),
    )


def claim(
    packet: PacketView,
    caller: Caller,
    request: ClaimRequest,
    password_key: bytes,
    ticket_keys: Mapping[str, bytes] = NO_KEYS,
    address: str = "",
) -> Flow:
    """One participant asks for one portion of one packet, from an address.

    `password_key` keys what Redis holds of addresses, too. Raises OverLimit where a limit doesn't
    allow it.
    """
    forced = packet.forced.get((caller.client_app_id, caller.subject))
    if forced is not None:
        return _forced(packet, caller, forced)
    if packet.opens_in_s is not None:
        return _not_started(packet.opens_in_s)
    serial = 0
    if packet.needs_ticket:
        ticket = tickets.read(request.ticket or "", packet.id, ticket_keys)
        if ticket is None:
            return Outcome(Result.TICKET_REQUIRED)
        if ticket.participant != caller.participant:
            return (yield from _of_somebody_else(packet, ticket))
        serial = ticket.serial
    slot = slot_of(packet, caller.participant, serial)
    refused = yield from _admit(packet, slot, caller, request, password_key)
    if refused is not None:
        return refused
    if packet.final is not None:
        over = Outcome(packet.final)
        return (yield from _refuse(slot, over)) if (yield MayHaveWon(slot)) else over
    if packet.limits:
        inviter = b""
        if asks_for_inviter(packet.limits, request.share_code):
            inviter = yield AskInviter(request.share_code or "")
        charges = charges_of(
            packet.limits,
            caller,
            address,
            packet.id.hex,
            packet.gate,
            password_key,
            request.share_code,
            inviter,
        )
        return (yield from _within_limits(slot, caller, request.share_code, charges))
    return (yield from _take(slot, caller, request.share_code))


def _within_limits(
    slot: Slot, caller: Caller, share_code: str | None, charges: tuple[Charge, ...]
) -> Flow:
    """Who has won hears of it before any limit; a claim is counted once, when it has no portion
    yet, and given back where it comes to nothing."""
    seen: Peeked = yield Peek(slot)
    if seen.claimed is not None:
        return Outcome(Result.WON, seen.claimed, replayed=True)
    counted: tuple[Asked, ...] = ()
    if seen.away:
        truth: Truth = yield AskPostgres(slot)
        if truth.claimed is not None:
            return Outcome(Result.WON, truth.claimed, replayed=True)
        if any(charge.rule.refuse_when_away for charge in charges):
            raise Unavailable("limits can't be counted")
    elif not seen.reserved:
        asked = yield from _asked(charges)
        counted = tuple(
            one for one in asked if one.allowed and one.charge.rule.measure is Measure.CLAIMS
        )
        if refusals := tuple(one for one in asked if not one.allowed):
            return (yield from _over_limit(slot, counted, refusals))
    try:
        outcome = yield from _take(slot, caller, share_code)
    except Unavailable as trouble:
        # Whoever holds a portion, or may have been given one, isn't counted again for it.
        if counted and not trouble.reserved:
            yield GiveBack(counted)
        raise
    if counted and not outcome.counts:
        yield GiveBack(counted)
    won = outcome.claim if not outcome.replayed else None
    if won is not None and not seen.away:
        worth = tuple(c for c in charges if c.rule.measure is Measure.AMOUNT)
        if worth:
            yield ChargeAmount(worth, won.portion.amount_fen)
    return outcome


def _asked(charges: tuple[Charge, ...]) -> Generator[Effect, Any, tuple[Asked, ...]]:
    """What the rules say; nothing where Redis went away and all of them let people through then."""
    try:
        asked: tuple[Asked, ...] = yield CheckLimits(charges)
    except RedisAway:
        if any(charge.rule.refuse_when_away for charge in charges):
            raise
        return ()
    return asked


def _over_limit(slot: Slot, counted: tuple[Asked, ...], refusals: tuple[Asked, ...]) -> Flow:
    """Refused; but whoever has won, and Redis forgot it, hears of the win."""
    if counted:
        yield GiveBack(counted)
    truth: Truth = yield AskPostgres(slot)
    if truth.claimed is not None:
        return Outcome(Result.WON, truth.claimed, replayed=True)
    raise OverLimit(refusals)


def _take(slot: Slot, caller: Caller, share_code: str | None) -> Flow:
    """A portion of the slot's lane, reserved and committed.

    Whoever cut the portion keeps what was counted for it; a twin who found it reserved doesn't.
    """
    cuts: list[bool] = []
    try:
        answer = yield from _rounds(slot, caller, share_code, cuts)
    except Unavailable as trouble:
        # A new one: the drivers give one and the same to everybody in a batch.
        reserved = trouble.reserved or any(cuts)
        raise Unavailable(trouble.what, trouble.retry_after_s, reserved=reserved) from trouble
    if any(cuts):
        return _with_portion(answer)
    return msgspec.structs.replace(answer, counts=False) if cuts else answer


def _rounds(slot: Slot, caller: Caller, share_code: str | None, cuts: list[bool]) -> Flow:
    """`cuts` gets, for each portion that is met, whether it was cut for this request."""
    known_absent = False
    mended = 0
    for _ in range(MAX_ROUNDS):
        reservation: Reservation = yield Reserve(slot, known_absent)
        match reservation.code:
            case Reserved.MARKED:
                return _marked(slot, reservation)
            case Reserved.NEW | Reserved.REPEAT:
                cuts.append(reservation.code is Reserved.NEW)
                answer = yield from _commit(slot, reservation, caller, share_code)
            case Reserved.LOOKUP:
                truth: Truth = yield AskPostgres(slot)
                if truth.claimed is not None:
                    return (yield from _replay(slot, truth.claimed))
                known_absent, answer = True, None
            case Reserved.MISSING:
                answer = yield from _missing(slot)
            case Reserved.UNREACHABLE | Reserved.DIRECT:
                answer = yield from _direct(slot, caller, share_code, reservation.code)
            case (
                Reserved.PAUSED
                | Reserved.CLOSED
                | Reserved.NOT_STARTED
                | Reserved.ENDED
                | Reserved.EMPTY
            ):
                answer = yield from _doubt(slot, reservation.code)
            case _:
                assert_never(reservation.code)
        if answer is not None:
            return answer
        mended += reservation.code is not Reserved.LOOKUP
        if mended == MAX_MENDS:
            break
    return _busy()


def _with_portion(answer: Outcome) -> Outcome:
    """A refusal to somebody who holds a portion: unless it is for good, the next try completes it,
    and isn't counted again."""
    if answer.result in (Result.WON, Result.SOLD_OUT, Result.ENDED):
        return answer
    return msgspec.structs.replace(answer, counts=True)


def _forced(packet: PacketView, caller: Caller, forced: Forced) -> Outcome:
    """What a test user hears: no effect is yielded, so neither stock nor money can be touched.

    A forced win is a sample: its id belongs to no claim, and it is in no wallet.
    """
    won = forced.result is Result.WON
    portion = Portion(epoch=0, index=0, amount_fen=packet.sample_fen, tier=0)
    sample_id = ids.claim_id(packet.id, caller.participant, SAMPLE_SERIAL)
    return Outcome(
        forced.result,
        claim=Claimed(sample_id, portion, SAMPLE_AT) if won else None,
        reason=forced.reason,
        retry_after_s=BUSY_RETRY_AFTER_S if forced.result is Result.BUSY else None,
        test=True,
    )


def _of_somebody_else(
    packet: PacketView, ticket: tickets.Ticket
) -> Generator[Effect, Any, Outcome]:
    """A genuine ticket in the wrong hands. Its owner never comes here: to them it is `won`."""
    truth: Truth = yield AskPostgres(slot_of(packet, ticket.participant, ticket.serial))
    used = truth.claimed is not None
    return Outcome(Result.TICKET_USED if used else Result.TICKET_REQUIRED)


def _not_started(opens_in_s: float = 0.0) -> Outcome:
    """Rounded down: who comes back too early asks once more, who comes too late has missed it."""
    wait_s = min(MAX_OPENING_RETRY_AFTER_S, max(1, int(opens_in_s)))
    return Outcome(Result.NOT_STARTED, retry_after_s=wait_s)


def _busy() -> Outcome:
    return Outcome(Result.BUSY, retry_after_s=BUSY_RETRY_AFTER_S)


def _marked(slot: Slot, reservation: Reservation) -> Outcome:
    assert reservation.portion is not None and reservation.committed_at is not None
    claimed = Claimed(slot.claim_id, reservation.portion, reservation.committed_at)
    return Outcome(Result.WON, claimed, replayed=True, left_count=reservation.left_count)


def _replay(slot: Slot, claimed: Claimed) -> Generator[Effect, Any, Outcome]:
    yield Mark(slot, claimed)
    return Outcome(Result.WON, claimed, replayed=True)


def _refuse(slot: Slot, refusal: Outcome) -> Generator[Effect, Any, Outcome]:
    """Say no, but only after Postgres has been asked whether the caller has won.

    A win found so isn't marked: the packet may be over, and Redis is to forget it.
    """
    truth: Truth = yield AskPostgres(slot)
    if truth.claimed is not None:
        return Outcome(Result.WON, truth.claimed, replayed=True)
    return refusal


def _admit(
    packet: PacketView, slot: Slot, caller: Caller, request: ClaimRequest, password_key: bytes
) -> Step:
    """Everything that depends on who asks and with what, before a portion is touched."""
    if packet.blocked and any(caller.participant in people for people in packet.blocked):
        return (yield from _refuse(slot, Outcome(Result.BLOCKED)))
    audience = packet.audience
    reason = eligibility.refusal(audience, caller)
    if reason is None and audience.targeted:
        listed: bool = yield AskTargeted(packet.id, caller.participant)
        reason = None if listed else Reason.NOT_TARGETED
    if reason is not None:
        return (yield from _refuse(slot, Outcome(Result.NOT_ELIGIBLE, reason=reason)))
    if not audience.password_hash:
        return None
    if request.password is None:
        return (yield from _refuse(slot, Outcome(Result.WRONG_PASSWORD)))
    right = eligibility.password_is_right(audience, packet.id, request.password, password_key)
    blocked: bool = yield TryPassword(slot, right)
    if blocked:
        return (yield from _refuse(slot, Outcome(Result.BLOCKED)))
    return None if right else (yield from _refuse(slot, Outcome(Result.WRONG_PASSWORD)))


def _commit(slot: Slot, reservation: Reservation, caller: Caller, share_code: str | None) -> Step:
    """None: the reservation is void, reserve again."""
    portion = reservation.portion
    assert portion is not None
    committed: Committed = yield Commit(
        slot, portion, caller.client_app_id, caller.subject, share_code
    )
    match committed.verdict:
        case Verdict.WON | Verdict.EXISTS:
            assert committed.claimed is not None
            yield Mark(slot, committed.claimed)
            return _won(committed, reservation.left_count, portion)
        case Verdict.FENCED:
            # Another epoch is current: the driver looks which side is behind. Or it is this one and
            # still being loaded: there is nothing wrong with it. Then reserve anew.
            loading = committed.lane_epoch == reservation.epoch
            yield Rebuild(slot, None if loading else reservation.epoch)
            return None
        case Verdict.CONFLICT:
            yield Rebuild(slot, committed.lane_epoch)
            return None
        case _:
            return (yield from _committed_refusal(slot, committed.verdict))


def _direct(slot: Slot, caller: Caller, share_code: str | None, code: Reserved) -> Step:
    """Without Redis: Postgres cuts the portion and commits it in one transaction.

    None: the lane is Redis's again (or another process was faster), reserve again.
    """
    blind = code is Reserved.UNREACHABLE
    committed: Committed = yield ClaimDirect(
        slot, caller.client_app_id, caller.subject, blind, share_code
    )
    match committed.verdict:
        case Verdict.WON | Verdict.EXISTS:
            return _won(committed, None, None)
        case Verdict.FENCED | Verdict.CONFLICT:
            return None
        case Verdict.EMPTY:
            return (yield from _doubt(slot, Reserved.EMPTY))
        case _:
            return (yield from _committed_refusal(slot, committed.verdict))


def _won(committed: Committed, left_count: int | None, portion: Portion | None) -> Outcome:
    """`portion`: what this request had reserved. Where it is what was committed, the claim is this
    one, whoever of its twins came first.

    A repeat whose first answer was lost before the commit hears of its win for the first time;
    `replayed` says that the claim was there already."""
    replayed = committed.verdict is Verdict.EXISTS
    claimed = committed.claimed
    mine = not replayed or (claimed is not None and claimed.portion == portion)
    return Outcome(Result.WON, claimed, replayed=replayed, left_count=left_count, counts=mine)


def _committed_refusal(slot: Slot, verdict: Verdict) -> Generator[Effect, Any, Outcome]:
    """What the commit said no to, whatever Redis's flags say."""
    match verdict:
        case Verdict.PAUSED:
            yield PushFlags(slot.packet)
            return Outcome(Result.PAUSED)
        case Verdict.NOT_STARTED:
            yield PushFlags(slot.packet)
            return _not_started()
        case Verdict.CLOSED | Verdict.ENDED:
            yield PushFlags(slot.packet)
            answer = yield from _last_word(slot)
            return answer if isinstance(answer, Outcome) else _busy()
        case Verdict.MISPLACED:
            raise AssertionError(f"lane {slot.lane_number} is not the home of this participant")
        case _:
            raise AssertionError(f"a commit that said {verdict} refuses nothing")


def _missing(slot: Slot) -> Step:
    answer = yield from _last_word(slot)
    if isinstance(answer, Outcome):
        return answer
    yield Rebuild(slot, None)
    return None


def _final(truth: Truth) -> Outcome | None:
    """What may be said for good, by Postgres's word alone.

    The end of the window isn't enough: a commit that began in time may still be on its way. The
    lanes' closing waits for it.
    """
    if truth.exhausted:
        return Outcome(Result.SOLD_OUT, left_count=0)
    if truth.closed:
        return Outcome(Result.ENDED)
    return None


def _last_word(slot: Slot) -> Generator[Effect, Any, Outcome | Truth]:
    """The answer where Postgres shows one: a win, or a refusal for good. Else what it shows."""
    truth: Truth = yield AskPostgres(slot)
    if truth.ended and not truth.closed and truth.claimed is None:
        yield CloseEnded(slot.packet)
        truth = yield AskPostgres(slot)
    if truth.claimed is not None:
        return Outcome(Result.WON, truth.claimed, replayed=True)
    return _final(truth) or truth


def _doubt(slot: Slot, code: Reserved) -> Step:
    """Redis refuses; Postgres says whether that is so. None: it isn't, and the flags are mended."""
    answer = yield from _last_word(slot)
    if isinstance(answer, Outcome):
        return answer
    if answer.not_started:
        return _not_started()
    if answer.paused:
        return Outcome(Result.PAUSED)
    if code is Reserved.EMPTY or (code is Reserved.ENDED and answer.past_end):
        # Portions may come back (somebody reserved and left, another lane has some), or commits of
        # the last second are under way.
        if code is Reserved.EMPTY:
            yield Refill(slot)
        return _busy()
    yield PushFlags(slot.packet)
    return None
