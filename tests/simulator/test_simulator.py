"""Seeds of the simulator, and the guards whose absence it must notice."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from packets.invariants import invariants_check
from tests.simulator import guards_off, simulation
from tests.simulator.world import Base, base

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

SEEDS = 40
NIGHTLY_SEEDS = int(os.environ.get("SEEDS", "10000"))
# A seed at which each guard's absence shows; where steps have changed, later ones are tried.
FOUND_AT = {
    "fence": 0,
    "gate": 4,
    "home": 5,
    "index": 23,
    "mark": 0,
    "repeat": 0,
    "refuse": 2,
    "empty": 0,
}
SEEDS_MORE = 30


@pytest.fixture
def ground() -> Iterator[Base]:
    with base() as made:
        yield made


def keep_every_promise(ground: Base, seeds: range) -> None:
    failure = simulation.first_failure(ground, seeds)
    assert failure is None, str(failure)
    report = invariants_check()
    assert report.holds, [check for check in report.checks if check.value]


def test_seeds_keep_every_promise(ground: Base) -> None:
    keep_every_promise(ground, range(SEEDS))


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_many_seeds_keep_every_promise(ground: Base) -> None:
    keep_every_promise(ground, range(SEEDS, NIGHTLY_SEEDS))


def test_a_seed_takes_the_same_steps_again(ground: Base) -> None:
    assert simulation.run(ground, 7) == simulation.run(ground, 7)


@pytest.mark.control
@pytest.mark.parametrize("name", FOUND_AT)
def test_control_a_missing_guard_is_found(ground: Base, owner_dsn: str, name: str) -> None:
    seeds = range(FOUND_AT[name], FOUND_AT[name] + SEEDS_MORE)
    with guards_off.without(name, owner_dsn):
        assert simulation.first_failure(ground, seeds, name) is not None
