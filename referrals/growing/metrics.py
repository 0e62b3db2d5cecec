"""Numbers of a whole forest, in a few passes over arrays; no graph is built.

Structural virality is the mean distance between two people of one tree (Goel, Anderson, Hofman and
Watts 2016): 2 for a star, a third of its length for a chain. With |S| the size of the subtree under
a person, the distances of a tree of n people add up to n·Σ|S| − Σ|S|², hence

    ν = 2n/(n−1) · (Σ|S|/n − Σ|S|²/n²).

Depths and tops come from doubling: everybody looks at their inviter, then at the inviter's
inviter's, then four up, so a tree of depth d takes log₂ d passes. Sizes are summed level by level
from the deepest, with people numbered by depth so that each level is one slice. In all
O(n log depth), 10⁷ people in seconds and well below a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

MAX_PEOPLE = 2**31 - 1  # people are numbered in 32 bits: half the memory, twice the speed
MANY = 100  # a cascade of so many people is a large one


class NoForest(ValueError):
    """The edges close a circle, or lead nowhere."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Per person (`depth`, `tree`, `under`) and per tree (the rest; `tree` numbers them)."""

    depth: Small  # edges up to the top
    tree: Small
    under: Small  # people in the subtree, the person included
    top: Small  # the tree's first person
    people: Small
    deepest: Small
    broadest: Small  # people at the depth that has most
    distances: Floats  # sum over all pairs of people

    @property
    def virality(self) -> Floats:
        """ν of each tree; 0 for people alone."""
        return _mean_of_pairs(self.distances, self.people.astype(np.float64))


@dataclass(frozen=True, slots=True)
class Summary:
    """A forest in a few figures. Shares are of all people."""

    people: int
    invited: int
    k: float  # invited people for each person
    trees: int
    cascades: int  # trees of two or more
    large: int  # trees of MANY or more
    largest: int
    deepest: int
    broadest: int
    mean_depth: float
    beyond_first: float  # the share of people at depth 2 and deeper
    by_depth: tuple[int, ...]
    virality: float  # over all pairs of people of one tree
    virality_max: float
    virality_of_largest: float


def forest_of(inviter: Array) -> Forest:
    """Measure a forest. `inviter[i]` is the number of person i's inviter, negative for none; any
    order. Raises NoForest."""
    count = inviter.size
    if count > MAX_PEOPLE:
        raise ValueError(f"at most {MAX_PEOPLE:,} people")
    if count and int(inviter.max()) >= count:
        raise NoForest("an inviter who isn't there")
    numbers = np.arange(count, dtype=np.int32)
    parent = np.where(inviter < 0, numbers, inviter).astype(np.int32)
    if np.count_nonzero(parent == numbers) != np.count_nonzero(inviter < 0):
        raise NoForest("somebody invited themselves")
    depth, top_of = _climb(parent, numbers)
    under = _sizes(parent, depth)
    top = np.flatnonzero(inviter < 0).astype(np.int32)
    number = np.empty(count, np.int32)
    number[top] = np.arange(top.size, dtype=np.int32)
    tree = number[top_of]
    del number, top_of, parent
    people = under[top]
    deepest, broadest = _extents(tree, depth, top.size)
    sizes = under.astype(np.float64)
    sums = np.bincount(tree, weights=sizes, minlength=top.size)
    squares = np.bincount(tree, weights=np.square(sizes, out=sizes), minlength=top.size)
    distances: Floats = people.astype(np.float64) * sums - squares
    return Forest(depth, tree, under, top, people, deepest, broadest, distances)


def summary_of(forest: Forest) -> Summary:
    count, trees = forest.depth.size, forest.top.size
    invited = count - trees
    by_depth = np.bincount(forest.depth)
    viral = forest.virality
    largest = int(forest.people.argmax()) if trees else 0
    pairs = forest.people.astype(np.float64)
    pairs *= pairs - 1
    return Summary(
        people=count,
        invited=invited,
        k=invited / count if count else 0.0,
        trees=trees,
        cascades=int((forest.people > 1).sum()),
        large=int((forest.people >= MANY).sum()),
        largest=int(forest.people.max(initial=0)),
        deepest=int(forest.deepest.max(initial=0)),
        broadest=int(forest.broadest.max(initial=0)),
        mean_depth=float(forest.depth.mean()) if count else 0.0,
        beyond_first=float(by_depth[2:].sum() / count) if count else 0.0,
        by_depth=tuple(by_depth.tolist()),
        virality=float(2 * forest.distances.sum() / pairs.sum()) if invited else 0.0,
        virality_max=float(viral.max(initial=0.0)),
        virality_of_largest=float(viral[largest]) if trees else 0.0,
    )


