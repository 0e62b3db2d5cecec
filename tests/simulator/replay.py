"""One seed again, as `python -m tests.simulator` asks for it (pytest collects it only by name)."""

from __future__ import annotations

import os

import pytest

from tests.simulator import guards_off, simulation
from tests.simulator.world import base


@pytest.mark.django_db(transaction=True)
def test_replay(owner_dsn: str) -> None:
    name = os.environ.get("SIMULATOR_WITHOUT", "")
    seed = int(os.environ["SIMULATOR_SEED"])
    calm = frozenset(os.environ.get("SIMULATOR_CALM", "").split())
    with base() as ground, guards_off.without(name, owner_dsn):
        trace, promise = simulation.run(ground, seed, calm)
        failure = simulation.Failure(seed, promise, tuple(trace), calm, name)
        if promise and os.environ.get("SIMULATOR_SMALLER"):
            failure = simulation.smaller(ground, failure)
    print(failure)
    assert not promise, promise
