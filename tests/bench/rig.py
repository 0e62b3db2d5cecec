"""What the bench stands on: a private copy with production's settings, do-nothing servers, people.

The copy is started as `make run` starts it (fsync on); the do-nothing servers run with the very
command lines of the copy's doors, another application and port. While the doors are measured the
workers are halted: what they do later has a row of its own.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from engine.run import spawn
from engine.run.paths import CHECKOUT, free_port
from loadtest.bench import client
from loadtest.summary import percentile
from tests.bench import cpu
from tests.private_copy import Copy

NOTHING_READY_S = 30.0
TOKEN_TTL_S = 800  # the contract allows 900
PAUSE_S = 0.15  # between two loads: what the last one left over isn't to be billed to the next


@dataclass(frozen=True, slots=True)
class Person:
    user: str
    token: str


@dataclass(frozen=True, slots=True)
class Load:
    """One round of one load: what the crowd heard, and what it cost."""

    heard: client.Heard
    cpu_us: dict[str, float]  # of one answer, by process group; "client" is the crowd itself

    @property
    def answers(self) -> int:
        return len(self.heard.status)

    @property
    def rate(self) -> float:
        return self.answers / self.heard.elapsed_s

    def latency_ms(self, percent: float) -> float:
        return percentile(sorted(self.heard.latency_s), percent) * 1000


class Rig:
    """A running copy and everything that is needed to load it."""

    def __init__(self, root: Path) -> None:
        self.copy = Copy(root, new=True)
        self.children: list[subprocess.Popen[bytes]] = []
        self.halted: list[int] = []
        self.ports: dict[str, int] = {}
        self.groups: dict[str, list[int]] = {}

    def start(self) -> None:
        self.copy.start(timeout_s=300.0)
        os.environ.update(self.copy.environ | self.copy.env)
        os.environ.setdefault("LOG_LEVEL", "ERROR")
        import django

        django.setup()
        pids = self.copy.pids()
        self.groups = {
            name: [pid for key, pid in pids.items() if key.split("-")[0] == name]
            for name in ("edge", "web", "postgres", "valkey")
        }
        self.ports = {"edge": self.copy.edge_port, "web": self.copy.port}
        for door in ("edge", "web"):
            self._start_nothing(door)
        self._make_app()
        self._limit()
        # As autovacuum may at any time: the statistics of a young system are the hardest to be
        # fast by.
        with psycopg.connect(self.copy.env["MIGRATION_DATABASE_URL"], autocommit=True) as link:
            link.execute("ANALYZE")

    def close(self) -> None:
        self.resume()
        for child in self.children:
            child.terminate()
        for child in self.children:
            child.wait(20)
        self.copy.close()

    # --- the do-nothing servers -------------------------------------------------------------------

    def _start_nothing(self, door: str) -> None:
        """As many as the copy has of this door, on one port, with its command line."""
        name, port = f"noop_{door}", free_port()
        roots = []
        for pid in self.groups[door]:
            command = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
            command[command.index("--port") + 1] = str(port)
            command[-1] = f"tests.bench.noop_{door}:application"
            child = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env=_environ_of(pid),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.children.append(child)
            roots.append(child.pid)
        self.ports[name], self.groups[name] = port, roots
        spawn.wait_until(lambda: _listens(port), NOTHING_READY_S)

    # --- workers ----------------------------------------------------------------------------------

    def halt(self) -> None:
        """Nothing is settled or swept until `resume`."""
        pids = self.copy.pids()
        for name, pid in sorted(pids.items()):
            if name.split("-")[0] in ("beat", "worker", "payouts", "webhooks"):
                for one in cpu.descendants(pid):
                    os.kill(one, signal.SIGSTOP)
                    self.halted.append(one)

    def resume(self) -> None:
        while self.halted:
            os.kill(self.halted.pop(), signal.SIGCONT)

    # --- people and packets -----------------------------------------------------------------------

    def _make_app(self) -> None:
        from engine.lib import auth
        from tests.campaign import stage

        self.app = stage.make_app(f"bench-{uuid.uuid4().hex[:8]}")
        key = self.app.keys.first()
        assert key is not None
        material = auth.keys_load()[key.kid].material
        assert isinstance(material, bytes)
        self.kid, self.secret = key.kid, material

    def _limit(self) -> None:
        """The demo's five limits stand before every packet: wide enough for the whole crowd."""
        from campaign.demo import LIMITS
        from packets.limit_rules import Wanted, limit_rule_set

        for subject, method, limit, window_s, burst in LIMITS:
            wanted = Wanted(
                subject=subject, method=method, limit=limit, window_s=window_s, burst=burst
            )
            limit_rule_set(wanted=wanted, actor="bench")

    def people(self, count: int, name: str = "") -> list[Person]:
        """Distinct people with tokens, signed here: minting isn't what is measured."""
        name = name or uuid.uuid4().hex[:12]
        header = _segment({"alg": "HS256", "kid": self.kid, "typ": "JWT"})
        expires = int(time.time()) + TOKEN_TTL_S
        made = []
        for number in range(count):
            user = f"{name}-{number:06d}"
            claims = {"sub": user, "aud": "laisee", "exp": expires, "dev": f"phone-{user}"}
            signed = header + b"." + _segment(claims)
            sign = base64.urlsafe_b64encode(hmac.digest(self.secret, signed, "sha256"))
            made.append(Person(user, (signed + b"." + sign.rstrip(b"=")).decode()))
        return made

    def packet(self, count: int, lanes: int = 1, **rules: Any) -> Any:
        from tests import world

        return world.open_packet(
            count * 100, count, client_apps=[self.app.pk], lane_count=lanes, **rules
        )

    # --- loads ------------------------------------------------------------------------------------

    def load(
        self,
        door: str,
        path: str,
        people: Sequence[Person],
        in_flight: int,
        seconds: float,
        *,
        repeat: bool = True,
    ) -> Load:
        """POST `path` for each of the people at a door, while `seconds` last."""
        port = self.ports[door]
        order = client.Order(
            "127.0.0.1",
            port,
            [request(path, port, person.token) for person in people],
            in_flight,
            seconds,
            repeat,
        )
        time.sleep(PAUSE_S)
        before = cpu.used_s(self.groups)
        heard = client.send(order)
        after = cpu.used_s(self.groups)
        answers = max(1, len(heard.status))
        cost = {name: (after[name] - before[name]) / answers * 1e6 for name in after}
        kept = {name: us for name, us in cost.items() if name == door or name in _BEHIND}
        return Load(heard, {**kept, "client": heard.cpu_s / answers * 1e6})


_BEHIND = ("postgres", "valkey")


def request(path: str, port: int, token: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        "content-length: 2\r\n\r\n{}"
    ).encode()


def claims_path(packet: Any) -> str:
    return f"/api/v1/packets/{packet.id.hex}/claims"


def _environ_of(pid: int) -> dict[str, str]:
    """What a running process was started with; so its twin also ends with the copy."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().rstrip(b"\0").split(b"\0")
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs)


def _segment(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def rig(root: Path) -> Iterator[Rig]:
    """A rig that leaves nothing behind."""
    made = Rig(root)
    try:
        made.start()
        yield made
    finally:
        made.close()
