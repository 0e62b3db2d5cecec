"""How long a claim may wait for its commit, and which lanes' commits failed of late.

A lane that is locked keeps a connection for a whole lock timeout, and may not use up those of the
others. Whoever asks for it next hears 503 at once, for a while that doubles with every failure; and
of the lanes in trouble one at most is tried at a time, so that a connection is always left for
those that are well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from packets.claiming.effects import Unavailable

MAX_WAIT_S = 2.0  # a claim that hasn't been taken into a batch by then hears 503
LATE_AFTER_S = 0.5  # while the oldest of a lane waits longer, no new portion of it is reserved
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 2.0
MAX_LANES = 10_000  # remembered; beyond, all are forgotten


@dataclass
class _Case:
    pause_s: float
    until: float


@dataclass
class Trouble:
    """Not thread-safe by itself: its owner calls it under a lock, or from one event loop."""

    _cases: dict[int, _Case] = field(default_factory=dict)
    _tried: int = 0  # lanes in trouble that have a batch on its way

    def check(self, lane_id: int) -> None:
        """Raises Unavailable while the lane's pause lasts."""
        case = self._cases.get(lane_id)
        if case is not None and time.monotonic() < case.until:
            raise Unavailable("the lane is in trouble")

    def has(self, lane_id: int) -> bool:
        """Whether the lane's last batch failed as a whole."""
        return lane_id in self._cases

    def may_start(self, lane_id: int, idle: int) -> bool:
        """Whether a batch of this lane may take one of so many idle connections; if so it does."""
        if idle == 0:
            return False
        if lane_id in self._cases:
            if self._tried:
                return False
            self._tried += 1
        return True

    def learn(self, lane_id: int, outcomes: Sequence[Any]) -> None:
        """What came of a batch that `may_start` let go."""
        case = self._cases.get(lane_id)
        if case is not None:
            self._tried -= 1
        if not all(isinstance(outcome, Unavailable) for outcome in outcomes):
            self._cases.pop(lane_id, None)
            return
        if len(self._cases) >= MAX_LANES:
            self._cases.clear()
            self._tried = 0
        pause_s = min(case.pause_s * 2, MAX_PAUSE_S) if case else FIRST_PAUSE_S
        self._cases[lane_id] = _Case(pause_s, time.monotonic() + pause_s)
