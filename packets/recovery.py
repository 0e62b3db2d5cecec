"""Getting a lane's stock right again after Redis lost, forgot or invented something.

A rebuild is two short transactions with the load between them; nobody holds a lane's lock across
I/O. Every attempt opens an epoch of its own, above both Postgres's and Redis's, so that of two
loaders, an old master and a backup none can pass for the other (invariant 7).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import redis.exceptions
import structlog
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from redis import Redis

from engine.lib import clock, ids
from engine.lib.redis import look_again
from engine.lib.redis import stock as stock_client
from packets import claimants, stock
from packets.claiming.circuit import is_away
from packets.claiming.effects import Commit, Portion, Slot, Unavailable
from packets.claiming.journal import Journal
from packets.models import Lane, LaneEpoch, Packet, Participant

log = structlog.get_logger(__name__)

LOADER_LEASE_S = 5  # a loader that takes longer than this to set one hash is dead
LOCK_TIMEOUT = (
    "500ms"  # a lane held longer is in somebody else's hands: the next caller tries again
)
ADOPT_AFTER_S = 10  # a reservation older than this is committed on behalf of its owner
STRANDED_REBUILD_AFTER_S = 30  # an empty lane below its slots for so long is offered again
_OPEN_FREE = """
UPDATE packets_lane SET state = 'open', loader = NULL, loader_until = NULL
 WHERE id IN (SELECT id FROM packets_lane
               WHERE id = ANY(%s) AND state = 'loading' AND loader = %s
               ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id
"""


def _tiers_given(lane_id: int, after: int, upto: int, tiers: int) -> list[int]:
    """How many prizes of each tier a lane's claims at these positions are."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT laisee_tiers_given(%s, %s, %s, %s)", [lane_id, after, upto, tiers])
        return list(cursor.fetchone()[0])


def open_epoch(
    lane_id: int, *, above: int, cause: LaneEpoch.Cause, seen: Lane
) -> tuple[Lane, LaneEpoch] | None:
    """First transaction: fence the lane and write down what its new epoch starts with.

    None: somebody else was faster, or has the lane by a lease, or it is closed.
    """
    # A lane may have given a million prizes: they are counted before it is locked, and under the
    # lock only those that came since.
    counted = seen.claimed_count
    before = _tiers_given(lane_id, 0, counted, len(seen.tiers))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        lane = Lane.objects.select_for_update(no_key=True).select_related("packet").get(id=lane_id)
        # Leases are judged by Postgres's clock alone: loaders run on many machines.
        cursor.execute("SELECT clock_timestamp()")
        now = cursor.fetchone()[0]
        loading = lane.state == Lane.State.LOADING
        # What the caller saw must still stand: a lane that was loading and is open by now has just
        # been mended, and mending it again would only fence those who use it.
        if (lane.epoch, lane.state) != (seen.epoch, seen.state):
            return None
        if lane.state == Lane.State.CLOSED:
            return None
        if loading and lane.loader_until is not None and lane.loader_until > now:
            return None
        if lane.direct_until is not None and lane.direct_until > now:
            return None
        since = _tiers_given(lane_id, counted, lane.claimed_count, len(lane.tiers))
        lane.direct_until = None
        lane.epoch = max(lane.epoch, above) + 1
        lane.state = Lane.State.LOADING
        lane.loader = uuid.uuid4()
        lane.loader_until = now + dt.timedelta(seconds=LOADER_LEASE_S)
        lane.save(update_fields=["epoch", "state", "loader", "loader_until", "direct_until"])
        epoch = LaneEpoch.objects.create(
            lane=lane,
            epoch=lane.epoch,
            left_fen=lane.total_fen - lane.claimed_fen,
            left_count=lane.count - lane.claimed_count,
            tiers_left=[
                quantity - old - new
                for quantity, old, new in zip(lane.tiers, before, since, strict=True)
            ],
            cause=cause,
        )
    return lane, epoch


def finish_epochs(
    client: Redis,
    packet: Packet,
    begun: Sequence[tuple[Lane, LaneEpoch]],
    claimants: stock.Claimants,
) -> set[int]:
    """Load new epochs of a packet into Redis, then open the lanes that are still ours to open.

    Returns the ids of those. The lanes of one call have the same loader.
    """
    is_open = stock.gates_open(packet)
    loaded = []
    for lane, epoch in begun:
        held = stock.load(client, packet, lane, epoch, is_open=is_open, claimants=claimants)
        if held == epoch.epoch:
            loaded.append(lane)
    return _open(loaded)


def _open(lanes: Sequence[Lane]) -> set[int]:
    """First those that nobody holds, together; then the others, each waited for by itself."""
    if not lanes:
        return set()
    loader = lanes[0].loader
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_FREE, [[lane.id for lane in lanes], loader])
        opened = {row[0] for row in cursor.fetchall()}
    for lane in lanes:
        if lane.id not in opened and Lane.objects.filter(
            id=lane.id, state=Lane.State.LOADING, loader=loader
        ).update(state=Lane.State.OPEN, loader=None, loader_until=None):
            opened.add(lane.id)
    return opened


