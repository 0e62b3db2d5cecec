"""Who won a packet that is over: a filter without false negatives, held by the process.

When Postgres shows a packet full or closed no claim is added any more, so 64 bits of every claim's
id (a hash of packet, participant and serial already) can be read once and kept: 8 MB for a million
winners. A miss is certain, so "sold out" is then answered from memory; a hit asks Postgres. A
packet too large for the filter, or not read yet, is always worth asking about.
"""

from __future__ import annotations

import array
import bisect
import threading
import uuid
from collections import OrderedDict

from packets.claiming.effects import Slot
from packets.models import Claim, Lane

MAX_WINNERS = 2_000_000  # of one packet
MAX_KEPT = 4_000_000  # of all packets of a process: 32 MB
CHUNK = 20_000

_filters: OrderedDict[uuid.UUID, array.array[int] | None] = OrderedDict()
_lock = threading.Lock()


def may_have_won(slot: Slot) -> bool:
    """Ask the filter, reading it first where it isn't there yet. May read from Postgres."""
    return True if (known := load(slot.packet)) is None else _holds(known, slot.claim_id)


def ask(slot: Slot) -> bool | None:
    """The same without waiting: None where the filter has to be read first."""
    known = _filters.get(slot.packet, _MISSING)
    if known is _MISSING:
        return None
    return True if known is None else _holds(known, slot.claim_id)  # type: ignore[arg-type]


_MISSING = object()


def load(packet_id: uuid.UUID) -> array.array[int] | None:
    """The packet's filter, sorted; None where it has too many winners. Only for a packet that is
    over."""
    with _lock:
        if packet_id in _filters:
            _filters.move_to_end(packet_id)
            return _filters[packet_id]
    found = _read(packet_id)
    with _lock:
        _filters[packet_id] = found
        while len(_filters) > 1 and sum(len(kept or ()) for kept in _filters.values()) > MAX_KEPT:
            _filters.popitem(last=False)
    return found


def forget() -> None:
    with _lock:
        _filters.clear()


def _read(packet_id: uuid.UUID) -> array.array[int] | None:
    winners: array.array[int] = array.array("Q")
    for lane_id, count in Lane.objects.filter(packet_id=packet_id).values_list(
        "id", "claimed_count"
    ):
        if len(winners) + count > MAX_WINNERS:
            return None
        for after in range(0, count, CHUNK):
            rows = Claim.objects.filter(
                lane_id=lane_id, position__gt=after, position__lte=after + CHUNK
            )
            winners.extend(map(_hash, rows.values_list("id", flat=True)))
    return array.array("Q", sorted(winners))


def _hash(claim_id: uuid.UUID) -> int:
    return claim_id.int >> 64


def _holds(winners: array.array[int], claim_id: uuid.UUID) -> bool:
    value = _hash(claim_id)
    place = bisect.bisect_left(winners, value)
    return place < len(winners) and winners[place] == value
