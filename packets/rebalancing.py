"""Portions go to where people ask: what is left of a packet moves between its open lanes.

A person claims in his home lane, for ever; when that runs dry before the others, portions come to
him. Whoever meets an empty lane hears `busy` and comes back after a second; meanwhile his process
tells Redis where he waits (`demand.py`), and one process makes one move for everybody.

A move fences all lanes that take part and writes down their new epochs in one transaction; then it
loads them. In Redis it costs one head per lane: records of committed claims stay, reservations of
the old epoch are void and are made anew inside the same requests. Nobody holds a lane's lock across
I/O, a move never waits for a lane that somebody else holds, and of one packet there is at most one
move in BETWEEN_S.

The invariant it keeps: a packet's lanes hold together what it was opened with (invariant 2). It is
the database's function that sees to it (packets/sql/rebalance.sql), not this file.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import redis.exceptions
import structlog
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import F
from redis import Redis

from engine.lib import clock
from engine.lib.redis import stock as stock_client
from packets import moves, recovery, stock
from packets.models import Lane, LaneEpoch, Packet
from packets.splitting import LaneShare

log = structlog.get_logger(__name__)

BETWEEN_S = 0.2  # from one move of a packet to the next, whoever makes it
# Whoever waited for a portion comes back within a second; so long it stays where he will ask.
FRESH_MS = 1_500
WANTED_KEPT_S = 3  # people who don't ask again have left
MAX_LANES_MOVED = 64  # lanes of one move; it is repeated as long as people ask
MAX_TAKERS = 32  # empty lanes among them

_LANES = """
SELECT l.id, l.number, l.epoch, l.state = 'open', l.count - l.claimed_count, l.claimed_count,
       e.move IS NOT NULL AND e.opened_at > clock_timestamp() - make_interval(secs => %(between)s)
  FROM packets_lane l
  JOIN packets_packet p ON p.id = l.packet_id
  JOIN packets_laneepoch e ON e.lane_id = l.id AND e.epoch = l.epoch
 WHERE l.packet_id = %(packet)s AND l.state <> 'closed' AND l.direct_until IS NULL
   AND p.state = 'open'
 ORDER BY l.id
"""
_TRY = "SELECT pg_try_advisory_xact_lock(hashtextextended('laisee_rebalance:' || %s::uuid, 0))"
_LOCK = """
SELECT id, epoch, total_fen - claimed_fen, count - claimed_count, claimed_count, tiers
  FROM packets_lane WHERE id = ANY(%s) AND state = 'open' AND direct_until IS NULL
 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
"""
_GIVEN = """
SELECT r.lane, laisee_tiers_given(r.lane, r.after, r.upto, %s)
  FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS r(lane, after, upto)
"""
_NEXT_MOVE = """
SELECT COALESCE(max(e.move), 0) + 1 FROM packets_laneepoch e JOIN packets_lane l ON l.id = e.lane_id
 WHERE l.packet_id = %s
