"""Starts, watches and ends operating-system processes; knows nothing of what they are.

Invariant: every process begins in a session of its own (a Ctrl-C reaches the supervisor alone),
carries the mark of its DATA_DIR, and is told by the kernel when its parent dies. `strays` finds
what a killed parent left behind, by that mark and not by numbers that may have been reused.

As a script (`spawn.py DATA_DIR`) it is the guard: it outlives a supervisor that was killed, ends
whatever is left of that copy, and leaves. It imports the standard library alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
# Environment variables that mark a process as ours; see `strays`.
MARK_DATA_DIR = "LAISEE_RUN_DATA_DIR"
MARK_PROCESS = "LAISEE_RUN_PROCESS"
# Servers that overwrite their environment are known by the folder they stand in.
SERVERS = frozenset({"postgres", "valkey-server"})
POLL_S = 0.02
# Seconds that the children of a killed supervisor get to end in order.
GUARD_PATIENCE_S = 5.0


def start(
    command: list[str],
    *,
    name: str,
    data_dir: Path,
    log: Path | None,
    death_signal: int,
    environ: Mapping[str, str],
    options: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` through child.py, appending both of its outputs to `log` (None: ours)."""
    shim = [sys.executable, "-I", "-S", str(CHILD), "--signal", str(int(death_signal))]
    shim += ["--parent", str(os.getpid()), *options, "--", *command]
    marked = {**environ, MARK_DATA_DIR: str(data_dir), MARK_PROCESS: name}
    output = None if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen(
            shim,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            env=marked,
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Whether `condition` became true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def group_signal(pid: int, number: int) -> None:
    """Signal the process and everything it started that stayed in its group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        # A group whose members all became another user; the leader is still ours to end.
        os.kill(pid, number)


def strays(data_dir: Path, name: str | None = None) -> list[int]:
    """Living processes of the copy at `data_dir` (of one `name`, where given), ours excepted."""
    return [pid for pid in _processes() if pid != os.getpid() and _belongs(pid, data_dir, name)]


def kill_strays(data_dir: Path, name: str | None = None, timeout_s: float = 5.0) -> int:
    """End what an earlier supervisor left behind; returns how many there were."""
    found = strays(data_dir, name)
    for pid in found:
        _kill(pid)

    def gone() -> bool:
        left = strays(data_dir, name)
        for pid in left:  # some may have been born while we looked
            _kill(pid)
        return not left

    if not wait_until(gone, timeout_s):
        raise RuntimeError(f"processes {strays(data_dir, name)} of {data_dir} can't be ended")
    return len(found)


def lock(path: Path) -> int | None:
    """An exclusive lock on `path` for as long as the descriptor is open; None if it is taken.

    Children don't inherit it, so it is free at the very moment its holder dies.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise
    return descriptor


def start_guard(data_dir: Path) -> subprocess.Popen[bytes]:
    """A process that ends this copy should we die; see `guard`. Say "bye" to it to end it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def guard(data_dir: Path) -> None:
    """Wait for the supervisor's end; unless it said "bye", finish what it could not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read().endswith(b"bye"):
        return
    held = lock(data_dir / "lock") if data_dir.is_dir() else None
    if held is None:
        return  # a new supervisor is faster: it cleans up before it starts anything
    # The kernel has told every child already; this is for those that take too long.
    wait_until(lambda: not strays(data_dir), GUARD_PATIENCE_S)
    kill_strays(data_dir)


def tail(path: Path, lines: int = 15) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _processes() -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def _belongs(pid: int, data_dir: Path, name: str | None) -> bool:
    proc = Path("/proc") / str(pid)
    try:
        if proc.joinpath("stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
            return False
        variables = proc.joinpath("environ").read_bytes().split(b"\0")
        if f"{MARK_DATA_DIR}={data_dir}".encode() in variables:
            return name is None or f"{MARK_PROCESS}={name}".encode() in variables
        if os.path.basename(os.readlink(proc / "exe")) not in SERVERS:
            return False
        folder = Path(os.readlink(proc / "cwd"))
    except OSError:
        return False  # gone meanwhile, or somebody else's
    return folder in ([data_dir / name] if name else [data_dir / "postgres", data_dir / "valkey"])


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
