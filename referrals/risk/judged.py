"""How well the detectors do on made-up worlds: the farmers they hold, and the honest people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from referrals.growing.world import KINDS, FarmKind, World
from referrals.models.risk import Decision
from referrals.risk.detectors import find
from referrals.risk.people import Bools
from referrals.risk.policy import SHIPPED, Policy


@dataclass(frozen=True, slots=True)
class Judged:
    recall: dict[FarmKind, float]
    honest_held: float  # a share of the honest people
    hubs_held: int
    hubs: int


def held(world: World, policy: Policy = SHIPPED) -> Bools:
    """Whose money would be held."""
    chosen = np.zeros(world.size, np.bool_)
    for found in find(world):
        if policy.decide(policy.score(found.reasons)) in (Decision.HOLD, Decision.DENY):
            chosen[found.rows] = True
    return chosen


def judge(world: World, policy: Policy = SHIPPED) -> Judged:
    """What would be held, beside the truth."""
    chosen = held(world, policy)
    honest = ~world.is_farmer
    return Judged(
        recall={
            kind: float(chosen[rows].mean())
            for kind in KINDS
            if (rows := np.flatnonzero(world.of_kind(kind))).size
        },
        honest_held=float(chosen[honest].mean()),
        hubs_held=int((chosen & world.is_hub).sum()),
        hubs=int(world.is_hub.sum()),
    )
