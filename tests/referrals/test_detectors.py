"""Detectors on made-up worlds: farms of each kind are found, honest people are left alone."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import networkx
import numpy as np
import pytest
from django.core.management import call_command

from referrals.growing.world import KINDS, Preset, World, make_world
from referrals.risk.detectors import find
from referrals.risk.judged import held, judge
from referrals.risk.people import NONE, components
from referrals.risk.policy import SHIPPED
from referrals.risk.reasons import Reason

FARMS = dict.fromkeys(KINDS, 0.02)


@pytest.fixture(scope="module", params=list(Preset))
def world(request: pytest.FixtureRequest) -> World:
    return make_world(20_000, request.param, FARMS, seed=201)


def test_farms_are_found_and_honest_people_left_alone(world: World) -> None:
    judged = judge(world)

    assert min(judged.recall.values()) >= 0.95, judged
    assert judged.honest_held <= 0.005, judged
    assert judged.hubs >= 2 and judged.hubs_held == 0


def test_where_nobody_shares_a_purse_or_phone_nobody_is_held(world: World) -> None:
    """Many invitees, quick ones, dead ones, one network: none of it is evidence by itself."""
    own = np.arange(world.size)

    assert not held(replace(world, device=own, payee=own)).any()


def test_what_is_innocent_by_itself_is_below_a_hold() -> None:
    size = 40
    nobody = np.full(size, NONE)
    crowd = World(
        inviter=np.where(np.arange(size) > 0, 0, NONE),
        joined_s=np.cumsum(np.random.default_rng(1).exponential(900, size)),
        claimed_s=np.full(size, np.nan),
        opened=np.ones(size, np.int64),
        device=np.zeros(size, np.int64),  # a school's one tablet
        network=np.zeros(size, np.int64),
        payee=nobody,
        active=np.ones((size, 3), np.bool_),
        farm=nobody,
        kind=nobody,
        is_hub=np.zeros(size, np.bool_),
        refused=np.empty((0, 2), np.int64),
    )
    [found] = find(crowd)
    assert found.reasons == [Reason.CLUSTER]
    assert not held(crowd).any()

    gone = replace(crowd, active=np.zeros((size, 3), np.bool_))
    [found] = find(gone)
    assert found.reasons == [Reason.CLUSTER, Reason.DEAD_CHILDREN]
    assert held(gone).all()


def test_a_hub_is_left_alone_whose_family_brought_a_farmer() -> None:
    """One of the family, on the hub's phone, invited the head of a farm."""
    friends, farm = 100, 12
    size = 1 + friends + farm
    own = np.arange(size)
    hub, brother, head = 0, 1, 1 + friends
    inviter = np.where(own <= friends, hub, own - 1)
    inviter[hub], inviter[head] = NONE, brother
    device, payee = own.copy(), own.copy()
    device[brother] = device[hub]
    payee[head:] = payee[head]
    nobody = np.full(size, NONE)
    crowd = World(
        inviter=inviter,
        joined_s=np.cumsum(np.random.default_rng(1).exponential(900, size)),
        claimed_s=np.full(size, np.nan),
        opened=np.ones(size, np.int64),
        device=device,
        network=own,
        payee=payee,
        active=np.zeros((size, 3), np.bool_),
        farm=nobody,
        kind=nobody,
        is_hub=own == hub,
        refused=np.empty((0, 2), np.int64),
    )

    assert np.flatnonzero(held(crowd)).tolist() == list(range(head, size))


def test_reasons_of_each_kind_say_what_it_does() -> None:
    expected = {
        "star": {Reason.STAR_BURST, Reason.FAST},
        "chain": {Reason.CHAIN, Reason.FAST},
        "ring": {Reason.CYCLE},
        "device": {Reason.SELF, Reason.DEAD_CHILDREN},
        "drip": {Reason.DEAD_CHILDREN},
    }
    for kind in KINDS:
        found = find(make_world(10_000, Preset.COLD, {kind: 0.05}, seed=202))
        said = {
            reason
            for finding in found
            if SHIPPED.score(finding.reasons) >= SHIPPED.hold_at
            for reason in finding.reasons
        }
        assert expected[kind.value] | {Reason.CLUSTER} <= said, kind


def test_components_are_those_of_a_graph_library() -> None:
    for seed in range(30):
        dice = random.Random(seed)
        size, edges = dice.randint(1, 60), dice.randint(0, 60)
        ends = [(dice.randrange(size), dice.randrange(size)) for _ in range(edges)]
        graph = networkx.Graph(ends)
        graph.add_nodes_from(range(size))
        label = components(
            size,
            np.array([one for one, _ in ends], np.int64),
            np.array([other for _, other in ends], np.int64),
        )
        for group in networkx.connected_components(graph):
            assert {int(label[node]) for node in group} == {min(group)}


@pytest.mark.nightly
@pytest.mark.parametrize("share", ["0.01", "0.02", "0.05"])
def test_a_hundred_thousand_people_and_seeds_that_were_never_used(share: str) -> None:
    call_command("judge_detectors", share=float(share))


def test_a_process_that_looks_for_no_farms_loads_no_library_of_arrays() -> None:
    code = (
        "import sys, django; django.setup()\n"
        "from django.contrib import admin; admin.autodiscover()\n"
        "import referrals.tasks\n"
        "print('referrals.admin.risk' in sys.modules, 'numpy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "False"]
