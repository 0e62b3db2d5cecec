"""Claims through Postgres alone, for the time in which Redis is away: slower, and as exact.

The portions are cut here, by the same arithmetic and from the same key as in Redis, in the
transaction that commits them through `laisee_commit_claims`: under the lane's lock what is left is
what the rows say. The epoch of such a stretch (cause `direct`) is written down like any other, so
the proof recomputes its portions too. `packets/sql/direct_lane.sql` says who may serve a lane so.

The invariant it keeps: in such an epoch no portion is cut that isn't committed with it.
"""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from engine.lib.crypto import decrypt
from packets import proof, splitting
from packets.claiming.effects import ClaimDirect, Portion

# Rebuilds keep away for so long after the last claim of a process without Redis. Long enough that
# two processes that disagree about Redis open two epochs in it at most, short enough that nobody
# notices the wait when Redis is back.
LEASE = dt.timedelta(seconds=1)
MAX_LANES = 1_000  # of which the rules are remembered by one process

_PLAN = """
SELECT p.id, l.number, p.strategy, p.total_fen, p.count, p.min_fen, p.max_fen, p.evenness, p.tiers,
       p.remainder, p.seed_encrypted, p.beacon, l.claimed_count
  FROM packets_lane l JOIN packets_packet p ON p.id = l.packet_id WHERE l.id = %s
"""
_GIVEN = "SELECT laisee_tiers_given(%s, 0, %s, %s)"
_LANE = """
SELECT mode, epoch, left_fen, left_count, tiers_left, start_fen, start_count, start_tiers,
       "position", tiers_given
  FROM laisee_direct_lane(%s, %s, %s, %s, %s::bigint[])
"""
# Of rows that need no portion: what they are answered doesn't depend on it.
NO_PORTION = Portion(epoch=0, index=0, amount_fen=1, tier=0)

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass
class _Plan:
    """What doesn't change about a lane, and the prizes that it had given at some position."""

    packet: uuid.UUID
    lane_number: int
    rules: splitting.Rules
    stream: bytes
    given: tuple[int, list[int]]  # (position, portions of each tier given up to there)

    def key(self, epoch: int) -> str:
        return proof.lane_key(self.stream, self.packet.hex, self.lane_number, epoch)


_plans: OrderedDict[int, _Plan] = OrderedDict()
_lock = threading.Lock()


def prepare(connection: Connection, lane_id: int) -> _Plan:
    """The lane's rules, read once; takes no lock."""
    with _lock:
        plan = _plans.get(lane_id)
        if plan is not None:
            _plans.move_to_end(lane_id)
            return plan
    row = connection.execute(_PLAN, (lane_id,)).fetchone()
    assert row is not None, f"lane {lane_id} has vanished"
    plan = _plan(row)
    position, tiers = row[-1], len(plan.rules.tiers)
    if tiers:
        # Apart from the lane's lock, which sees only what came after.
        given = connection.execute(_GIVEN, (lane_id, position, tiers)).fetchone()
        assert given is not None
        plan.given = position, given[0]
    with _lock:
        _plans[lane_id] = plan
        while len(_plans) > MAX_LANES:
            _plans.popitem(last=False)
    return plan


def _plan(row: tuple[Any, ...]) -> _Plan:
    packet, number, strategy, total_fen, count, min_fen, max_fen, evenness, tiers = row[:9]
    remainder, seed_encrypted, beacon = row[9:12]
    rules = splitting.Rules(
        strategy=splitting.Strategy(strategy),
        total_fen=total_fen,
        count=count,
        min_fen=min_fen,
        max_fen=max_fen,
        evenness=evenness,
        tiers=tuple(splitting.Tier(amount, quantity) for amount, quantity in tiers),
        remainder=splitting.Strategy(remainder),
    )
    stream = proof.stream_seed(decrypt(seed_encrypted), bytes.fromhex(beacon))
    return _Plan(packet, number, rules, stream, (0, []))


@dataclass(frozen=True)
class Cut:
    """What the rows are to be committed with; None: the lane has no portion left for that row."""

    epoch: int
    portions: Sequence[Portion | None]


def cut(connection: Connection, lane_id: int, rows: Sequence[ClaimDirect], plan: _Plan) -> Cut:
    """Lock the lane and cut a portion for every claim that isn't there yet.

    In a transaction of the caller's, who commits them in it. A claim that is there, and everybody
    at a lane that isn't served so, gets NO_PORTION: the commit function knows what to say.
    """
    blind = any(row.blind for row in rows)
    found = connection.execute(_LANE, (lane_id, blind, LEASE, *plan.given)).fetchone()
    assert found is not None
    mode, epoch, left_fen, left_count, tiers_left = found[:5]
    start_fen, start_count, start_tiers = found[5:8]
    if mode != "direct":
        return Cut(epoch, [NO_PORTION] * len(rows))
    plan.given = found[8], found[9]
    ids = [row.slot.claim_id for row in rows]
    there = {
        claim_id
        for (claim_id,) in connection.execute(
            "SELECT id FROM packets_claim WHERE id = ANY(%s)", (ids,)
        ).fetchall()
    }
    began = splitting.start(plan.rules, start_fen, start_count, start_tiers)
    state = splitting.State(
        left_fen,
        left_count,
        start_count - left_count,
        tuple(tiers_left),
        began.start_fen,
        began.start_count,
    )
    key = plan.key(epoch)
    given: dict[uuid.UUID, Portion | None] = dict.fromkeys(there, NO_PORTION)
    for claim_id in ids:
        if claim_id in given:
            continue  # there already, or twice in this batch
        if state.left_count == 0:
            given[claim_id] = None
            continue
        index = state.index
        portion, state = splitting.portion(plan.rules, state, key)
        given[claim_id] = Portion(epoch, index, portion.amount_fen, portion.tier)
    return Cut(epoch, [given[claim_id] for claim_id in ids])


def forget(lane_id: int | None = None) -> None:
    """Read the rules again."""
    with _lock:
        if lane_id is None:
            _plans.clear()
        else:
            _plans.pop(lane_id, None)