def k_factor(inviter: Array, joined_s: Floats, window_s: float, until_s: float) -> float | None:
    """People invited within `window_s` of their inviter's joining, for each person whose window had
    closed by `until_s`. None where nobody's had: such a cohort has no K yet."""
    closed = joined_s + window_s <= until_s
    if not closed.any():
        return None
    rows = np.flatnonzero(inviter >= 0)
    parents = inviter[rows]
    in_time = (joined_s[rows] - joined_s[parents] <= window_s) & closed[parents]
    return float(in_time.sum() / closed.sum())


def cycle_times(inviter: Array, joined_s: Floats) -> tuple[float, float] | None:
    """Median and 90th percentile of the seconds from an inviter's joining to the invitee's."""
    rows = np.flatnonzero(inviter >= 0)
    if not rows.size:
        return None
    median, late = np.percentile(joined_s[rows] - joined_s[inviter[rows]], (50, 90))
    return float(median), float(late)


def _climb(parent: Small, numbers: Small) -> tuple[Small, Small]:
    """Everybody's depth and top, by doubling; whoever has arrived is left out of further passes."""
    depth = (parent != numbers).astype(np.int32)
    above = parent.copy()
    climbing = np.flatnonzero(depth).astype(np.int32)
    for _ in range(int(numbers.size).bit_length() + 1):
        at = above[climbing]
        further = above[at]
        moved = further != at
        if not moved.any():
            break
        climbing, at, further = climbing[moved], at[moved], further[moved]
        depth[climbing] += depth[at]
        above[climbing] = further
    if (parent[above] != above).any():  # whoever runs in a circle arrives at no top
        raise NoForest("the edges close a circle")
    return depth, above


def _sizes(parent: Small, depth: Small) -> Small:
    """The size of everybody's subtree: children are added to their inviters, deepest level first.
    Tops, often most of all people, take no part until the end."""
    below = np.flatnonzero(depth).astype(np.int32)
    under = np.ones(parent.size, np.int32)
    if not below.size:
        return under
    key = depth[below] - 1
    levels = np.bincount(key)
    if levels.size <= 2**16:
        key = key.astype(np.uint16)  # sixteen bits are sorted by radix, in linear time
    order = below[np.argsort(key, kind="stable")]
    place = np.empty_like(under)
    place[order] = np.arange(order.size, dtype=np.int32)
    ends = np.cumsum(levels)
    above = place[parent[order[levels[0] :]]]
    del place
    sizes = np.ones(order.size, np.int32)
    for level in range(levels.size - 1, 0, -1):
        low, high, width = ends[level - 1], ends[level], levels[level - 1]
        first = low - width
        into = above[low - levels[0] : high - levels[0]] - first
        sizes[first:low] += np.bincount(into, weights=sizes[low:high], minlength=width).astype(
            np.int32
        )
    under[order] = sizes
    first_level = order[: levels[0]]
    under += np.bincount(
        parent[first_level], weights=sizes[: levels[0]], minlength=under.size
    ).astype(np.int32)
    return under


def _extents(tree: Small, depth: Small, trees: int) -> tuple[Small, Small]:
    """Each tree's greatest depth, and the number of people at its most crowded depth."""
    deepest = np.zeros(trees, np.int32)
    broadest = np.ones(trees, np.int32)
    below = np.flatnonzero(depth)  # a top is alone at depth 0
    if not below.size:
        return deepest, broadest
    key = tree[below].astype(np.int64) << 32 | depth[below]
    key.sort()
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    counts = np.diff(starts, append=key.size)
    key = key[starts]
    owner = (key >> 32).astype(np.int32)
    last = np.flatnonzero(np.diff(owner, append=-1))
    deepest[owner[last]] = key[last] & 0xFFFFFFFF
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    broadest[owner[first]] = np.maximum.reduceat(counts, first)
    return deepest, broadest


def _mean_of_pairs(distances: Floats, people: Floats) -> Floats:
    pairs = people * (people - 1)
    mean: Floats = np.divide(2 * distances, pairs, out=np.zeros_like(distances), where=pairs > 0)
    return mean