def finish_epoch(client: Redis, lane: Lane, epoch: LaneEpoch) -> bool:
    """The same for one lane after its stock was lost."""
    packet = Packet.objects.get(id=lane.packet_id)
    nobody = lane.claimed_count == 0
    claimants = stock.Claimants.FULL if nobody else stock.Claimants.PARTIAL
    return lane.id in finish_epochs(client, packet, [(lane, epoch)], claimants)


def rebuild(
    client: Redis,
    *,
    lane_id: int,
    seen_epoch: int | None,
    cause: LaneEpoch.Cause = LaneEpoch.Cause.REBUILT,
) -> bool:
    """Give the lane a new epoch, if `seen_epoch` is still the current one. Idempotent.

    `seen_epoch`: the epoch whose stock was found wanting; None: Redis had none. Returns whether a
    new epoch was opened and loaded. A lane that is closed, healthy by now, or in the hands of
    somebody with a live lease (who loads it, or serves it without Redis) is left alone.
    """
    seen = Lane.objects.select_related("packet").get(id=lane_id)
    if seen.state == Lane.State.CLOSED:
        stock.push_flags(client, seen.packet_id)
        return False
    if seen_epoch is not None and seen_epoch != seen.epoch:
        # The fence may have caught a client of an old master: look again through a new connection.
        look_again(client)
    held = stock.read(client, seen.packet_id, seen.number)
    healthy = (
        held is not None
        and held.epoch == seen.epoch
        and seen.state == Lane.State.OPEN
        and seen.direct_until is None  # an epoch of that kind was never loaded by anybody
    )
    if healthy and seen_epoch != seen.epoch:
        return False
    opened = open_epoch(lane_id, above=held.epoch if held else 0, cause=cause, seen=seen)
    if opened is None:
        return False
    lane, epoch = opened
    if held is not None and held.claimants_loaded:
        claimants.keep(client, lane, held.epoch)
    log.warning("lane_rebuild", lane=lane_id, epoch=epoch.epoch, left=epoch.left_count, cause=cause)
    if not finish_epoch(client, lane, epoch):
        return False
    if 0 < lane.claimed_count <= claimants.INLINE:
        claimants.load(lane_id, client=client)
    elif lane.claimed_count:
        claimants.wake(lane_id)
    return True


def is_direct(lane_id: int) -> bool:
    """Whether somebody who can't reach Redis serves this lane just now."""
    return Lane.objects.filter(id=lane_id, state="open", direct_until__gt=Now()).exists()


# --- reservations whose owners never heard ------------------------------------------------------


def _committed_in_epoch(lane: Lane) -> int:
    start = LaneEpoch.objects.get(lane=lane, epoch=lane.epoch)
    return lane.claimed_count - (lane.count - start.left_count)


