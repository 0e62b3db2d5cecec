"""Who wins nothing behind a gate, as the doors know it: people whom staff have banned.

A process keeps the blocked people of a gate as a set, and reads them anew once the gate's `blocks`
has moved; it looks whenever it reads a packet, so each second at most. A claim pays for a look into
a set, and only where there is one. Postgres alone is asked: nothing that Redis forgets lets anybody
in. What was committed within that second stands, like every claim.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from django.db import transaction
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError
from packets.models import Block, Gate

# Of one gate: a process keeps them all, in some 10 MB. Against more than that the gate is closed.
MAX_BLOCKED = 100_000
MAX_GATES = 1_000  # whose people one process keeps


def block_add(*, gate_key: str, participant: bytes) -> None:
    """Within the caller's transaction. Raises ServiceError."""
    with transaction.atomic():
        gate = _moved(gate_key)
        if Block.objects.filter(gate=gate).count() >= MAX_BLOCKED:
            raise ServiceError(
                "participant",
                "too_many",
                _("%(most)s people are banned already."),
                most=MAX_BLOCKED,
            )
        Block.objects.bulk_create(
            [Block(gate=gate, participant=participant)], ignore_conflicts=True
        )


def block_remove(*, gate_key: str, participant: bytes) -> None:
    """Within the caller's transaction."""
    with transaction.atomic():
        Block.objects.filter(gate=_moved(gate_key), participant=participant).delete()


def _moved(gate_key: str) -> Gate:
    """The counter first: its row is locked, so it rises in the order in which changes commit."""
    Gate.objects.filter(key=gate_key).update(blocks=F("blocks") + 1)
    return Gate.objects.get(key=gate_key)


_known: OrderedDict[int, tuple[int, frozenset[bytes]]] = OrderedDict()
_lock = threading.Lock()


def blocked_before(gate_id: int) -> tuple[frozenset[bytes], ...]:
    """The people blocked at this gate, and everywhere; nothing where there are none."""
    gates = Gate.objects.filter(Q(pk=gate_id) | Q(key=Gate.ALL)).exclude(blocks=0)
    found = [_blocked_at(*gate) for gate in gates.order_by("pk").values_list("pk", "blocks")]
    return tuple(people for people in found if people)


def _blocked_at(gate_id: int, blocks: int) -> frozenset[bytes]:
    with _lock:
        known = _known.get(gate_id)
    if known is not None and known[0] == blocks:
        return known[1]
    # Read after the counter: these are as new as it, or newer, and then it has moved again.
    rows = Block.objects.filter(gate=gate_id).values_list("participant", flat=True)
    people = frozenset(bytes(row) for row in rows)
    with _lock:
        _known[gate_id] = (blocks, people)
        _known.move_to_end(gate_id)
        while len(_known) > MAX_GATES:
            _known.popitem(last=False)
    return people
