"""Why a cluster is suspicious: the reasons, by their codes.

Apart from the detectors, so that whoever only names reasons loads no arrays' library.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    SELF = "self"
    CYCLE = "cycle"
    STAR_BURST = "star_burst"
    CHAIN = "chain"
    CLUSTER = "cluster"
    FAST = "fast"
    DEAD_CHILDREN = "dead_children"
