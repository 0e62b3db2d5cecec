"""Bytes of Redis for one winner: our small hashes against the same winners in one flat hash.

The flat hash is what one would write first: a field of 32 characters (an id in hex) for each winner
and the same record. Ours are written as winners are written after a rebuild, marks included.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterator

from redis import Redis

from engine.lib import ids
from packets import stock
from packets.claiming.effects import Portion
from tests.bench.valkey import valkey

CLAIMS = 1_000_000
AT_ONCE = 2_000
COMMITTED_MS = 1_790_000_000_000


def _rows(claims: int) -> Iterator[tuple[bytes, str]]:
    """(participant, record) of winners; the amounts as of a lucky packet of 10 yuan each."""
    for index in range(claims):
        participant = hashlib.sha256(b"%d" % index).digest()[:16]
        amount_fen = 1 + int.from_bytes(participant[:2], "big") % 2_000
        portion = Portion(1, index, amount_fen, 0)
        yield participant, stock.record(portion, COMMITTED_MS + index)


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _write(client: Redis, rows: Iterator[tuple[str, bytes | str, str]]) -> float:
    """(key, field, value) of hashes; the bytes that they took."""
    # Otherwise it would go on freeing while we count.
    client.execute_command("FLUSHALL", "SYNC")
    before = _used(client)
    while chunk := list(itertools.islice(rows, AT_ONCE)):
        pipeline = client.pipeline(transaction=False)
        for key, name, value in chunk:
            pipeline.execute_command("HSET", key, name, value)
        pipeline.execute()
    return _used(client) - before


def measure(claims: int = CLAIMS) -> dict[str, float]:
    packet = uuid.UUID(int=1)
    buckets = stock.buckets_for(claims)

    def ours() -> Iterator[tuple[str, bytes | str, str]]:
        for participant, record in _rows(claims):
            bucket = ids.bucket(participant, buckets)
            yield stock.bucket_key(packet, 0, bucket), stock.member(participant, 0), record

    def flat() -> Iterator[tuple[str, bytes | str, str]]:
        for participant, record in _rows(claims):
            yield "claims", participant.hex(), record

    with valkey() as (_, client):
        value = _write(client, ours()) / claims
        base = _write(client, flat()) / claims
    return {"value": value, "base": base, "ratio": value / base}
