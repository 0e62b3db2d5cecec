"""Closing a packet: for good, and what nobody claimed goes back to the funder, once (invariant 12).

The lanes are locked in id order, so that a commit comes wholly before the close or is refused; the
amount is what the lanes haven't given, whether or not their claims are settled. The end of a window
is judged by Postgres's clock alone, the one that commits are judged by.
"""

from __future__ import annotations

import datetime as dt
import uuid
from functools import partial

import structlog
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models import F, Sum
from django.db.models.functions import Now

from engine.lib.audit import audit_record
from engine.lib.clock import now
from engine.lib.errors import TransitionRefused
from packets import ledger
from packets.flags import flags_push, stock_expire
from packets.models import Lane, Packet, Transfer

log = structlog.get_logger(__name__)

# What commits of the window's last moment have; the commit function knows the same two seconds.
GRACE = dt.timedelta(seconds=2)
EXPIRE_BATCH = 200  # packets closed by one sweep
# A lane or the audit log in somebody's hands for longer: the next sweep comes back to this packet.
LOCK_TIMEOUT = "2s"
OPEN_STATES = (Packet.State.OPEN, Packet.State.PAUSED)


def packet_close(*, packet_id: uuid.UUID, actor: str, reason: str = "") -> Packet:
    """open or paused → closed. Raises TransitionRefused."""
    return _close(packet_id, actor, reason, ended=False)


def packet_close_ended(*, packet_id: uuid.UUID, actor: str = "clock") -> None:
    """Close a packet whose window is over; nothing where it isn't, or where it is closed."""
    try:
        _close(packet_id, actor, "the window is over", ended=True)
    except TransitionRefused:
        return


def packets_expire_due(*, actor: str = "clock") -> int:
    """Close the packets whose window is over; returns how many. One in trouble stops no other."""
    due = Packet.objects.filter(state__in=OPEN_STATES, closes_at__lt=Now() - GRACE)
    closed = 0
    for packet_id in due.order_by("closes_at").values_list("id", flat=True)[:EXPIRE_BATCH]:
        try:
            _close(packet_id, actor, "the window is over", ended=True)
            closed += 1
        except TransitionRefused:
            continue  # somebody closed it in the meantime
        except (DatabaseError, ledger.LedgerError) as error:
            if not connection.is_usable():
                raise
            log.error("packet_not_closed", packet=packet_id.hex, error=str(error)[:300])
    return closed


def _close(packet_id: uuid.UUID, actor: str, reason: str, *, ended: bool) -> Packet:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        lanes = Lane.objects.select_for_update(no_key=True).filter(packet_id=packet_id)
        list(lanes.order_by("id").values_list("id", flat=True))
        due = Packet.objects.filter(id=packet_id, state__in=OPEN_STATES)
        if ended:
            due = due.filter(closes_at__lt=Now() - GRACE)
        if not due.update(state=Packet.State.CLOSED, closed_at=now()):
            state = Packet.objects.values_list("state", flat=True).get(id=packet_id)
            raise TransitionRefused(f"packet {packet_id.hex}", state, OPEN_STATES)
        Lane.objects.filter(packet_id=packet_id).update(
            state=Lane.State.CLOSED, loader=None, loader_until=None
        )
        packet = Packet.objects.get(id=packet_id)
        returned_fen = _return_remainder(packet)
        audit_record(
            actor=actor,
            action="packet.close",
            object_type="packet",
            object_id=packet.id.hex,
            after={"state": packet.state, "returned_fen": returned_fen},
            reason=reason,
        )
        transaction.on_commit(partial(flags_push, packet_id))
        transaction.on_commit(partial(stock_expire, packet_id))
    return packet


def _return_remainder(packet: Packet) -> int:
    left_fen: int = Lane.objects.filter(packet=packet).aggregate(
        left=Sum(F("total_fen") - F("claimed_fen"))
    )["left"]
    if left_fen:
        assert packet.escrow_id is not None
        ledger.post(
            [
                ledger.Entry(
                    reference=f"close:{packet.id.hex}",
                    kind=Transfer.Kind.CLOSE,
                    debit_account_id=packet.escrow_id,
                    credit_account_id=packet.funder_id,
                    amount_fen=left_fen,
                    currency=packet.currency,
                )
            ]
        )
    return left_fen
