"""What a made-up world consists of: who invited whom and when, on what device, who is a farmer.

People are numbered in the order they joined, so an inviter always has a lower number than the
invitee. The truth (`farm`, `kind`, `is_hub`) is what a detector is judged by and must never be
shown to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DAY_S = 86_400.0
NOBODY = -1  # as an inviter: came by themselves; as a payee: never asked for money; as a farm: none
# More would be a forest of farms with a few honest people between, which nobody runs.
MAX_FARMED = 0.5


class Preset(StrEnum):
    """How an honest crowd spreads."""

    COLD = "cold"  # most come by themselves, as with retweets: K about 0.15
    VIRAL = "viral"  # most are invited, as with sign-ups of a network: K about 0.8


class FarmKind(StrEnum):
    STAR = "star"  # one account invites many within minutes
    CHAIN = "chain"  # each account invites the next: nobody has more than one invitee
    RING = "ring"  # a group invites each other, and tries to close the circle
    DEVICE = "device"  # many accounts on one or two phones
    DRIP = "drip"  # one account a day, a phone each, the networks of honest people


KINDS = tuple(FarmKind)
Farms = Mapping[FarmKind, float]  # the share of all people that each kind has


@dataclass(frozen=True, slots=True)
class World:
    """One row a person, in the order of joining. Times are seconds since the campaign's start."""

    inviter: Ints  # number of the inviter, or NOBODY
    joined_s: Floats
    claimed_s: Floats  # first claim; NaN: never claimed
    opened: Ints  # how often the person's links were opened by people (at least once per invitee)
    device: Ints
    network: Ints  # a truncated one: /24 or /56
    payee: Ints  # where the money was to go, or NOBODY
    active: Bools  # shape (people, 3): seen on day 1, 7, 30 after joining
    # The truth.
    farm: Ints  # number of the farm, or NOBODY for honest people
    kind: Ints  # index into KINDS, or NOBODY
    is_hub: Bools  # honest people with a hundred invitees or more
    # Binds that were refused because they would have closed a circle: rows of (invitee, inviter).
    refused: Ints

    @property
    def size(self) -> int:
        return int(self.inviter.size)

    @property
    def is_farmer(self) -> Bools:
        found: Bools = self.farm != NOBODY
        return found

    def of_kind(self, kind: FarmKind) -> Bools:
        found: Bools = self.kind == KINDS.index(kind)
        return found
