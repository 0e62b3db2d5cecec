"""Made-up worlds: what every detector and chart is tried on must be what it says."""

from __future__ import annotations

import numpy as np
import pytest

from referrals.growing.world import (
    KINDS,
    NOBODY,
    FarmKind,
    Preset,
    World,
    farms_of,
    make_world,
    same,
)

FARMS = dict.fromkeys(KINDS, 0.01)


@pytest.fixture(scope="module", params=list(Preset))
def world(request: pytest.FixtureRequest) -> World:
    return make_world(20_000, request.param, FARMS, seed=7)


def depths(world: World) -> np.ndarray:
    depth = np.zeros(world.size, np.int64)
    for row, inviter in enumerate(world.inviter):
        if inviter != NOBODY:
            depth[row] = depth[inviter] + 1
    return depth


def test_an_inviter_was_there_before_the_invitee(world: World) -> None:
    rows = np.flatnonzero(world.inviter != NOBODY)
    assert rows.size > 1_000
    assert (world.inviter[rows] < rows).all()
    assert (world.joined_s[world.inviter[rows]] < world.joined_s[rows]).all()
    claimed = ~np.isnan(world.claimed_s)
    assert (world.claimed_s[claimed] > world.joined_s[claimed]).all()
    assert (world.opened >= np.bincount(world.inviter[rows], minlength=world.size)).all()


def test_farmers_are_as_many_as_was_said(world: World) -> None:
    assert world.size == 20_000
    assert [int(world.of_kind(kind).sum()) for kind in KINDS] == [200] * len(KINDS)
    assert ((world.farm == NOBODY) == (world.kind == NOBODY)).all()


def test_each_kind_of_farm_has_its_shape(world: World) -> None:
    children = np.bincount(world.inviter[world.inviter != NOBODY], minlength=world.size)
    for farm in range(int(world.farm.max()) + 1):
        rows = np.flatnonzero(world.farm == farm)
        kind = KINDS[world.kind[rows[0]]]
        inside = np.isin(world.inviter, rows) & (world.farm == farm)
        assert inside.sum() == rows.size - 1, kind
        if kind is FarmKind.CHAIN:
            assert np.bincount(world.inviter[inside]).max() == 1
        elif kind is FarmKind.STAR:
            assert children[rows].max() >= rows.size // 3
        elif kind is FarmKind.DEVICE:
            assert np.unique(world.device[rows]).size <= rows.size / 4
        elif kind is FarmKind.DRIP:
            assert np.unique(world.device[rows]).size == rows.size
            assert np.median(np.diff(world.joined_s[rows])) > 3_600
    rings = np.unique(world.farm[world.of_kind(FarmKind.RING)]).size
    assert len(world.refused) == rings, "each ring tried to close the circle"


def test_presets_spread_as_they_say() -> None:
    cold = make_world(20_000, Preset.COLD, {}, seed=3)
    viral = make_world(20_000, Preset.VIRAL, {}, seed=3)
    invited = [(each.inviter != NOBODY).mean() for each in (cold, viral)]
    assert 0.1 < invited[0] < 0.3 and 0.75 < invited[1] < 0.9
    assert depths(viral).max() >= 20
    assert viral.is_hub.sum() >= 3 and not viral.is_farmer.any()
    many = np.bincount(viral.inviter[viral.inviter != NOBODY], minlength=viral.size)
    assert (many[viral.is_hub] >= 100).all()


def test_the_same_seed_is_the_same_world_and_another_another() -> None:
    one = make_world(500, Preset.VIRAL, FARMS, seed=1)
    assert same(one, make_world(500, Preset.VIRAL, FARMS, seed=1))
    assert not same(one, make_world(500, Preset.VIRAL, FARMS, seed=2))


@pytest.mark.parametrize("users", [1, 2, 30])
def test_small_worlds_are_worlds(users: int) -> None:
    assert make_world(users, Preset.COLD, FARMS, seed=1).size == users


def test_shares_of_farms_as_text() -> None:
    assert farms_of("star:0.01, drip:0.02") == {FarmKind.STAR: 0.01, FarmKind.DRIP: 0.02}
    assert farms_of("") == {}
    for bad in ("moon:0.1", "star", "star:0", "star:0.9", "star:0.1,star:0.1", "star:x"):
        with pytest.raises(ValueError):
            farms_of(bad)
