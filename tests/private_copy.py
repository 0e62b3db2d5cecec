"""A whole private copy of Laisee for one test module, started the way `make run` starts it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.lib.env import read_env_file
from engine.run import spawn
from engine.run.paths import CHECKOUT, Places, free_port
from tests import servers
from tests.servers import FOREIGN

# Seconds; migrations and the demo campaign are included, on two busy cores.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 45.0
# What a copy brings along from the one that was prepared for all of them; see `prepared`.
LENT = ("postgres", "valkey", "secrets", "static", "static.stamp")


class Copy:
    """`base_url`, `edge_url`, `env`, `pids()`, `kill(name)`, `manage(*args)`; see `laisee`.

    Its first start goes on from data that were prepared once, unless it is `new`.
    """

    def __init__(self, root: Path, *, new: bool = False, **environ: str) -> None:
        self.root = root.resolve()
        self.new = new
        self.extra = environ  # settings of this copy alone: DATABASE_URL="…"
        self.places = Places(self.root / "data")
        self.port, self.edge_port = free_port(), free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.edge_url = f"http://127.0.0.1:{self.edge_port}"
        self.console = self.root / "console.log"
        self.supervisor: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, root: Path) -> Iterator[Copy]:
        copy = cls(root)
        try:
            copy.start()
            yield copy
        finally:
            copy.close()

    @property
    def environ(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in FOREIGN and not name.startswith(("PYTEST", "LAISEE"))
        }
        mine = {
            "DATA_DIR": str(self.places.root),
            "PORT": str(self.port),
            "EDGE_PORT": str(self.edge_port),
            "DJANGO_SETTINGS_MODULE": "engine.settings",
        }
        return {**kept, **mine, **self.extra}

    @property
    def env(self) -> dict[str, str]:
        """What the running copy wrote about itself: DATABASE_URL, REDIS_URL, BASE_URL, …"""
        return read_env_file(self.places.env_file)

    def start(self, *extra: str, timeout_s: float = START_TIMEOUT_S) -> None:
        if not self.new and not self.places.root.exists():
            for name in LENT:
                lend(prepared() / name, self.places.root / name)
        with self.console.open("ab") as output:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "engine.run", "up", "--with-parent", *extra],
                cwd=CHECKOUT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        supervisor = self.supervisor
        size = self.console.stat().st_size

        def settled() -> bool:
            return supervisor.poll() is not None or b"\nready:" in self._said(size)

        spawn.wait_until(settled, timeout_s)
        if b"\nready:" not in self._said(size):
            pytest.fail("the copy did not get ready:\n" + self.text())

    def _said(self, since: int) -> bytes:
        return b"\n" + self.console.read_bytes()[max(0, since - 1) :]

    def text(self) -> str:
        """Everything the supervisor has printed so far."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def pids(self) -> dict[str, int]:
        """Process id by name: postgres, valkey, web, edge, worker, beat."""
        found = {}
        for path in self.places.run.glob("*.pid"):
            text = path.read_text().strip()
            if text:
                found[path.stem] = int(text)
        return found

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Signal one process by its name; returns the pid it had."""
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def alive(self) -> list[int]:
        """Every living process of this copy but its supervisor."""
        return spawn.strays(self.places.root)

    def manage(self, *arguments: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Standard output of `manage.py …` against this copy; a failure fails the test."""
        done = self.manage_result(*arguments, timeout_s=timeout_s)
        if check and done.returncode != 0:
            pytest.fail(f"manage.py {' '.join(arguments)}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def manage_result(
        self, *arguments: str, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """The same with its exit code, for commands that are expected to fail."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def launcher(
        self, *arguments: str, timeout_s: float = 120.0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """`python -m engine.run …` on this copy's data, to its end: backup, restore, clean, up."""
        return subprocess.run(
            [sys.executable, "-m", "engine.run", *arguments],
            cwd=CHECKOUT,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def stop(self, number: int = signal.SIGINT, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Stop it as Ctrl-C does; returns the supervisor's exit code."""
        assert self.supervisor is not None
        self.supervisor.send_signal(number)
        return self.supervisor.wait(timeout_s)

    def close(self) -> None:
        """Leave nothing behind, whatever state the test left it in."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGINT)
            try:
                self.supervisor.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.supervisor.kill()
                self.supervisor.wait()
        spawn.kill_strays(self.places.root)


def prepared() -> Path:
    """The data of a copy that never ran, made by whichever test process needs it first."""
    root = servers.shared()
    root.mkdir(exist_ok=True)
    lock = os.open(root / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copy, done = Copy(root, new=True), root / "done"
        if not done.exists():
            made = copy.launcher("prepare")
            if made.returncode != 0:
                pytest.fail(f"no copy could be prepared: {made.stdout}\n{made.stderr}")
            done.touch()
        return copy.places.root
    finally:
        os.close(lock)


def lend(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)
