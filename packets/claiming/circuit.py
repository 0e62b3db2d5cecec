"""What a process knows of a Redis that is away, so that no claim waits for it twice.

The first command that fails opens the circuit; from then on claims go through Postgres alone, at
once, and a thread asks until Redis takes writes again. A claim is never the one that tries.

Redis may be away for this process alone. Other processes then meet a lane that is served without
it, and follow for a moment, instead of fencing one another with epochs (`direct.py`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import redis.exceptions
import structlog

from engine.lib.redis import Probe
from packets.claiming.effects import Slot

log = structlog.get_logger(__name__)

PROBE_EVERY_S = 0.2
FOLLOW_S = 0.5  # so long a lane is believed to be served without Redis before looking again
MAX_FOLLOWED = 10_000  # lanes remembered; beyond, all are forgotten

# A server that answers so can't take a claim, whatever the claim is. Anything else that it may say
# is a defect, and not a reason to go round it.
_AWAY_ANSWERS = (
    "LOADING",
    "READONLY",
    "OOM",
    "MISCONF",
    "BUSY",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
)
_AWAY_ERRORS = (
    redis.exceptions.ConnectionError,  # LOADING and NOAUTH among them
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.NoPermissionError,
)


def says_away(answer: str) -> bool:
    """Whether an error that the server answers means that it can't be used now."""
    return answer.startswith(_AWAY_ANSWERS) and not answer.startswith(("BUSYGROUP", "BUSYKEY"))


def is_away(error: redis.exceptions.RedisError) -> bool:
    """The same of an error that redis-py raises."""
    return isinstance(error, _AWAY_ERRORS) or says_away(str(error))


@dataclass
class Circuit:
    """Shared by the threads and loops of a process; every reader may read without the lock."""

    new_probe: Callable[[], Probe] = Probe
    _away: bool = False
    _followed: dict[int, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_open(self) -> bool:
        """Whether Redis is known to be away."""
        return self._away

    def trip(self, why: object) -> None:
        """Redis has just failed; somebody will notice when it is back."""
        with self._lock:
            if self._away:
                return
            self._away = True
        log.warning("redis_away", why=str(why)[:200])
        threading.Thread(target=self._probe, name="redis-probe", daemon=True).start()

    def _probe(self) -> None:
        probe = self.new_probe()
        since = time.monotonic()
        while True:
            time.sleep(PROBE_EVERY_S)
            try:
                probe.ask()
                break
            except (redis.exceptions.RedisError, OSError):
                continue
            except Exception as error:  # noqa: BLE001 (or this process never used Redis again)
                log.warning("redis_probe_failed", error=type(error).__name__)
        self._away = False
        probe.close()
        log.warning("redis_back", away_s=round(time.monotonic() - since, 1))

    def follow(self, slot: Slot) -> None:
        """Another process serves this lane without Redis."""
        if len(self._followed) >= MAX_FOLLOWED:
            self._followed.clear()
        self._followed[slot.lane_id] = time.monotonic() + FOLLOW_S

    def follows(self, slot: Slot) -> bool:
        until = self._followed.get(slot.lane_id)
        return until is not None and time.monotonic() < until

    def unfollow(self, slot: Slot) -> None:
        """The lane is Redis's again."""
        self._followed.pop(slot.lane_id, None)


_circuits: dict[int, Circuit] = {}
_lock = threading.Lock()


def of_process() -> Circuit:
    """This process's circuit; a forked child gets one of its own."""
    pid = os.getpid()
    found = _circuits.get(pid)
    if found is None:
        with _lock:
            if pid not in _circuits:
                _circuits.clear()
                _circuits[pid] = Circuit()
            found = _circuits[pid]
    return found


def reset() -> None:
    """Know nothing (tests switch servers)."""
    with _lock:
        _circuits.clear()
