"""Settlement: committed claims become money in wallets, in batches.

A lane's claims are a tape: positions 1, 2, 3, … without gaps, given under the lane's lock. The
lane's cursor says how far the tape has been dealt with, so a batch is a range of positions, found
without a queue and without touching the lane's row (claims go on committing beside it). One
transaction

    locks the cursor (or leaves: somebody else is at this lane)
    holds what the risk rules say (packets/holds): escrow → held, instead of the wallet
    makes the wallets that don't exist yet
    writes the transfers escrow → wallet; the ledger's trigger locks the accounts by id, moves them
    writes what became of each claim
    tells client apps that asked (events.py)
    moves the cursor by compare-and-set

so a worker killed in the middle has done nothing, and two workers never do the same. If that were
ever wrong, the unique reference `settle:<claim>` still lets each claim be paid once: the batch is
refused, and settled again in the way that passes over what is there.

A batch that Postgres refuses is halved until the bad claim stands alone. It is parked with the
reason, its money stays in escrow, and the rest of the lane is settled. Trouble that isn't the
claim's (a deadlock, a lock held too long) is tried again a few times and never parks anything.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog
from django.db import Error as DatabaseError
from django.db import connection, transaction

from packets import events
from packets.holds.holding import claims_hold
from packets.holds.rules import Batch, judge
from packets.ledger import sqlstate
from packets.models import ClaimState, LaneCursor
from packets.settlement_moves import MAKE_WALLETS, MOVE, MOVE_REST

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Claims per transaction: enough to spread its fixed cost, few enough to end within a fraction of a
# second, for the escrow's row is locked as long as it lasts.
BATCH_CLAIMS = 1_000
# A sweep ends after this many batches, well inside a Celery task's time limit.
SWEEP_BATCHES = 50
# Milliseconds. No transaction on the primary may live long (an old snapshot keeps every dead
# version of the lanes' rows alive), so each wait in here has an end of its own.
STATEMENT_TIMEOUT_MS = 4_000
LOCK_TIMEOUT_MS = 2_000
IDLE_TIMEOUT_MS = 4_000
# Tries of one transaction that met a deadlock, a serialization failure or a lock timeout.
ATTEMPTS = 5
BACKOFF_S = 0.02
BACKOFF_MAX_S = 0.5
REASON_MAX_CHARS = 300  # ClaimState.reason

_TRY_AGAIN = frozenset({"40P01", "40001", "55P03"})  # deadlock, serialization, lock timeout
_TOO_SLOW = "57014"  # statement timeout
_TAKEN = "23505"  # a reference, a state or a wallet that is there already
# Classes of errors that the rows themselves cause: data, integrity, RAISE EXCEPTION of a trigger.
_REFUSALS = ("22", "23", "P0")


class TapeBroken(Exception):
    """A lane's positions have a hole: a defect that no retry mends. The lane's settlement stops."""


class ReferenceTaken(Exception):
    """A claim's reference belongs to a transfer although the claim was never settled."""


@dataclass(frozen=True, slots=True)
class SettlementResult:
    """What one call did. `busy`: somebody else was at the lane; `left`: claims still waiting."""

    settled: int = 0
    settled_fen: int = 0
    parked: int = 0
    batches: int = 0
    left: int = 0
    busy: bool = False
    failed: int = 0
    held: int = 0

    def __add__(self, other: SettlementResult) -> SettlementResult:
        return SettlementResult(
            self.settled + other.settled,
            self.settled_fen + other.settled_fen,
            self.parked + other.parked,
            self.batches + other.batches,
            # Each result says what its lane still has; the later one knows better.
            other.left,
            self.busy or other.busy,
            self.failed + other.failed,
            self.held + other.held,
        )


_LOCK_CURSOR = """
SELECT cursor.settled_count
  FROM packets_lanecursor AS cursor
 WHERE cursor.lane_id = %s
   FOR UPDATE SKIP LOCKED
"""

# Without a lock, to know which range to try: the batch looks again under the cursor's lock. Every
# claim up to `claimed_count` was committed together with it.
_READ_PROGRESS = """
SELECT cursor.settled_count, lane.claimed_count
  FROM packets_lane AS lane LEFT JOIN packets_lanecursor AS cursor ON cursor.lane_id = lane.id
 WHERE lane.id = %s
"""

_READ_LANE = """
SELECT packet.escrow_id, packet.currency
  FROM packets_lane AS lane JOIN packets_packet AS packet ON packet.id = lane.packet_id
 WHERE lane.id = %s
"""

_MOVE_CURSOR = """
UPDATE packets_lanecursor SET settled_count = %s WHERE lane_id = %s AND settled_count = %s
"""

_PARK = """
INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)
SELECT claim.id, 'parked', NULL, %(reason)s
  FROM packets_claim AS claim
 WHERE claim.lane_id = %(lane)s AND claim.position = %(first)s
    ON CONFLICT (claim_id) DO NOTHING
"""

