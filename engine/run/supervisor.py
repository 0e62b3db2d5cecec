"""Keeps a set of services running, restarts what dies, and stops all of it.

Invariants: a process that died is started again within a second; before it is, whatever it had
started is gone; after `stop` (and after our own death, by the guard) no process of the copy lives.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.run import spawn
from engine.run.paths import Places, RunProblem
from engine.run.services import Service

# Seconds between two looks at the processes.
TICK_S = 0.05
# A process that dies at once is started again after this many seconds, not in a busy loop.
CRASH_LOOP_DELAY_S = 0.8
# A process that lived this many seconds had started well.
SETTLED_S = 5.0
# Deaths in a row before the copy was ever ready: it won't get ready.
CRASH_LOOP_DEATHS = 4
# Seconds of silence after which a person wants to know what is being waited for.
PATIENCE_S = 10.0
# Seconds between two questions to a process that isn't ready yet.
READY_POLL_S = 0.15


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception: nothing but the way out may catch it."""


def say(text: str) -> None:
    """A line on the console; a console that is gone must not stop the supervision."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        return


@dataclass
class Watched:
    """A service and the process that stands for it now."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    deaths_in_a_row: int = 0
    ready: bool = False


class Supervisor:
    """Use it as: `start` services one by one, `wait_ready`, `watch`, and always `stop`."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.watched: list[Watched] = []
        self.signals = 0
        self._raise_on_signal = True
        self._guard = spawn.start_guard(places.root)
        # A question to a hung process takes seconds; starting a dead one must not wait for it.
        threading.Thread(target=self._ask, daemon=True).start()

    # --- signals --------------------------------------------------------------------------------

    def catch_signals(self) -> None:
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which `nohup` asked for
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self.signals += 1
        if self._raise_on_signal:
            self._raise_on_signal = False
            raise Interrupted(signal.Signals(number).name)

    # --- running --------------------------------------------------------------------------------

    def start(self, service: Service) -> None:
        watched = Watched(service)
        self.watched.append(watched)
        self._spawn(watched)

    def adopt(self, service: Service, process: subprocess.Popen[bytes] | None) -> None:
        """Watch a process that runs already."""
        assert process is not None
        watched = Watched(service, process, started_at=time.monotonic(), ready=True)
        self.watched.append(watched)
        self.places.pid_file(service.name).write_text(f"{process.pid}\n")

    def _spawn(self, watched: Watched) -> None:
        watched.process = watched.service.spawn()
        watched.started_at = time.monotonic()
        watched.ready = False
        self.places.pid_file(watched.service.name).write_text(f"{watched.process.pid}\n")

    def tick(self) -> None:
        """One look at every process; starts again what has died."""
        if self._guard.poll() is not None:
            self._guard = spawn.start_guard(self.places.root)
        for watched in self.watched:
            if watched.process is None:
                if time.monotonic() >= watched.restart_at:
                    self._spawn(watched)
            elif watched.process.poll() is not None:
                self._on_death(watched, watched.process)

    def _ask(self) -> None:
        while True:
            for watched in list(self.watched):
                process = watched.process
                if process is None or watched.ready or not watched.service.ready():
                    continue
                if watched.process is process:
                    watched.ready = True
                    if watched.deaths_in_a_row:
                        say(f"· {watched.service.name} answers again")
            time.sleep(READY_POLL_S)

    def _on_death(self, watched: Watched, process: subprocess.Popen[bytes]) -> None:
        name, now = watched.service.name, time.monotonic()
        watched.process = None
        watched.ready = False
        # Its children may hold its port or its files.
        spawn.group_signal(process.pid, signal.SIGKILL)
        spawn.kill_strays(self.places.root, name)
        quick = now - watched.started_at < SETTLED_S
        watched.deaths_in_a_row = watched.deaths_in_a_row + 1 if quick else 1
        # The first of several deaths costs no time at all.
        watched.restart_at = now + (CRASH_LOOP_DELAY_S if watched.deaths_in_a_row > 1 else 0.0)
        say(f"! {name} {_ending(process.returncode)}; starting it again")
        if process.returncode > 0:
            log = self.places.log_file(name)
            say(_indented(spawn.tail(log, 8)) + f"\n    (all of it: {log})")

    def wait_ready(self, timeout_s: float) -> None:
        begun = said_at = time.monotonic()
        deadline = begun + timeout_s
        while not all(watched.ready for watched in self.watched):
            self.tick()
            late = time.monotonic() > deadline
            for watched in self.watched:
                if watched.deaths_in_a_row >= CRASH_LOOP_DEATHS or (late and not watched.ready):
                    log = self.places.log_file(watched.service.name)
                    what = f"did not get ready within {timeout_s:.0f} s" if late else "keeps ending"
                    raise RunProblem(
                        f"{watched.service.name} {what}; the end of {log}:\n"
                        + _indented(spawn.tail(log, 25))
                    )
            if time.monotonic() - said_at > PATIENCE_S:
                said_at = time.monotonic()
                names = [watched.service.name for watched in self.watched if not watched.ready]
                say(f"· waiting for {', '.join(names)} ({said_at - begun:.0f} s)")
            time.sleep(TICK_S)

    def watch(self, until: Callable[[], bool] | None = None) -> None:
        """Supervise until a signal comes, or until `until()`."""
        while until is None or not until():
            self.tick()
            time.sleep(TICK_S)

    # --- the end --------------------------------------------------------------------------------

    def stop(self) -> None:
        """End everything, the youngest stage first. A second signal ends it at once."""
        self._raise_on_signal = False
        already = self.signals
        for stage in sorted({watched.service.stage for watched in self.watched}, reverse=True):
            self._stop_stage(stage, lambda: self.signals > already)
        spawn.kill_strays(self.places.root)
        for path in [*self.places.run.glob("*.pid"), *self.places.run.glob("*.ready")]:
            path.unlink(missing_ok=True)
        self._guard.communicate(b"bye")

    def _stop_stage(self, stage: int, hurry: Callable[[], bool]) -> None:
        members = [
            (watched.service, watched.process)
            for watched in self.watched
            if watched.service.stage == stage and watched.process is not None
        ]
        begun = time.monotonic()
        for service, process in members:
            if process.poll() is None:
                process.send_signal(service.stop_signal)
        for service, process in members:

            def over(
                process: subprocess.Popen[bytes] = process, service: Service = service
            ) -> bool:
                late = time.monotonic() - begun > service.stop_timeout_s
                return process.poll() is not None or late or hurry()

            spawn.wait_until(over, service.stop_timeout_s + 1)
            if process.poll() is None:
                say(f"! {service.name} is ended by force")
            spawn.group_signal(process.pid, signal.SIGKILL)
            process.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
