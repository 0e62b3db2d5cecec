"""Starts, watches and ends operating-system processes; knows nothing of what they are.

Invariant: every process begins in a session of its own (a Ctrl-C reaches the supervisor alone),
carries the mark of its DATA_DIR, and is told by the kernel when its parent dies. `strays` finds
what a killed parent left behind, by that mark and not by numbers that may have been reused.
"""

from __future__ import annotations

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


def start(
    command: list[str],
    *,
    name: str,
    data_dir: Path,
    log: Path,
    death_signal: int,
    environ: Mapping[str, str],
    options: tuple[str, ...] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` through child.py, appending both of its outputs to `log`."""
    shim = [sys.executable, "-I", "-S", str(CHILD), "--signal", str(int(death_signal))]
    shim += ["--parent", str(os.getpid()), *options, "--", *command]
    marked = {**environ, MARK_DATA_DIR: str(data_dir), MARK_PROCESS: name}
    with log.open("ab") as output:
        return subprocess.Popen(
            shim,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=marked,
            cwd=cwd,
            start_new_session=True,
        )


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
    gone = wait_until(lambda: not [_kill(pid) for pid in strays(data_dir, name)], timeout_s)
    if not gone:
        raise RuntimeError(f"processes {strays(data_dir, name)} of {data_dir} can't be ended")
    return len(found)


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