def stranded_adopt_due(client: Redis | None = None) -> int:
    """Look after every open lane; returns how many claims were committed for their owners.

    A lane that Redis doesn't hold is rebuilt, claimants not loaded are loaded, and reservations
    that stay uncommitted for ADOPT_AFTER_S are committed on behalf of whoever asked (they hold the
    portion, and nobody else could get it). An empty lane that stays below its slots even so is
    rebuilt, which offers the stranded portions again.
    """
    client = client or stock_client()
    adopted = 0
    lanes = Lane.objects.select_related("packet").filter(
        ~Q(state=Lane.State.CLOSED), packet__state__in=[Packet.State.OPEN, Packet.State.PAUSED]
    )
    for packet_id, group in groupby(lanes.order_by("packet_id", "id"), lambda n: n.packet_id):
        try:
            for lane in _uneasy(client, packet_id, list(group)):
                adopted += _look_after_alone(client, lane)
        except redis.exceptions.RedisError as error:
            log.warning("lanes_not_looked_after", packet=packet_id.hex, error=type(error).__name__)
            if is_away(error):
                break  # the other lanes would only wait for it too
    return adopted


def _uneasy(client: Redis, packet_id: uuid.UUID, lanes: Sequence[Lane]) -> list[Lane]:
    """Those of a packet's lanes that need a closer look; a pool has a thousand that don't."""
    heads = stock.read_many(client, packet_id, [lane.number for lane in lanes])
    starts = dict(
        LaneEpoch.objects.filter(lane__in=lanes, epoch=F("lane__epoch")).values_list(
            "lane_id", "left_count"
        )
    )
    return [lane for lane in lanes if not _at_ease(lane, heads.get(lane.number), starts)]


def _at_ease(lane: Lane, held: stock.LaneStock | None, starts: Mapping[int, int]) -> bool:
    """Open, loaded, and everything that was reserved is committed."""
    if held is None or held.epoch != lane.epoch or lane.id not in starts:
        return False
    committed = lane.claimed_count - (lane.count - starts[lane.id])
    return (
        lane.state == Lane.State.OPEN
        and lane.direct_until is None
        and held.claimants_loaded
        and held.index - committed <= held.lost
        and (held.left_count > 0 or lane.claimed_count == lane.count)
        and not held.watch_ms
    )


def _look_after_alone(client: Redis, lane: Lane) -> int:
    """One lane in trouble (locked, say) keeps no other from being looked after."""
    try:
        return _look_after(client, lane)
    except (redis.exceptions.RedisError, DatabaseError, Unavailable) as error:
        if not connection.is_usable() or (
            isinstance(error, redis.exceptions.RedisError) and is_away(error)
        ):
            raise
        log.warning("lane_not_looked_after", lane=lane.id, error=type(error).__name__)
        return 0


def _look_after(client: Redis, lane: Lane) -> int:
    held = stock.read(client, lane.packet_id, lane.number)
    strange = held is None or held.epoch != lane.epoch or lane.direct_until is not None
    if held is None or strange or lane.state == Lane.State.LOADING:
        rebuild(client, lane_id=lane.id, seen_epoch=None if held is None else held.epoch)
        return 0
    if not held.claimants_loaded:
        if lane.claimed_count <= claimants.INLINE:
            claimants.load(lane.id, client=client)
        else:
            claimants.wake(lane.id)  # its loader may be dead; a living one isn't disturbed
    gap = held.index - _committed_in_epoch(lane)
    empty = held.left_count == 0 and lane.claimed_count < lane.count
    if gap <= held.lost and not empty:
        if held.watch_ms:
            _watch(client, lane, -1, 0, held.lost)
        return 0
    now_ms = clock.now_ms()
    if held.watch_index < 0:
        _watch(client, lane, held.index, now_ms, held.lost)
        return 0
    waited_s = (now_ms - held.watch_ms) / 1000
    if waited_s < ADOPT_AFTER_S:
        return 0
    adopted = adopt(client, lane, below_index=held.watch_index)
    if adopted:
        _watch(client, lane, -1, 0, held.lost)
    elif not empty:
        # What is missing has no record (it was lost, or it went to somebody who had won already):
        # looking again would find no more. Emptiness will offer it again.
        _watch(client, lane, -1, 0, gap)
    elif waited_s >= STRANDED_REBUILD_AFTER_S:
        rebuild(client, lane_id=lane.id, seen_epoch=lane.epoch)
    return adopted


