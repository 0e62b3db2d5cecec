"""A real cluster on loopback: three masters, a replica of each; ended in every case.

The wheel has the server and no tool to make a cluster, so the nodes are introduced here.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from engine.run import paths, spawn

SLOTS = 16_384
MASTERS = 3
START_TIMEOUT_S = 30.0
# Long enough that nothing fails over by itself while a test decides who does.
NODE_TIMEOUT_MS = 15_000
KEYS_AT_ONCE = 100


class Node:
    """One server of the cluster."""

    def __init__(self, root: Path, number: int, password: str) -> None:
        self.folder = root / f"node{number}"
        self.folder.mkdir(parents=True)
        self.root, self.name, self.password = root, f"node{number}", password
        self.port = paths.free_port()
        self.bus_port = paths.free_port()
        self.client = Redis(
            port=self.port, password=password, socket_timeout=10, socket_connect_timeout=2
        )
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        config = self.folder / "valkey.conf"
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"cluster-port {self.bus_port}",
            "cluster-enabled yes",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
            "cluster-replica-no-failover yes",
            "cluster-allow-replica-migration no",
            f"requirepass {self.password}",
            f"primaryauth {self.password}",
            "repl-diskless-sync-delay 0",
            "appendonly no",
            'save ""',
            "maxmemory-policy noeviction",
            f'dir "{self.folder}"',
            "",
        )
        paths.write_private(config, "\n".join(lines))
        self.process = spawn.start(
            [str(paths.valkey_binary()), str(config)],
            name=self.name,
            data_dir=self.root,
            log=self.folder / "log",
            death_signal=signal.SIGKILL,
            environ={"LANG": "C.UTF-8"},
            cwd=self.folder,
        )

    @property
    def id(self) -> str:
        return self.ask("MYID").decode()

    def ask(self, *words: str | int) -> Any:
        """A CLUSTER command. (redis-py's own would look for a node to send it to.)"""
        return self.client.execute_command(f"CLUSTER {words[0]}", *words[1:])

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (RedisError, OSError):
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """`masters` and their `replicas`, by number."""

    def __init__(self, root: Path) -> None:
        password = secrets.token_hex(8)
        self.nodes = [Node(root, number, password) for number in range(2 * MASTERS)]
        self.masters, self.replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]

    @property
    def url(self) -> str:
        """Any node leads to the others; this one lives as long as the cluster."""
        node = self.replicas[-1]
        return f"redis://:{node.password}@127.0.0.1:{node.port}/0"

    def start(self) -> None:
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            until(node.answers, f"an answer of {node.name}")
        share = -(-SLOTS // MASTERS)
        for number, node in enumerate(self.nodes):
            node.ask("SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS:
                last = min((number + 1) * share, SLOTS) - 1
                node.ask("ADDSLOTSRANGE", number * share, last)
            if number > 0:
                node.ask("MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].bus_port)
        everybody = len(self.nodes)
        until(lambda: all(len(n.ask("NODES")) == everybody for n in self.nodes), "all have met")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            until(functools.partial(_done, replica, "REPLICATE", master.id), "a replica")
        until(self._well, "the whole cluster")

    def _well(self) -> bool:
        infos = [node.ask("INFO") for node in self.nodes]
        return all(
            info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == SLOTS
            for info in infos
        ) and all(
            replica.client.info("replication").get("master_link_status") == "up"
            for replica in self.replicas
        )

    def owner(self, slot: int) -> Node:
        """The master of a slot at the start."""
        return self.masters[slot // -(-SLOTS // MASTERS)]

    def replica_of(self, master: Node) -> Node:
        return self.replicas[self.masters.index(master)]

    def cut_off(self, replica: Node) -> None:
        """From now on its master's writes don't reach it; it still takes part in the cluster."""
        replica.client.config_set("primaryauth", "wrong")
        master = self.masters[self.replicas.index(replica)]
        master.client.client_kill_filter(_type="replica")
        until(
            lambda: replica.client.info("replication")["master_link_status"] == "down",
            "a replica without its master",
        )

    def promote(self, replica: Node) -> None:
        """Whatever it knows, and without asking anybody."""
        until(lambda: _done(replica, "FAILOVER", "TAKEOVER"), "the promotion")
        until(lambda: replica.client.role()[0] == b"master", "the new role")

    def move_slot(self, slot: int, source: Node, target: Node) -> int:
        """As any tool does it, key by key while people go on; how many keys that were."""
        target.ask("SETSLOT", slot, "IMPORTING", source.id)
        source.ask("SETSLOT", slot, "MIGRATING", target.id)
        moved = 0
        while keys := source.ask("GETKEYSINSLOT", slot, KEYS_AT_ONCE):
            source.client.execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000,
                "AUTH", target.password, "KEYS", *keys,
            )  # fmt: skip
            moved += len(keys)
        for node in (target, source, *(n for n in self.masters if n not in (source, target))):
            node.ask("SETSLOT", slot, "NODE", target.id)
        return moved

    def close(self) -> None:
        for node in self.nodes:
            node.client.close()
            node.kill()


def _done(node: Node, *words: str) -> bool:
    with contextlib.suppress(ResponseError):
        return bool(node.ask(*words))
    return False


def until(condition: Callable[[], Any], what: str) -> None:
    if not spawn.wait_until(lambda: bool(condition()), START_TIMEOUT_S):
        raise AssertionError(f"{what}: not within {START_TIMEOUT_S} s")


@contextmanager
def cluster(root: Path) -> Iterator[Cluster]:
    made = Cluster(root)
    try:
        made.start()
        yield made
    finally:
        made.close()
