"""The forest's numbers are those of another implementation, and of what can be counted by hand."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from referrals.growing.metrics import (
    Forest,
    NoForest,
    cycle_times,
    forest_of,
    k_factor,
    summary_of,
)
from referrals.growing.world import Preset, make_world

TREES = 300


def random_tree(rng: np.random.Generator) -> np.ndarray:
    """Of 1 to 60 people, from star to chain, numbered in no order."""
    size = int(rng.integers(1, 61))
    reach = int(rng.integers(1, size + 1))
    inviter = np.array([-1, *(rng.integers(max(0, row - reach), row) for row in range(1, size))])
    place = rng.permutation(size)
    shuffled = np.full(size, -1)
    shuffled[place] = np.where(inviter < 0, -1, place[inviter])
    return shuffled


def test_three_hundred_random_trees_equal_networkx() -> None:
    rng = np.random.default_rng(1)
    trees = [random_tree(rng) for _ in range(TREES)]
    for inviter in trees:
        agrees(forest_of(inviter), inviter)


def test_and_as_one_forest() -> None:
    rng = np.random.default_rng(2)
    trees = [random_tree(rng) for _ in range(TREES)]
    starts = np.cumsum([0, *(tree.size for tree in trees)])
    together = np.concatenate(
        [np.where(tree < 0, -1, tree + start) for tree, start in zip(trees, starts, strict=False)]
    )
    forest = forest_of(together)
    assert forest.top.size == TREES
    singly = [forest_of(tree) for tree in trees]
    for name in ("people", "deepest", "broadest", "distances"):
        assert getattr(forest, name).tolist() == [getattr(each, name).item() for each in singly]
    assert forest.under.tolist() == [size for each in singly for size in each.under]
    summary = summary_of(forest)
    pairs = sum(each.people.item() * (each.people.item() - 1) / 2 for each in singly)
    assert summary.virality == pytest.approx(sum(forest.distances) / pairs, rel=1e-12)
    assert summary.people == together.size and summary.invited == together.size - TREES


def agrees(forest: Forest, inviter: np.ndarray) -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(inviter.size))
    graph.add_edges_from((int(up), row) for row, up in enumerate(inviter) if up >= 0)
    root = next(row for row, up in enumerate(inviter) if up < 0)
    depth = nx.shortest_path_length(graph, root)
    assert forest.depth.tolist() == [depth[row] for row in range(inviter.size)]
    assert forest.under.tolist() == [len(nx.descendants(graph, row)) + 1 for row in graph]
    levels = np.bincount(list(depth.values()))
    assert (forest.people.item(), forest.top.item()) == (inviter.size, root)
    assert (forest.deepest.item(), forest.broadest.item()) == (levels.size - 1, levels.max())
    tree = graph.to_undirected()
    assert forest.distances.item() == nx.wiener_index(tree)
    if inviter.size > 1:
        expected = nx.average_shortest_path_length(tree)
        assert forest.virality.item() == pytest.approx(expected, rel=1e-12)


def test_a_star_and_a_chain_by_hand() -> None:
    star = summary_of(forest_of(np.array([-1, 0, 0, 0, 0])))
    assert (star.deepest, star.broadest, star.beyond_first) == (1, 4, 0.0)
    assert star.virality == pytest.approx(8 / 5)
    chain = summary_of(forest_of(np.array([-1, 0, 1, 2, 3])))
    assert (chain.deepest, chain.broadest, chain.beyond_first) == (4, 1, 3 / 5)
    assert chain.virality == pytest.approx(2.0)
    assert chain.by_depth == (1, 1, 1, 1, 1)


def test_a_chain_of_seventy_thousand_is_counted_too() -> None:
    """Deeper than sixteen bits can say."""
    count = 70_000
    forest = forest_of(np.arange(-1, count - 1))
    assert forest.deepest.item() == count - 1
    assert forest.under.tolist() == list(range(count, 0, -1))
    assert forest.virality.item() == pytest.approx((count + 1) / 3, rel=1e-9)


def test_nobody_and_people_alone() -> None:
    nobody = summary_of(forest_of(np.empty(0, np.int64)))
    assert (nobody.people, nobody.k, nobody.virality, nobody.largest) == (0, 0.0, 0.0, 0)
    alone = summary_of(forest_of(np.array([-1, -1, -1])))
    assert (alone.trees, alone.cascades, alone.largest, alone.deepest) == (3, 0, 1, 0)


@pytest.mark.parametrize("edges", [[1, 0], [0], [1, 2, 0, -1], [5, -1]])
def test_what_is_no_forest_is_refused(edges: list[int]) -> None:
    with pytest.raises(NoForest):
        forest_of(np.array(edges))


def test_only_cohorts_whose_window_has_closed_have_a_k() -> None:
    #   0 at 0 s invites 1 (10 s) and 2 (200 s); 1 invites 3 (50 s); 4 came alone at 950 s.
    inviter = np.array([-1, 0, 0, 1, -1])
    joined_s = np.array([0.0, 10, 200, 50, 950])
    # By 1000 s the window of 100 s had closed for 0, 1, 2, 3; two friends came within it.
    assert k_factor(inviter, joined_s, window_s=100, until_s=1000) == 2 / 4
    assert k_factor(inviter, joined_s, window_s=100, until_s=105) == 1 / 1
    assert k_factor(inviter, joined_s, window_s=100, until_s=50) is None
    assert cycle_times(inviter, joined_s) == (40.0, pytest.approx(168.0))
    assert cycle_times(np.array([-1]), np.array([0.0])) is None


def test_a_grown_world_is_a_forest() -> None:
    world = make_world(20_000, Preset.VIRAL, {}, seed=5)
    summary = summary_of(forest_of(world.inviter))
    assert summary.invited == (world.inviter >= 0).sum()
    assert summary.large >= 3 and summary.deepest >= 20
    assert sum(summary.by_depth) == summary.people
