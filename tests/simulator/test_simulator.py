"""Seeds of the simulator, and the guards whose absence it must notice."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from packets.invariants import invariants_check
from tests.simulator import guards_off, simulation
from tests.simulator.world import Base, base

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

SEEDS = 100
NIGHTLY_SEEDS = int(os.environ.get("SEEDS", "10000"))
# A seed at which each guard's absence shows; where steps have changed, later ones are tried.
FOUND_AT = {
    "fence": (0, "nothing of an epoch after the next opened"),
    "gate": (4, "nothing is committed while the packet is shut"),
    "home": (5, "a claim lies in its home lane"),
    "index": (23, "claim_index_once"),
    "mark": (0, "somebody whose claim is marked was given a reservation"),
    "repeat": (0, "an answered win is committed"),
    "refuse": (2, "a win beats every refusal"),
    "total": (58, "lane_cap_fen"),
    "reread": (76, "two sessions were told different things about one claim"),
    "empty": (0, "is said by Postgres's word alone"),
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
    first, promise = FOUND_AT[name]
    with guards_off.without(name, owner_dsn):
        failure = simulation.first_failure(ground, range(first, first + SEEDS_MORE), name)
    assert failure is not None and promise in failure.promise, str(failure)
