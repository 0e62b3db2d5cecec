"""Moving the window of an open packet: the gala is late.

Before a start is moved the lanes are locked in id order, then the time is looked at; every commit
looks at the packet under its lane's lock. So a round moves wholly before it starts, or not at all:
nobody claims by the old time while the new one is being written. A later end takes nothing from
anybody, and holds up no crowd. Postgres's clock decides, the one that commits are judged by;
processes and Redis follow within a second (`claiming/registry.py`, `flags.py`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from functools import partial

from django.db import connection, transaction
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.clock import rfc3339
from engine.lib.errors import ServiceError, TransitionRefused
from packets.flags import flags_push
from packets.models import Lane, Packet

# A lane in somebody's hands for longer: staff press the button again.
LOCK_TIMEOUT = "2s"
OPEN_STATES = (Packet.State.OPEN, Packet.State.PAUSED)


def packet_move(
    *,
    packet_id: uuid.UUID,
    opens_at: dt.datetime,
    closes_at: dt.datetime,
    actor: str,
    reason: str,
) -> Packet:
    """Another window for an open packet that isn't over; never a shorter one.

    What has started keeps its start. Raises ServiceError naming the field, or TransitionRefused.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        starts = opens_at != Packet.objects.values_list("opens_at", flat=True).get(id=packet_id)
        if starts:
            _hold_lanes(packet_id)
        packet = Packet.objects.select_for_update(no_key=True).get(id=packet_id)
        if not starts and opens_at != packet.opens_at:
            raise ServiceError("opens_at", "changed_meanwhile", _("Somebody else has moved it."))
        cursor.execute("SELECT clock_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
        if packet.state not in OPEN_STATES:
            raise TransitionRefused(f"packet {packet_id.hex}", packet.state, OPEN_STATES)
        _check(packet, opens_at, closes_at, moment)
        before = {"opens_at": rfc3339(packet.opens_at), "closes_at": rfc3339(packet.closes_at)}
        packet.opens_at, packet.closes_at = opens_at, closes_at
        packet.save(update_fields=["opens_at", "closes_at"])
        audit_record(
            actor=actor,
            action="packet.move",
            object_type="packet",
            object_id=packet.id.hex,
            before=before,
            after={"opens_at": rfc3339(opens_at), "closes_at": rfc3339(closes_at)},
            reason=reason,
        )
        transaction.on_commit(partial(flags_push, packet_id))
    return packet


def _hold_lanes(packet_id: uuid.UUID) -> None:
    """No claim of the packet is committed until this transaction ends."""
    lanes = Lane.objects.select_for_update(no_key=True).filter(packet_id=packet_id)
    list(lanes.order_by("id").values_list("id", flat=True))


def _check(
    packet: Packet, opens_at: dt.datetime, closes_at: dt.datetime, moment: dt.datetime
) -> None:
    if packet.closes_at <= moment:
        raise ServiceError("closes_at", "over", _("This is over; it can't be moved any more."))
    if opens_at != packet.opens_at:
        if packet.opens_at <= moment:
            raise ServiceError(
                "opens_at", "started", _("This has started: only its end can still be moved.")
            )
        if opens_at <= moment:
            raise ServiceError("opens_at", "in_the_past", _("This time has passed already."))
    if closes_at - opens_at < packet.closes_at - packet.opens_at:
        raise ServiceError(
            "closes_at", "shorter", _("People were promised this much time; it can't get less.")
        )