# Lanes with unsettled claims, in any order, so that no lane waits behind another for ever.
_DUE = """
SELECT cursor.lane_id
  FROM packets_lanecursor AS cursor JOIN packets_lane AS lane ON lane.id = cursor.lane_id
 WHERE NOT cursor.is_done AND cursor.settled_count < lane.claimed_count
 ORDER BY random()
 LIMIT %s
"""

# A closed lane gets no further claims, so one that is settled to its end stays so: the sweep reads
# what lives, not all there ever was.
_FINISH = """
UPDATE packets_lanecursor SET is_done = true
 WHERE lane_id IN (
       SELECT cursor.lane_id
         FROM packets_lanecursor AS cursor JOIN packets_lane AS lane ON lane.id = cursor.lane_id
        WHERE NOT cursor.is_done AND lane.state = 'closed'
          AND cursor.settled_count = lane.claimed_count
        ORDER BY cursor.lane_id
        LIMIT 1000
          FOR NO KEY UPDATE OF cursor SKIP LOCKED)
"""


def settle_lane(lane_id: int, limit: int = BATCH_CLAIMS) -> SettlementResult:
    """Settle the lane's next claims, at most `limit`; normally one transaction.

    Safe under any number of workers: whoever finds the cursor taken returns with `busy`. Raises
    TapeBroken, and Django's database errors that aren't the claims' fault (a lost connection, or a
    deadlock met too often); what was settled before then stays settled.
    """
    with connection.cursor() as cursor:
        cursor.execute(_READ_PROGRESS, [lane_id])
        start, claimed_count = cursor.fetchone()
    if start is None:
        raise TapeBroken(f"lane {lane_id} has no settlement cursor")
    last = min(start + limit, claimed_count)
    if last <= start:
        return SettlementResult()
    done = _settle_range(lane_id, start + 1, last)
    return done if done.busy else done + SettlementResult(left=claimed_count - last)


