"""CPU of the client for one script call with 256 in flight: our pipe, redis-py, valkey-glide.

On one server and on a cluster of three masters. CPU of the whole process, so that a client's own
threads count. valkey-glide isn't among our requirements; where it isn't installed its rows are left
out.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
import redis.asyncio.cluster as aiocluster
import uvloop

from engine.lib import lua
from packets.claiming.cluster_pipe import ClusterPipe
from packets.claiming.pipe import Pipe, address_of
from tests.bench.valkey import valkey
from tests.cluster import cluster

CALLS = 20_000
IN_FLIGHT = 256
TAGS = 64  # lanes that the calls are spread over
SCRIPT = lua.parse(
    "bench",
    "-- script: bench\n-- keys: hash\n-- argv: name\n"
    "return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)\n",
    {},
)

One = Callable[[lua.Call], Awaitable[Any]]


async def _singly(one: One) -> float:
    """For clients that take single calls and send them together by themselves."""
    numbers = iter(range(CALLS))

    async def some() -> None:
        for number in numbers:
            await one(_call(number))

    before = time.process_time()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    return (time.process_time() - before) / CALLS * 1e6


async def _piped(client: Any) -> float:
    """For redis-py, whose way to send many together is a pipeline object."""
    numbers = iter(range(CALLS))
    before = time.process_time()
    while chunk := list(itertools.islice(numbers, IN_FLIGHT)):
        pipeline = client.pipeline()
        for number in chunk:
            call = _call(number)
            pipeline.eval(call.script.text, 1, *call.keys, *call.args)
        await pipeline.execute()
    return (time.process_time() - before) / CALLS * 1e6


def _call(number: int) -> lua.Call:
    return lua.Call(SCRIPT, (f"lane:{{{number % TAGS}}}:b",), (b"%d" % (number % 4_000),))


async def _ours(url: str, many: bool) -> float:
    pipe = ClusterPipe(address_of(url)) if many else Pipe(address_of(url))
    try:
        await pipe.call(_call(0))
        return await _singly(pipe.call)
    finally:
        await pipe.close()


async def _redis_py(url: str, many: bool) -> float:
    made: Any = aiocluster.RedisCluster if many else aioredis.Redis
    client = made.from_url(url)
    try:
        await client.ping()
        return await _piped(client)
    finally:
        await client.aclose()


async def _glide(url: str, many: bool) -> float:
    glide: Any = importlib.import_module("glide")
    address = address_of(url)
    options = {
        "addresses": [glide.NodeAddress(address.host, address.port)],
        "credentials": glide.ServerCredentials(address.password),
        "request_timeout": 5_000,
    }
    if many:
        client = await glide.GlideClusterClient.create(
            glide.GlideClusterClientConfiguration(**options)
        )
    else:
        client = await glide.GlideClient.create(glide.GlideClientConfiguration(**options))
    script = glide.Script(SCRIPT.text)

    async def one(call: lua.Call) -> Any:
        return await client.invoke_script(script, keys=[*call.keys], args=[*call.args])

    try:
        await one(_call(0))
        return await _singly(one)
    finally:
        await client.close()


def measure() -> dict[str, dict[str, float]]:
    """Microseconds for one call: {"one server": {client: µs}, "cluster": …}."""
    clients = {"ours": _ours, "redis-py": _redis_py}
    if importlib.util.find_spec("glide") is not None:
        clients["valkey-glide"] = _glide
    with valkey() as (server, _):
        single = {name: uvloop.run(run(server.url, False)) for name, run in clients.items()}
    with (
        tempfile.TemporaryDirectory(prefix="laisee-cluster-") as folder,
        cluster(Path(folder)) as nodes,
    ):
        many = {name: uvloop.run(run(nodes.url, True)) for name, run in clients.items()}
    return {"one server": single, "cluster": many}