def _watch(client: Redis, lane: Lane, index: int, at_ms: int, lost: int) -> None:
    stock.set_flags(
        client,
        lane.packet_id,
        lane.number,
        lane.epoch,
        {"watch_index": index, "watch_ms": at_ms, "lost": lost},
    )


def _reservations(client: Redis, lane: Lane) -> Iterator[tuple[bytes, int, Portion]]:
    """The lane's records that aren't marked as committed: (participant, serial, portion)."""
    for start in range(0, lane.buckets, 500):
        pipeline = client.pipeline(transaction=False)
        for bucket in range(start, min(start + 500, lane.buckets)):
            pipeline.hgetall(stock.bucket_key(lane.packet_id, lane.number, bucket))
        for entries in pipeline.execute():
            for name, text in entries.items():
                try:
                    portion, committed_ms = stock.record_parts(text)
                except ValueError:
                    continue  # rubbish is no reservation; the claim script reads it as absent too
                if committed_ms == 0:
                    participant, serial = stock.member_parts(name)
                    yield participant, serial, portion


def adopt(client: Redis, lane: Lane, *, below_index: int) -> int:
    """Commit the current epoch's reservations below an index for their owners; returns how many."""
    journal = Journal()
    adopted = 0
    try:
        for participant, serial, portion in _reservations(client, lane):
            if portion.epoch != lane.epoch or portion.index >= below_index:
                continue
            person = Participant.objects.filter(digest=participant).first()
            slot = Slot(
                packet=lane.packet_id,
                lane_id=lane.id,
                lane_number=lane.number,
                bucket=ids.bucket(participant, lane.buckets),
                participant=participant,
                serial=serial,
                claim_id=ids.claim_id(lane.packet_id, participant, serial),
            )
            commit = Commit(
                slot,
                portion,
                person.client_app_id if person else 0,
                person.subject if person else "",
            )
            (outcome,) = journal.commit(lane.id, [commit])
            if isinstance(outcome, Unavailable) or outcome.claimed is None:
                continue
            if person is not None:
                # Who it is will be written down by the owner's repeat, so that one must not be
                # answered from Redis while only the digest is known.
                stock.mark(client, slot, outcome.claimed)
            adopted += outcome.verdict.value == "won"
    finally:
        journal.close()
    if adopted:
        log.warning("reservations_adopted", lane=lane.id, count=adopted)
    return adopted


def reopen_all(client: Redis | None = None) -> list[tuple[int, int]]:
    """After Postgres was restored from a backup: a new epoch for every lane that isn't closed.

    Whatever Redis remembers is forgotten first: of claims that the restored books don't know, and
    of packets that are drafts again. Returns (lane id, new epoch). The doors must be shut while
    this runs.
    """
    client = client or stock_client()
    lanes = Lane.objects.select_related("packet").exclude(state=Lane.State.CLOSED).order_by("id")
    held = {lane.id: stock.read(client, lane.packet_id, lane.number) for lane in lanes}
    stock.wipe_all(client)
    reopened = []
    for lane in lanes:
        Lane.objects.filter(id=lane.id).update(loader_until=None, direct_until=None)
        lane.refresh_from_db()
        known = held[lane.id]
        opened = open_epoch(
            lane.id,
            above=known.epoch if known else 0,
            cause=LaneEpoch.Cause.RESTORED,
            seen=lane,
        )
        if opened is None:
            continue
        fresh, epoch = opened
        finish_epoch(client, fresh, epoch)
        claimants.load(lane.id, client=client)
        reopened.append((lane.id, epoch.epoch))
    return reopened
