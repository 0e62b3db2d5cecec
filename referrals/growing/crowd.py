"""A crowd while it is being made: columns that grow, rows in no order yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from referrals.growing.shape import NOBODY, Bools, Floats, Ints, World


def _ints() -> Ints:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Crowd:
    """The columns of a world, and the numbers not yet given to a device, network, payee, farm."""

    inviter: Ints = field(default_factory=_ints)
    joined_s: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    claimed_s: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    opened: Ints = field(default_factory=_ints)
    device: Ints = field(default_factory=_ints)
    network: Ints = field(default_factory=_ints)
    payee: Ints = field(default_factory=_ints)
    active: Bools = field(default_factory=lambda: np.empty((0, 3), np.bool_))
    farm: Ints = field(default_factory=_ints)
    kind: Ints = field(default_factory=_ints)
    is_hub: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    refused: list[tuple[int, int]] = field(default_factory=list)
    next_id: int = 0
    farms: int = 0

    @property
    def size(self) -> int:
        return int(self.inviter.size)

    def fresh(self, count: int) -> Ints:
        """`count` identifiers that nothing has yet; devices, networks and payees share numbers."""
        self.next_id += count
        return np.arange(self.next_id - count, self.next_id)

    def add(self, **columns: Ints | Floats | Bools) -> Ints:
        """Append people; every column of the same length. Returns their rows."""
        first = self.size
        for name, values in columns.items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        added = np.arange(first, self.size)
        for name in ("device", "network", "payee", "farm", "kind"):
            lacks = np.full(self.size - getattr(self, name).size, NOBODY)
            setattr(self, name, np.concatenate([getattr(self, name), lacks]))
        self.is_hub = np.concatenate([self.is_hub, np.zeros(self.size - self.is_hub.size, bool)])
        return added


def in_order(crowd: Crowd) -> World:
    """The finished world: numbered by the time of joining, whoever was opened at least as often as
    they have invitees."""
    order = np.argsort(crowd.joined_s, kind="stable")
    place = np.empty(crowd.size, np.int64)
    place[order] = np.arange(crowd.size)
    inviter = crowd.inviter[order]
    invited = inviter != NOBODY
    inviter[invited] = place[inviter[invited]]
    children = np.bincount(inviter[invited], minlength=crowd.size)
    refused = np.array(crowd.refused, np.int64).reshape(-1, 2)
    return World(
        inviter=inviter,
        joined_s=crowd.joined_s[order],
        claimed_s=crowd.claimed_s[order],
        opened=np.maximum(crowd.opened[order], children),
        device=crowd.device[order],
        network=crowd.network[order],
        payee=crowd.payee[order],
        active=crowd.active[order],
        farm=crowd.farm[order],
        kind=crowd.kind[order],
        is_hub=crowd.is_hub[order],
        refused=place[refused],
    )
