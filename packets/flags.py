"""Telling Redis what was decided in Postgres: best effort, after the commit.

The flags only spare Postgres the asking. Where Redis can't be reached they are mended by the first
claim that meets the disagreement.
"""

from __future__ import annotations

import uuid

import redis.exceptions
import structlog

from engine.lib.redis import stock as stock_client
from packets import stock
from packets.claiming.registry import registry
from packets.models import Gate, Packet

log = structlog.get_logger(__name__)


def flags_push(packet_id: uuid.UUID) -> None:
    """Write the flags of a packet's lanes anew; forget what this process believes of it."""
    registry.forget(packet_id)
    try:
        stock.push_flags(stock_client(), packet_id)
    except redis.exceptions.RedisError as error:
        log.warning("flags_not_pushed", packet=packet_id.hex, error=type(error).__name__)


def gate_push(gate: Gate) -> None:
    """The same for every packet behind a gate."""
    packets = Packet.objects.filter(state__in=[Packet.State.OPEN, Packet.State.PAUSED])
    if gate.key != Gate.ALL:
        packets = packets.filter(gate=gate)
    for packet_id in packets.values_list("id", flat=True):
        flags_push(packet_id)


def stock_expire(packet_id: uuid.UUID) -> None:
    """Let Redis forget a closed packet after a while: until then it answers repeats."""
    try:
        for lane in Packet.objects.get(id=packet_id).lanes.order_by("id"):
            stock.expire(stock_client(), packet_id, lane)
    except redis.exceptions.RedisError as error:
        log.warning("stock_not_expired", packet=packet_id.hex, error=type(error).__name__)