"""
_MOVE = """
SELECT laisee_rebalance(%s, %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                        %s::jsonb, %s::jsonb, %s, %s)
"""


class Moved(enum.Enum):
    """What came of an attempt."""

    DONE = "done"
    NOTHING = "nothing"  # no lane is empty, or nothing is to spare
    NOT_NOW = "not_now"  # somebody else moves or moved just now, or holds the lanes


@dataclass(frozen=True, slots=True)
class _Seen:
    """A lane as it stood before it was locked."""

    id: int
    number: int
    epoch: int
    is_open: bool
    left_count: int
    claimed_count: int
    just_moved: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """A lane under its lock."""

    id: int
    epoch: int
    left: LaneShare


# --- where people wait ----------------------------------------------------------------------------


def wanted_key(packet_id: uuid.UUID) -> str:
    """Lane number → people who met it empty since the last move."""
    return f"wanted:{{{packet_id.hex}}}"


def served_key(packet_id: uuid.UUID) -> str:
    """Lane number → until when (ms) its portions wait for those for whom they were moved there."""
    return f"served:{{{packet_id.hex}}}"


def note(client: Redis, packet_id: uuid.UUID, asks: Mapping[int, int]) -> None:
    """Tell whoever moves next how many people met these lanes (by number) empty."""
    pipeline = client.pipeline(transaction=False)
    for number, people in asks.items():
        pipeline.hincrby(wanted_key(packet_id), str(number), people)
    pipeline.expire(wanted_key(packet_id), WANTED_KEPT_S)
    pipeline.execute()


# --- one move -------------------------------------------------------------------------------------


def rebalance(client: Redis, *, packet_id: uuid.UUID) -> Moved:
    """Move portions to where people wait, or level the lanes. May be called at any time.

    Raises RedisError and DatabaseError; the lanes are whole then, or somebody's rebuild finds them.
    """
    asks = _numbers(client, wanted_key(packet_id))
    lanes = _look(packet_id)
    if any(lane.just_moved for lane in lanes):
        return Moved.NOT_NOW
    lanes = _choose(lanes, asks)
    if len(lanes) < 2 or not any(lane.left_count for lane in lanes):
        return Moved.NOTHING
    heads = stock.read_many(client, packet_id, [lane.number for lane in lanes])
    lanes = _mended(client, lanes, heads)
    now_ms = clock.now_ms()
    served = _numbers(client, served_key(packet_id))
    standings = {
        lane.id: moves.Standing(
            lane=lane.id,
            count=lane.left_count,
            free=heads[lane.number].left_count,
            asks=asks.get(lane.number, 0),
            fresh=served.get(lane.number, 0) > now_ms,
        )
        for lane in lanes
    }
    packet = Packet.objects.get(id=packet_id)
    begun = _move(packet, lanes, standings)
    if begun is Moved.NOT_NOW:
        return begun
    # Whoever has been forgotten by this asks again in a second.
    client.delete(wanted_key(packet_id))
    if isinstance(begun, Moved):
        return begun
    recovery.finish_epochs(client, packet, begun, stock.Claimants.KEEP)
    takers: dict[Any, Any] = {
        str(lane.number): now_ms + FRESH_MS
        for lane, epoch in begun
        if epoch.left_count and not standings[lane.id].free and standings[lane.id].asks
    }
    if takers:
        client.hset(served_key(packet_id), mapping=takers)
        client.pexpire(served_key(packet_id), FRESH_MS)
    return Moved.DONE


def _mended(
    client: Redis, lanes: Sequence[_Seen], heads: Mapping[int, stock.LaneStock]
) -> list[_Seen]:
    """Those that Redis has got as Postgres has. The others are offered again, where nobody with a
    live lease is at it: their portions may be the last, and nobody may be claiming there."""
    whole = []
    for lane in lanes:
        head = heads.get(lane.number)
        if lane.is_open and head is not None and head.epoch == lane.epoch:
            whole.append(lane)
        elif lane.left_count:
            recovery.rebuild(client, lane_id=lane.id, seen_epoch=None)
    return whole


def _numbers(client: Redis, key: str) -> dict[int, int]:
    return {int(name): int(value) for name, value in client.hgetall(key).items()}


def _look(packet_id: uuid.UUID) -> list[_Seen]:
    with connection.cursor() as cursor:
        cursor.execute(_LANES, {"packet": packet_id, "between": BETWEEN_S})
        return [_Seen(*row) for row in cursor.fetchall()]


def _choose(lanes: Sequence[_Seen], asks: Mapping[int, int]) -> list[_Seen]:
    """A bounded number of lanes: those where most people wait, then the fullest."""
    waiting = [lane for lane in lanes if asks.get(lane.number)]
    takers = sorted(waiting, key=lambda lane: -asks[lane.number])[:MAX_TAKERS]
    taken = {lane.id for lane in takers}
    others = sorted((lane for lane in lanes if lane.id not in taken), key=lambda s: -s.left_count)
    return [*takers, *others[: MAX_LANES_MOVED - len(takers)]]


def _move(
    packet: Packet, lanes: Sequence[_Seen], standings: Mapping[int, moves.Standing]
) -> list[tuple[Lane, LaneEpoch]] | Moved:
    """The transaction: lock what nobody holds, reckon, write. Returns the new epochs."""
    rules = stock.rules_of(packet)
    # A lane may have given a million prizes: those up to now are counted before it is locked.
    upto = {lane.id: lane.claimed_count for lane in lanes}
    given = _tiers_given(dict.fromkeys(upto, 0), upto, len(rules.tiers))
    loader = uuid.uuid4()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_TRY, [packet.id])
        if not cursor.fetchone()[0]:
            return Moved.NOT_NOW
        held = _lock(cursor, {lane.id: lane.epoch for lane in lanes}, upto, given)
        counts = moves.plan(
            [
                replace(
                    standings[lane_id],
                    count=lane.left.count,
                    free=min(lane.left.count, standings[lane_id].free),
                )
                for lane_id, lane in held.items()
            ]
        )
        if not counts:
            return Moved.NOTHING if len(held) == len(lanes) else Moved.NOT_NOW
        cursor.execute(_NEXT_MOVE, [packet.id])
        move = cursor.fetchone()[0]
        counts = dict(sorted(counts.items()))
        before = [held[lane_id] for lane_id in counts]
        pool = moves.pooled([lane.left for lane in before])
        key = moves.move_key(stock.stream_seed(packet), packet.id.hex, move)
        after = moves.deal(rules, pool, counts, key)
        cursor.execute(_MOVE, _arguments(packet.id, before, after, loader))
        assert cursor.fetchone()[0] == move, "two moves at once"
    log.info("rebalanced", packet=packet.id.hex, move=move, lanes=len(counts), left=pool.count)
    return _begun(list(counts), loader)


def _lock(
    cursor: Any, epochs: Mapping[int, int], upto: Mapping[int, int], given: Mapping[int, list[int]]
) -> dict[int, _Held]:
    """The lanes that are still as they were seen, locked; nobody is waited for."""
    cursor.execute(_LOCK, [list(epochs)])
    rows = [row for row in cursor.fetchall() if row[1] == epochs[row[0]]]
    since = _tiers_given(
        {row[0]: upto[row[0]] for row in rows},
        {row[0]: row[4] for row in rows},
        len(next(iter(given.values()), [])),
    )
    held = {}
    for lane_id, epoch, left_fen, left_count, _claimed, tiers in rows:
        quantities = orjson.loads(tiers) if isinstance(tiers, str) else tiers
        left = tuple(
            quantity - old - new
            for quantity, old, new in zip(quantities, given[lane_id], since[lane_id], strict=True)
        )
        held[lane_id] = _Held(lane_id, epoch, LaneShare(left_fen, left_count, left))
    return held


def _tiers_given(
    after: Mapping[int, int], upto: Mapping[int, int], tiers: int
) -> dict[int, list[int]]:
    """Per lane: how many prizes of each tier its claims after one position up to another are."""
    if not tiers:
        return {lane_id: [] for lane_id in after}
    with connection.cursor() as cursor:
        lane_ids = list(after)
        cursor.execute(
            _GIVEN,
            [tiers, lane_ids, [after[i] for i in lane_ids], [upto[i] for i in lane_ids]],
        )
        return dict(cursor.fetchall())


def _arguments(
    packet_id: uuid.UUID, before: Sequence[_Held], after: Sequence[LaneShare], loader: uuid.UUID
) -> list[Any]:
    return [
        packet_id,
        [lane.id for lane in before],
        [lane.epoch for lane in before],
        [lane.epoch + 1 for lane in before],
        [share.total_fen for share in after],
        [share.count for share in after],
        orjson.dumps([lane.left.tiers for lane in before]).decode(),
        orjson.dumps([share.tiers for share in after]).decode(),
        loader,
        dt.timedelta(seconds=recovery.LOADER_LEASE_S),
    ]


def _begun(lane_ids: Sequence[int], loader: uuid.UUID) -> list[tuple[Lane, LaneEpoch]]:
    lanes = Lane.objects.filter(id__in=lane_ids, loader=loader).order_by("id")
    epochs = LaneEpoch.objects.filter(lane__in=lane_ids, epoch=F("lane__epoch"))
    of_lane = {epoch.lane_id: epoch for epoch in epochs}
    return [(lane, of_lane[lane.id]) for lane in lanes]


# --- the sweep ------------------------------------------------------------------------------------

_UNEVEN = """
SELECT l.packet_id FROM packets_lane l JOIN packets_packet p ON p.id = l.packet_id
 WHERE p.state = 'open' AND p.lane_count > 1 AND l.state = 'open'
 GROUP BY l.packet_id
HAVING bool_or(l.claimed_count = l.count) AND bool_or(l.claimed_count < l.count)
"""


def rebalance_due(client: Redis | None = None) -> int:
    """Look after every open packet with an empty lane and others that aren't; returns the moves.

    It finds what people of processes that died asked for, and levels lanes before people ask.
    """
    client = client or stock_client()
    with connection.cursor() as cursor:
        cursor.execute(_UNEVEN)
        uneven = [row[0] for row in cursor.fetchall()]
    moved = 0
    for packet_id in uneven:
        try:
            moved += rebalance(client, packet_id=packet_id) is Moved.DONE
        except (redis.exceptions.RedisError, DatabaseError) as error:
            if not connection.is_usable():
                raise
            log.warning("not_rebalanced", packet=packet_id.hex, error=type(error).__name__)
    return moved
