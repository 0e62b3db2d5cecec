"""What detectors look at: one row a person, in arrays; and groups of people who hang together.

Identifiers are numbers without meaning: the same number, the same phone, network or purse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

NONE = -1  # no inviter, or an identifier that nobody knows


class People(Protocol):
    """People in any order; `inviter` is the row of whoever invited them."""

    @property
    def inviter(self) -> Ints: ...
    @property
    def joined_s(self) -> Floats: ...
    @property
    def claimed_s(self) -> Floats: ...  # first claim; NaN: none
    @property
    def device(self) -> Ints: ...
    @property
    def network(self) -> Ints: ...
    @property
    def payee(self) -> Ints: ...
    @property
    def active(self) -> Bools: ...  # (people, days looked at): seen again
    @property
    def refused(self) -> Ints: ...  # rows of (invitee, inviter) that would have closed a circle


@dataclass(frozen=True, slots=True)
class Rows:
    """The people of a campaign, read from its rows."""

    inviter: Ints
    joined_s: Floats
    claimed_s: Floats
    device: Ints
    network: Ints
    payee: Ints
    active: Bools
    refused: Ints


def components(size: int, one: Ints, other: Ints) -> Ints:
    """For each of `size` nodes the lowest node that it is connected to by the edges given.

    Each round gives both ends of an edge the lower label and halves the way to it: a few rounds
    for any graph, without a graph library.
    """
    label = np.arange(size)
    while True:
        low = np.minimum(label[one], label[other])
        before = label.copy()
        # The labels' own labels too, so that a long chain doesn't take a round for each link.
        np.minimum.at(label, before[one], low)
        np.minimum.at(label, before[other], low)
        while not np.array_equal(label[label], label):
            label = label[label]
        if np.array_equal(label, before):
            return label


def counted(identifier: Ints) -> Ints:
    """For each person, how many have the same identifier; 0 where it isn't known."""
    _, where, counts = np.unique(identifier, return_inverse=True, return_counts=True)
    found: Ints = np.where(identifier == NONE, 0, counts[where])
    return found


def neighbours(identifier: Ints, among: Bools) -> tuple[Ints, Ints]:
    """Edges that connect everybody with the same identifier: each to the next one who has it."""
    rows = np.flatnonzero(among & (identifier != NONE))
    rows = rows[np.argsort(identifier[rows], kind="stable")]
    same = identifier[rows[1:]] == identifier[rows[:-1]]
    return rows[:-1][same], rows[1:][same]
