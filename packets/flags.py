"""Telling Redis what was decided in Postgres: best effort, after the commit.

The flags only spare Postgres the asking. Where Redis can't be reached they are mended by the first
claim that meets the disagreement; whoever pauses or closes doesn't wait for it packet by packet.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import redis.exceptions
import structlog

from engine.lib.redis import stock as stock_client
from packets import stock
from packets.claiming import circuit
from packets.claiming.registry import registry
from packets.models import Gate, Packet

log = structlog.get_logger(__name__)


def flags_push(packet_id: uuid.UUID) -> None:
    """Write the flags of a packet's lanes anew; forget what this process believes of it."""
    registry.forget(packet_id)
    _tell("flags_not_pushed", packet_id, lambda: stock.push_flags(stock_client(), packet_id))


def gate_push(gate: Gate) -> None:
    """The same for every packet behind a gate."""
    packets = Packet.objects.filter(state__in=[Packet.State.OPEN, Packet.State.PAUSED])
    if gate.key != Gate.ALL:
        packets = packets.filter(gate=gate)
    for packet_id in packets.values_list("id", flat=True):
        flags_push(packet_id)


def stock_expire(packet_id: uuid.UUID) -> None:
    """Let Redis forget a closed packet after a while: until then it answers repeats."""
    lanes = Packet.objects.get(id=packet_id).lanes.order_by("id")

    def expire() -> None:
        for lane in lanes:
            stock.expire(stock_client(), packet_id, lane)

    _tell("stock_not_expired", packet_id, expire)


def _tell(otherwise: str, packet_id: uuid.UUID, work: Callable[[], None]) -> None:
    known = circuit.of_process()
    why = "away"
    if not known.is_open():
        try:
            work()
            return
        except redis.exceptions.RedisError as error:
            why = type(error).__name__
            if circuit.is_away(error):
                known.trip(error)
    log.warning(otherwise, packet=packet_id.hex, error=why)
