"""A lane's stock in Redis: where its keys are, how it is loaded, flagged and read.

Redis is a fast opinion about rows in Postgres: everything here can be lost and written again
(`packets/recovery.py`). All keys of a lane share one hash tag, so every script is single-slot.
"""

from __future__ import annotations

import enum
import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models.functions import Now
from redis import Redis

from engine.lib import ids, lua
from engine.lib.clock import to_ms
from engine.lib.crypto import decrypt
from packets import proof, splitting
from packets.claiming.effects import Claimed, Portion, Slot
from packets.models import Gate, Lane, LaneEpoch, Packet

CLAIMANTS_PER_BUCKET = 64  # a hash this small stays a compact listpack, also where it is overfull
MAX_BUCKETS = 1_000_000
KEYS_PER_COMMAND = 1_000
CLOSED_KEPT_S = 24 * 3600  # how long Redis goes on answering repeats of a closed packet
# Epochs are counted in ones; a number beyond this (far below 2^53) can only be rubbish.
MAX_EPOCH = 2**50

STRATEGY_CODES: Mapping[str, int] = {"fixed": 1, "lucky": 2, "double_mean": 3, "tiers": 4}


def buckets_for(count: int) -> int:
    """How many hashes hold the claimants of a lane of `count` portions."""
    return max(1, min(MAX_BUCKETS, -(-count // CLAIMANTS_PER_BUCKET)))


def meta_key(packet: uuid.UUID, lane_number: int) -> str:
    return f"lane:{{{packet.hex}:{lane_number}}}:meta"


def bucket_key(packet: uuid.UUID, lane_number: int, bucket: int) -> str:
    return f"lane:{{{packet.hex}:{lane_number}}}:b:{bucket}"


def tries_key(packet: uuid.UUID, lane_number: int) -> str:
    return f"lane:{{{packet.hex}:{lane_number}}}:tries"


def member(participant: bytes, serial: int) -> bytes:
    return participant + serial.to_bytes(4, "big") if serial else participant


def member_parts(name: bytes) -> tuple[bytes, int]:
    """(participant, serial) of a record's field name."""
    return name[:16], int.from_bytes(name[16:], "big")


def record(portion: Portion, committed_ms: int) -> str:
    return f"{portion.epoch},{portion.index},{portion.amount_fen},{portion.tier},{committed_ms}"


def record_parts(text: bytes) -> tuple[Portion, int]:
    """(portion, committed_ms) of a record; 0 ms: not known to be committed."""
    epoch, index, amount_fen, tier, committed_ms = (int(part) for part in text.split(b","))
    return Portion(epoch, index, amount_fen, tier), committed_ms


def rules_of(packet: Packet) -> splitting.Rules:
    return splitting.Rules(
        strategy=splitting.Strategy(packet.strategy),
        total_fen=packet.total_fen,
        count=packet.count,
        min_fen=packet.min_fen,
        max_fen=packet.max_fen,
        evenness=packet.evenness,
        tiers=tuple(splitting.Tier(amount, quantity) for amount, quantity in packet.tiers),
        remainder=splitting.Strategy(packet.remainder),
    )


def stream_seed(packet: Packet) -> bytes:
    """The secret seed of an opened packet's draws; only keys derived from it go to Redis."""
    return proof.stream_seed(decrypt(packet.seed_encrypted), bytes.fromhex(packet.beacon))


def shares_of(packet: Packet) -> list[splitting.LaneShare]:
    """How the packet is cut into lanes: odd prizes go by the seed, whose commitment covers it."""
    return splitting.lanes(rules_of(packet), packet.lane_count, decrypt(packet.seed_encrypted))


def lane_flags(packet: Packet, lane: Lane, gates_open: bool) -> dict[str, str | int]:
    """What staff can change while a lane is loaded."""
    if lane.state == Lane.State.CLOSED or packet.state == Packet.State.CLOSED:
        state = "closed"
    elif packet.state == Packet.State.OPEN and gates_open:
        state = "open"
    else:
        state = "paused"
    return {
        "state": state,
        "opens_ms": to_ms(packet.opens_at),
        "closes_ms": to_ms(packet.closes_at),
    }


def gates_open(packet: Packet) -> bool:
    """Whether both the packet's own gate and the gate `all` are open, read now."""
    keys = Gate.objects.filter(state=Gate.State.OPEN).filter(key=Gate.ALL) | Gate.objects.filter(
        state=Gate.State.OPEN, id=packet.gate_id
    )
    return keys.count() == len({packet.gate_id} | {_gate_all_id()})


def _gate_all_id() -> int:
    return Gate.objects.values_list("id", flat=True).get(key=Gate.ALL)


class Claimants(enum.StrEnum):
    """Whether Redis has the records of everybody who won in a lane."""

    FULL = "full"
    PARTIAL = "partial"
    KEEP = "keep"  # as it was before the load


def load(
    client: Redis,
    packet: Packet,
    lane: Lane,
    epoch: LaneEpoch,
    *,
    is_open: bool,
    claimants: Claimants,
) -> int:
    """Put the stock of `epoch` in place; returns the epoch that Redis holds afterwards."""
    rules = rules_of(packet)
    start = splitting.start(rules, epoch.left_fen, epoch.left_count, epoch.tiers_left)
    fields: dict[str, str | int] = {
        **lane_flags(packet, lane, is_open),
        "left_fen": epoch.left_fen,
        "left_count": epoch.left_count,
        "index": 0,
        "strategy": STRATEGY_CODES[packet.strategy],
        "remainder": STRATEGY_CODES[packet.remainder],
        "key": proof.lane_key(stream_seed(packet), packet.id.hex, lane.number, epoch.epoch),
        "min_fen": packet.min_fen,
        "max_fen": packet.max_fen or 0,
        "evenness": packet.evenness,
        "start_fen": start.start_fen,
        "start_count": start.start_count,
        "tier_amounts": ",".join(str(tier.amount_fen) for tier in rules.tiers),
    }
    for number, left in enumerate(epoch.tiers_left, start=1):
        fields[f"tier_{number}"] = left
    reply = lua.load("packets", "load").call(
        client,
        [meta_key(packet.id, lane.number)],
        [epoch.epoch, claimants.value, *itertools.chain.from_iterable(fields.items())],
    )
    return int(reply[1])


def set_flags(
    client: Redis, packet: uuid.UUID, lane_number: int, epoch: int | None, fields: dict[str, object]
) -> bool:
    """Set flags where the lane is loaded (and, if `epoch` is given, still in that epoch)."""
    flat = [str(part) for pair in fields.items() for part in pair]
    return bool(
        lua.load("packets", "flags").call(
            client, [meta_key(packet, lane_number)], ["" if epoch is None else str(epoch), *flat]
        )
    )


def push_flags(client: Redis, packet_id: uuid.UUID) -> None:
    """Write the flags of all lanes of a packet anew, from Postgres."""
    packet = Packet.objects.annotate(read_at=Now()).get(id=packet_id)
    is_open = gates_open(packet)
    for lane in packet.lanes.order_by("id"):
        flags = lane_flags(packet, lane, is_open)
        if packet.opens_at <= packet.read_at:
            # It has opened by Postgres's clock; Redis's own may be behind.
            flags["opens_ms"] = 0
        set_flags(client, packet.id, lane.number, None, dict(flags))


@dataclass(frozen=True)
class LaneStock:
    """What Redis holds of a lane."""

    epoch: int
    index: int
    left_count: int
    claimants_loaded: bool
    watch_index: int  # see recovery: how far reservations had come when a gap was seen; or -1
    watch_ms: int  # and when that was; or 0
    lost: int  # reservations of this epoch that are known to have no owner any more


_HEAD = ["epoch", "index", "left_count", "claimants", "watch_index", "watch_ms", "lost"]


def read(client: Redis, packet: uuid.UUID, lane_number: int) -> LaneStock | None:
    values = client.hmget(meta_key(packet, lane_number), _HEAD)
    if values[0] is None:
        return None
    if not _is_epoch(values[0]):
        client.unlink(meta_key(packet, lane_number))
        return None
    return _lane_stock(values)


def _is_epoch(text: bytes | str) -> bool:
    """Anything else where an epoch should stand is rubbish, and so is what stands beside it."""
    return text.isdigit() and 0 < int(text) < MAX_EPOCH


def read_many(
    client: Redis, packet: uuid.UUID, lane_numbers: Sequence[int]
) -> dict[int, LaneStock]:
    """The same for many lanes in one round trip; those that Redis doesn't hold are left out."""
    pipeline = client.pipeline(transaction=False)
    for number in lane_numbers:
        pipeline.hmget(meta_key(packet, number), _HEAD)
    found = zip(lane_numbers, pipeline.execute(), strict=True)
    return {
        number: _lane_stock(values)
        for number, values in found
        if values[0] is not None and _is_epoch(values[0])
    }


def _lane_stock(values: Sequence[Any]) -> LaneStock:
    epoch, index, left_count, claimants, watch_index, watch_ms, lost = values
    return LaneStock(
        epoch=int(epoch or 0),
        index=int(index or 0),
        left_count=int(left_count or 0),
        claimants_loaded=claimants == b"full",
        watch_index=int(watch_index or -1),
        watch_ms=int(watch_ms or 0),
        lost=int(lost or 0),
    )


def loaded_position(client: Redis, packet: uuid.UUID, lane_number: int) -> int:
    """Up to which position of the lane the claimants' records have been loaded."""
    return int(client.hget(meta_key(packet, lane_number), "loaded") or 0)


def mark(client: Redis, slot: Slot, claimed: Claimed) -> None:
    """Write what Postgres returned, so that the next repeat is answered from Redis."""
    client.hset(
        bucket_key(slot.packet, slot.lane_number, slot.bucket),
        member(slot.participant, slot.serial),
        record(claimed.portion, to_ms(claimed.committed_at)),
    )


def mark_many(
    client: Redis, packet: uuid.UUID, lane: Lane, rows: Iterable[tuple[bytes, int, Portion, int]]
) -> None:
    """The same for many claims of a lane: (participant, serial, portion, committed_ms)."""
    pipeline = client.pipeline(transaction=False)
    for participant, serial, portion, committed_ms in rows:
        pipeline.hset(
            bucket_key(packet, lane.number, ids.bucket(participant, lane.buckets)),
            member(participant, serial),
            record(portion, committed_ms),
        )
    pipeline.execute()


def expire(client: Redis, packet: uuid.UUID, lane: Lane) -> None:
    """Give every key of a closed packet's lane an end."""
    for start in range(0, lane.buckets, KEYS_PER_COMMAND):
        pipeline = client.pipeline(transaction=False)
        for bucket in range(start, min(start + KEYS_PER_COMMAND, lane.buckets)):
            pipeline.expire(bucket_key(packet, lane.number, bucket), CLOSED_KEPT_S)
        pipeline.execute()
    client.expire(meta_key(packet, lane.number), CLOSED_KEPT_S)
    client.expire(tries_key(packet, lane.number), CLOSED_KEPT_S)


def forget(client: Redis, packet: uuid.UUID, lane: Lane) -> None:
    """Drop every key of a lane of a packet that is going to be removed."""
    for start in range(0, lane.buckets, KEYS_PER_COMMAND):
        pipeline = client.pipeline(transaction=False)
        for bucket in range(start, min(start + KEYS_PER_COMMAND, lane.buckets)):
            pipeline.unlink(bucket_key(packet, lane.number, bucket))
        pipeline.execute()
    client.unlink(tries_key(packet, lane.number))
    client.unlink(meta_key(packet, lane.number))


def wipe_all(client: Redis) -> None:
    """Forget the stock of every packet, also of those that Postgres doesn't know (any more)."""
    keys = iter(client.scan_iter("lane:*", count=KEYS_PER_COMMAND))
    while chunk := list(itertools.islice(keys, KEYS_PER_COMMAND)):
        client.unlink(*chunk)