def settle_due(max_batches: int = SWEEP_BATCHES, limit: int = BATCH_CLAIMS) -> SettlementResult:
    """The sweep: batches of every lane that has unsettled claims, in turns, at most `max_batches`.

    It finds what a lost wake-up left behind. Reading which lanes are due costs one pass over the
    lanes that aren't closed and settled. A lane in trouble is counted in `failed` and doesn't keep
    the others waiting.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [max_batches])
        lanes = deque(row[0] for row in cursor.fetchall())
    total = SettlementResult()
    left: dict[int, int] = {}
    for _ in range(max_batches):
        if not lanes:
            break
        lane_id = lanes.popleft()
        try:
            done = settle_lane(lane_id, limit)
        except (TapeBroken, DatabaseError) as error:
            if not connection.is_usable():
                raise
            log.error("settlement_failed", lane=lane_id, reason=str(error))
            done = SettlementResult(failed=1)
        if done.left and not done.busy:
            lanes.append(lane_id)
        left[lane_id] = done.left
        total += done
    with connection.cursor() as cursor:
        cursor.execute(_FINISH)
    return replace(total, left=sum(left.values()))


def retry_parked(limit: int = BATCH_CLAIMS) -> SettlementResult:
    """Try every parked claim once more, each in a transaction of its own, at most `limit`.

    For when the cause is mended. A claim that is refused again stays parked as it was.
    """
    parked = (
        ClaimState.objects.filter(state=ClaimState.State.PARKED)
        # In any order: those that are refused for good must not keep the mended ones waiting.
        .order_by("?")
        .values_list("claim_id", "claim__lane_id", "claim__position")[:limit]
    )
    total = SettlementResult()
    for claim_id, lane_id, position in parked:
        try:
            total += _transaction(partial(_unpark, claim_id, lane_id, position))
        except (DatabaseError, ReferenceTaken) as error:
            if not _is_refusal(error):
                raise
            total += SettlementResult(parked=1)
    return total


def _settle_range(lane_id: int, first: int, last: int, again: bool = False) -> SettlementResult:
    """Settle positions first..last; what is refused is halved, and parked where it stands alone."""
    try:
        return _transaction(lambda: _batch(lane_id, first, last, again))
    except (DatabaseError, ReferenceTaken) as error:
        if not again and _state(error) == _TAKEN:
            return _settle_range(lane_id, first, last, again=True)
        refused = _is_refusal(error)
        if first == last and refused:
            reason = _reason(error)
            log.error("claim_parked", lane=lane_id, position=first, reason=reason)
            return _transaction(lambda: _park(lane_id, first, reason))
        if first == last or not (refused or _state(error) == _TOO_SLOW):
            raise
    middle = (first + last) // 2
    done = _settle_range(lane_id, first, middle, again)
    if done.busy:
        return done
    return done + _settle_range(lane_id, middle + 1, last, again)


def _batch(lane_id: int, first: int, last: int, again: bool = False) -> SettlementResult:
    with transaction.atomic(), connection.cursor() as cursor:
        start = _lock(cursor, lane_id)
        if start != first - 1:
            # Taken, or moved on since: somebody else is settling this lane.
            return SettlementResult(busy=True)
        done = _move(cursor, lane_id, first, last, again)
        cursor.execute(_MOVE_CURSOR, [last, lane_id, first - 1])
        if cursor.rowcount != 1:
            raise TapeBroken(f"the cursor of lane {lane_id} moved under its lock")
        return done


def _move(cursor: Any, lane_id: int, first: int, last: int, again: bool) -> SettlementResult:
    """Pay the claims at these positions; the caller's transaction holds what makes it safe.

    `again`: somebody may have been here, so what is there already is passed over, not refused.
    """
    cursor.execute(_READ_LANE, [lane_id])
    escrow_id, currency = cursor.fetchone()
    names = {
        "lane": lane_id,
        "first": first,
        "last": last,
        "escrow": escrow_id,
        "currency": currency,
    }
    held = 0
    suspected = judge(cursor, Batch(lane_id, first, last))
    if again or suspected:
        cursor.execute(MAKE_WALLETS, names)
        held = claims_hold(cursor, suspected, at=names)
        cursor.execute(MOVE_REST, names)
        due, already, settled, settled_fen = cursor.fetchone()
    else:
        cursor.execute("SET LOCAL enable_nestloop = off")  # see MOVE
        cursor.execute(MOVE, names)
        due, already, settled, settled_fen = cursor.fetchone()
        cursor.execute("SET LOCAL enable_nestloop = on")
    if due != last - first + 1:
        raise TapeBroken(f"lane {lane_id}: {due} claims at positions {first} to {last}")
    if already + settled != due:
        raise ReferenceTaken(
            f"{due - already - settled} claims have a transfer already but were never settled"
        )
    events.claims_settled(cursor, names)
    return SettlementResult(settled=settled, settled_fen=settled_fen, batches=1, held=held)


def _park(lane_id: int, position: int, reason: str) -> SettlementResult:
    with transaction.atomic(), connection.cursor() as cursor:
        if _lock(cursor, lane_id) != position - 1:
            return SettlementResult(busy=True)
        cursor.execute(_PARK, {"lane": lane_id, "first": position, "reason": reason})
        parked = cursor.rowcount
        cursor.execute(_MOVE_CURSOR, [position, lane_id, position - 1])
        return SettlementResult(parked=parked, batches=1)


def _unpark(claim_id: uuid.UUID, lane_id: int, position: int) -> SettlementResult:
    with transaction.atomic(), connection.cursor() as cursor:
        _limit(cursor)
        still = (
            ClaimState.objects.select_for_update(skip_locked=True)
            .filter(claim_id=claim_id, state=ClaimState.State.PARKED)
            .exists()
        )
        if not still:
            return SettlementResult()
        return _move(cursor, lane_id, position, position, again=True)


def _lock(cursor: Any, lane_id: int) -> int | None:
    """How far the lane is settled, with its cursor locked; None while somebody else holds it."""
    _limit(cursor)
    cursor.execute(_LOCK_CURSOR, [lane_id])
    row = cursor.fetchone()
    if row is None and not LaneCursor.objects.filter(lane_id=lane_id).exists():
        raise TapeBroken(f"lane {lane_id} has no settlement cursor")
    return None if row is None else row[0]


def _limit(cursor: Any) -> None:
    """Bounds for this transaction; and what it looks up it looks up by key, however few there are
    while it plans."""
    cursor.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true),"
        " set_config('idle_in_transaction_session_timeout', %s, true),"
        " set_config('enable_seqscan', 'off', true)",
        [str(STATEMENT_TIMEOUT_MS), str(LOCK_TIMEOUT_MS), str(IDLE_TIMEOUT_MS)],
    )


def _transaction(work: Callable[[], T]) -> T:
    """`work()`, tried again a bounded number of times when it met another's locks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except DatabaseError as error:
            if sqlstate(error) not in _TRY_AGAIN or attempt == ATTEMPTS:
                raise
            log.warning("settlement_retry", attempt=attempt, sqlstate=sqlstate(error))
            # Jitter, or the same two would meet again.
            time.sleep(random.uniform(0, min(BACKOFF_S * 2**attempt, BACKOFF_MAX_S)))
    raise AssertionError("the loop returns or raises")


def _state(error: Exception) -> str:
    return sqlstate(error) if isinstance(error, DatabaseError) else ""


def _is_refusal(error: Exception) -> bool:
    """Whether the rows themselves were refused, so that trying again would change nothing."""
    return isinstance(error, ReferenceTaken) or _state(error).startswith(_REFUSALS)


def _reason(error: Exception) -> str:
    diagnosis = getattr(error.__cause__, "diag", None)
    words = [
        getattr(diagnosis, "message_primary", None) or str(error),
        getattr(diagnosis, "message_detail", None) or "",
    ]
    return " ".join(word for word in words if word)[:REASON_MAX_CHARS]
