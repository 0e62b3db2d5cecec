"""A whole forest's numbers for 10⁷ participants, against one pass of numpy over the same array.

The pass counts everybody's invitees and sorts the array: what any look at the forest begins with.
CPU time of one thread, so that whatever else the machine does hits both alike.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np

from loadtest.bench.table import Result, Row
from referrals.growing.metrics import forest_of, summary_of
from referrals.growing.world import NOBODY, Preset, make_world

WORLD = 1_000_000  # people of one made-up world; the forest is copies of it
QUICK, FULL = 1_000_000, 10_000_000
REACH = 20


def forest(people: int) -> np.ndarray:
    """Inviters of `people` in a mostly invited crowd, four bytes each."""
    world = make_world(WORLD, Preset.VIRAL, {}, seed=1).inviter
    copies = [
        np.where(world == NOBODY, NOBODY, world + start).astype(np.int32)
        for start in range(0, people, WORLD)
    ]
    return np.concatenate(copies)[:people]


def measure(rounds: int, people: int, result: Result, say: Callable[[str], None]) -> None:
    say(f"the numbers of a forest of {people:,} people")
    inviter = forest(people)
    ours, passes = [], []
    for _ in range(rounds):
        passes.append(_cpu_s(lambda: _one_pass(inviter)))
        ours.append(_cpu_s(lambda: summary_of(forest_of(inviter))))
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result.rows.append(
        Row(
            f"referral metrics for {people:,} participants",
            "one numpy pass (count invitees, sort) over the same array",
            REACH,
            False,
            ours,
            passes,
            " s",
            f"the process's peak memory was {peak_gib:.2f} GiB",
        )
    )


def _one_pass(inviter: np.ndarray) -> None:
    np.bincount(inviter[inviter >= 0], minlength=inviter.size)
    np.sort(inviter)


def _cpu_s(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before
