"""Telling Redis what was decided in Postgres: best effort, after the commit.

The flags only spare Postgres the asking. Where Redis can't be reached they are mended by the first
claim that meets the disagreement; whoever pauses or closes doesn't wait for it packet by packet.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

import redis.exceptions
import structlog
from django.db.models.functions import Now
from redis import Redis

from engine.lib.redis import stock as stock_client
from packets import stock
from packets.claiming import circuit
from packets.claiming.registry import registry
from packets.models import Gate, Packet

log = structlog.get_logger(__name__)

GATE_PUSHES = 1_000  # packets told at once of their gate: about a second
EXPIRED_AT_ONCE = 20_000  # hashes of a packet: half a second's work
EXPIRE_WITHIN = dt.timedelta(hours=1)  # after its close a packet is looked at by every sweep
EXPIRING_LEASE_S = 300  # a sweep that takes longer for one packet is joined by another
NO_END = -1  # what TTL says of a key that stays for ever


def flags_push(packet_id: uuid.UUID) -> None:
    """Write the flags of a packet's lanes anew; forget what this process believes of it."""
    registry.forget(packet_id)
    _tell("flags_not_pushed", packet_id, lambda: stock.push_flags(stock_client(), packet_id))


def gate_push(gate: Gate) -> None:
    """The same for the packets behind a gate, the newest first: whoever pressed the button waits.

    What is left over, where thousands of people's own packets stand behind one, hears of it from
    its first claim.
    """
    packets = Packet.objects.filter(state__in=[Packet.State.OPEN, Packet.State.PAUSED])
    if gate.key != Gate.ALL:
        packets = packets.filter(gate=gate)
    newest = packets.order_by("-created_at")
    for packet_id in newest.values_list("id", flat=True)[:GATE_PUSHES]:
        flags_push(packet_id)


def stock_expire(packet_id: uuid.UUID) -> None:
    """Let Redis forget a closed packet after a while: until then it answers repeats.

    Of a pool with a million small hashes that is the sweep's work: whoever closes doesn't wait.
    """
    lanes = Packet.objects.get(id=packet_id).lanes.order_by("number")
    if sum(lane.buckets for lane in lanes) > EXPIRED_AT_ONCE:
        return

    def expire() -> None:
        for lane in lanes:
            stock.expire(stock_client(), packet_id, lane)

    _tell("stock_not_expired", packet_id, expire)


def stock_expire_due(client: Redis | None = None) -> int:
    """The same for packets closed of late that Redis would keep for ever; returns how many.

    Too large for whoever closed them, or closed while Redis was away. The last lane's head gets its
    end last of all keys.
    """
    client = client or stock_client()
    recent = Packet.objects.filter(state=Packet.State.CLOSED, closed_at__gt=Now() - EXPIRE_WITHIN)
    done = 0
    try:
        for packet in recent.filter(opened_at__isnull=False).order_by("closed_at"):
            done += _expire_forgotten(client, packet)
    except redis.exceptions.RedisError as error:
        log.warning("stock_not_expired", error=type(error).__name__)
    return done


def _expire_forgotten(client: Redis, packet: Packet) -> bool:
    if client.ttl(stock.meta_key(packet.id, packet.lane_count - 1)) != NO_END:
        return False
    if not client.set(f"expiring:{{{packet.id.hex}}}", 1, nx=True, ex=EXPIRING_LEASE_S):
        return False
    for lane in packet.lanes.order_by("number"):
        stock.expire(client, packet.id, lane)
    return True


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
