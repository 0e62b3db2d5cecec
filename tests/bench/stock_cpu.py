"""CPU of Redis for one claim: our script against the smallest that dedupes and decrements.

Both are sent by one client in pipelines of 200; every call is a new winner of a lucky packet with
evenness 2, whose portion the script draws. The client's own CPU isn't counted.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
from redis import Redis

from engine.lib import ids, lua
from packets import stock
from tests.bench.valkey import cpu_s, valkey

CLAIMS = 100_000
PIPELINED = 200
MEAN_FEN = 1_000
SMALLEST = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local left = redis.call('DECR', KEYS[2])
if left < 0 then return -1 end
redis.call('HSET', KEYS[1], ARGV[1], left)
return 1
"""


def _people(claims: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(claims)]


def _cost_us(client: Redis, calls: Iterable[Sequence[Any]], won: Any) -> float:
    """Microseconds of the server's CPU for one of `calls`, each of which must have won."""
    packed = iter([hiredis.pack_command(tuple(call)) for call in calls])  # type: ignore[arg-type]
    connection = client.connection_pool.get_connection()
    done, before = 0, cpu_s(client)
    try:
        while chunk := list(itertools.islice(packed, PIPELINED)):
            connection.send_packed_command([b"".join(chunk)])
            replies = [connection.read_response() for _ in chunk]
            if not all(won(reply) for reply in replies):
                raise RuntimeError("somebody did not win")
            done += len(chunk)
    finally:
        client.connection_pool.release(connection)
    return (cpu_s(client) - before) / done * 1e6


def _load_lane(client: Redis, packet: uuid.UUID, claims: int) -> None:
    total = claims * MEAN_FEN
    fields: dict[str, str | int] = {
        "state": "open", "opens_ms": 0, "closes_ms": 2**50, "left_fen": total,
        "left_count": claims, "index": 0, "strategy": stock.STRATEGY_CODES["lucky"],
        "remainder": stock.STRATEGY_CODES["lucky"], "key": "ab" * 32, "min_fen": 1, "max_fen": 0,
        "evenness": 2, "start_fen": total, "start_count": claims, "tier_amounts": "",
    }  # fmt: skip
    flat = itertools.chain.from_iterable(fields.items())
    lua.load("packets", "load").call(client, [stock.meta_key(packet, 0)], [1, "full", *flat])


def measure(claims: int = CLAIMS) -> dict[str, float]:
    packet = uuid.UUID(int=1)
    buckets = stock.buckets_for(claims)
    script = lua.load("packets", "claim")
    people = _people(claims)
    with valkey() as (_, client):
        _load_lane(client, packet, claims)
        client.script_load(script.text)
        ours = (
            lua.Call(
                script,
                (
                    stock.meta_key(packet, 0),
                    stock.bucket_key(packet, 0, ids.bucket(person, buckets)),
                ),
                (person, b"0"),
            ).by_sha()
            for person in people
        )
        value = _cost_us(client, ours, lambda reply: reply[0] == 0)
        sha = client.script_load(SMALLEST)
        client.set("left", claims)
        smallest = (("EVALSHA", sha, 2, "claims", "left", person.hex()) for person in people)
        base = _cost_us(client, smallest, lambda reply: reply == 1)
    return {"value": value, "base": base, "ratio": value / base}
