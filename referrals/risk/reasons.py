"""Why a cluster is suspicious: the reasons, by their codes, and what each weighs in the beginning.

Apart from the detectors, so that whoever only names reasons loads no arrays' library.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Reason(enum.StrEnum):
    SELF = "self"
    CYCLE = "cycle"
    STAR_BURST = "star_burst"
    CHAIN = "chain"
    CLUSTER = "cluster"
    FAST = "fast"
    DEAD_CHILDREN = "dead_children"


# What each reason adds to a cluster's score, unless a policy says otherwise.
WEIGHTS: Mapping[Reason, int] = {
    Reason.SELF: 15,
    Reason.CYCLE: 30,
    Reason.STAR_BURST: 25,
    Reason.CHAIN: 20,
    Reason.CLUSTER: 40,
    Reason.FAST: 25,
    Reason.DEAD_CHILDREN: 25,
}
SCORE_MAX = 100
