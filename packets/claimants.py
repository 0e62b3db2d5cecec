"""Putting a lane's winners back into Redis after its stock was rebuilt, while others are served.

The lane is open meanwhile: whoever claims is looked up in Postgres first (`claimants` is not
`full` yet), so nothing waits for this and nothing is wrong while it is half done. It is a kindness
to Redis and Postgres afterwards, and must not be felt while it runs: one loader at a time in the
whole installation, small trips, a pause after each chunk, and slices of a few seconds, so that no
worker's slot is held for long.

How far it has come stands in Redis beside the records (`loaded`, a position; positions never
change), so a loader that is killed is succeeded where it stopped, and a later epoch of a lane whose
records survived begins there too. Records that Redis has lost behind that mark cost a look into
Postgres when their owner comes, no more.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import structlog
from kombu.exceptions import OperationalError
from redis import Redis

from engine.lib import clock
from packets import stock
from packets.claiming.effects import Portion
from packets.models import Claim, Lane, Packet

log = structlog.get_logger(__name__)

INLINE = 4_000  # a lane with fewer claims gets its claimants back at once, within 0.1 s
CHUNK = 2_000  # claims read from Postgres at a time, in a statement of its own
TRIP = 100  # records that Redis takes in one go: it serves nobody else for 0.2 ms
PAUSE_PER_WORK = 1.0  # seconds of rest for each second of work: half a core at most
SLICE_S = 5.0  # then the worker's slot is given back
LOST_MOMENTS = 50_000  # claims of a lane: what it takes in the two seconds that an AOF may lose
LEASE_S = 10  # a loader that has said nothing for so long is dead
LEASE_KEY = "laisee:claimants"
LANES_PER_TRIP = 500

_Row = tuple[bytes, int, Portion, int]


def wake(lane_id: int | None = None) -> None:
    """Have a worker load what isn't loaded, this lane first."""
    from packets.tasks import load_claimants

    try:
        load_claimants.delay(lane_id)
    except OperationalError as error:  # the broker is what has just died; the sweep comes by
        log.warning("wake_lost", task="load_claimants", error=type(error).__name__)


def keep(client: Redis, lane: Lane, epoch: int) -> None:
    """Redis held all claimants of the lane in this epoch: those needn't be loaded again.

    To be said before the next epoch is loaded. What it may have lost with its last moments is
    loaded once more.
    """
    last = Claim.objects.filter(lane=lane, epoch=epoch).order_by("-index").first()
    if last is not None and last.position > LOST_MOMENTS:
        fields: dict[str, object] = {"loaded": last.position - LOST_MOMENTS}
        stock.set_flags(client, lane.packet_id, lane.number, epoch, fields)


def load(
    lane_id: int, *, client: Redis, after_chunk: Callable[[float], bool] | None = None
) -> bool:
    """Put a lane's claimants back into Redis, a chunk at a time; whether all are there.

    `after_chunk` hears how many seconds a chunk took and says whether to go on; what was loaded
    stays loaded. False as well where the lane has moved on to another epoch: whoever moved it has
    it loaded again. Claims of the current epoch mark themselves; older ones can't be added to.
    """
    lane = Lane.objects.get(id=lane_id)
    began = done = stock.loaded_position(client, lane.packet_id, lane.number)
    while True:
        started = time.monotonic()
        rows = _rows(lane_id, done)
        for start in range(0, len(rows), TRIP):
            stock.mark_many(client, lane.packet_id, lane, rows[start : start + TRIP])
        done += len(rows)
        fields: dict[str, object] = {"loaded": done}
        if not rows:
            fields["claimants"] = "full"
        if not stock.set_flags(client, lane.packet_id, lane.number, lane.epoch, fields):
            log.info("claimants_superseded", lane=lane_id, epoch=lane.epoch, loaded=done)
            return False
        if not rows:
            log.info("claimants_loaded", lane=lane_id, epoch=lane.epoch, loaded=done - began)
            return True
        if after_chunk is not None and not after_chunk(time.monotonic() - started):
            log.info("claimants_loading", lane=lane_id, loaded=done, claims=lane.claimed_count)
            return False


def _rows(lane_id: int, after: int) -> list[_Row]:
    found = Claim.objects.filter(
        lane_id=lane_id, position__gt=after, position__lte=after + CHUNK
    ).values_list("participant", "serial", "epoch", "index", "amount_fen", "tier", "committed_at")
    return [
        (bytes(who), serial, Portion(epoch, index, amount_fen, tier), clock.to_ms(at))
        for who, serial, epoch, index, amount_fen, tier, at in found
    ]


def load_due(
    *, client: Redis, first: int | None = None, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """One slice of whatever isn't loaded; whether something is left to be done.

    Gently, and by one loader at a time in the whole installation: two would share the same work.
    """
    token = uuid.uuid4().hex
    if not client.set(LEASE_KEY, token, nx=True, px=LEASE_S * 1000):
        return False  # whoever holds it goes on; if dead, the sweep wakes another
    until = time.monotonic() + SLICE_S

    def after_chunk(worked_s: float) -> bool:
        client.set(LEASE_KEY, token, xx=True, px=LEASE_S * 1000)
        sleep(worked_s * PAUSE_PER_WORK)
        return time.monotonic() < until

    try:
        for lane_id in _unloaded(client, first):
            load(lane_id, client=client, after_chunk=after_chunk)
            if time.monotonic() >= until:
                return True
        return False
    finally:
        if client.get(LEASE_KEY) == token.encode():
            client.delete(LEASE_KEY)


def _unloaded(client: Redis, first: int | None) -> Iterator[int]:
    """Open lanes whose claimants Redis hasn't got, `first` before the others."""
    rows = Lane.objects.filter(
        state=Lane.State.OPEN,
        claimed_count__gt=0,
        packet__state__in=[Packet.State.OPEN, Packet.State.PAUSED],
    ).order_by("id")
    lanes = sorted(rows.values_list("id", "packet_id", "number"), key=lambda row: row[0] != first)
    for start in range(0, len(lanes), LANES_PER_TRIP):
        some = lanes[start : start + LANES_PER_TRIP]
        pipeline = client.pipeline(transaction=False)
        for _, packet_id, number in some:
            pipeline.hget(stock.meta_key(packet_id, number), "claimants")
        for (lane_id, _, _), claimants in zip(some, pipeline.execute(), strict=True):
            if claimants == b"partial":
                yield lane_id
