"""Runs seeds, and says how to run one again."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.simulator import faults
from tests.simulator.links import MASTER
from tests.simulator.oracle import Oracle
from tests.simulator.scheduler import Simulation
from tests.simulator.world import Base, World, make

STEPS = 50


@dataclass(frozen=True)
class Failure:
    seed: int
    promise: str
    trace: tuple[str, ...]
    calm: frozenset[str] = frozenset()
    without: str = ""

    def __str__(self) -> str:
        calm = "".join(f" --calm {name}" for name in sorted(self.calm))
        without = f" --without {self.without}" if self.without else ""
        steps = "\n".join(f"  {line}" for line in self.trace)
        again = f"python -m tests.simulator {self.seed}{without}{calm}"
        return f"seed {self.seed}: {self.promise}\n{steps}\nagain: {again}"


def run(base: Base, seed: int, calm: frozenset[str] = frozenset()) -> tuple[list[str], str]:
    """One seed; returns its trace, and the promise that was broken or ''.

    `calm`: kinds of steps that are left out (their turns pass without a step, so that the others
    stay as they were as far as they can).
    """
    world = make(base, seed)
    packet = world.packet
    oracle = Oracle(packet.id, bytes(packet.home_key), base.journal, base.servers[MASTER])
    sim = Simulation(seed, world, oracle, random.Random(f"steps {seed}"))
    kinds, weights = list(faults.STEPS), list(faults.STEPS.values())
    # Many seeds know only some of the faults: all together, they can hide one another.
    quiet = {kind for kind in kinds[3:] if sim.rng.random() < sim.rng.choice((0.0, 0.5, 0.8))}
    try:
        sim.look()
        for _ in range(STEPS):
            kind = sim.rng.choices(kinds, weights)[0]
            if kind not in quiet and kind.__name__ not in calm:
                said = len(sim.trace)
                kind(sim)
                if len(sim.trace) > said:
                    sim.look()
        sim.heal()
        sim.end()
    except Exception as error:
        return sim.trace, f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        _tidy(world)
    return sim.trace, ""


def _tidy(world: World) -> None:
    for database in world.base.servers:
        world.restore({}, database)


def first_failure(base: Base, seeds: range, without: str = "") -> Failure | None:
    for seed in seeds:
        trace, promise = run(base, seed)
        if promise:
            return Failure(seed, promise, tuple(trace), without=without)
    return None


def smaller(base: Base, failure: Failure) -> Failure:
    """The same seed with every kind of step left out that the failure doesn't need."""
    for kind in faults.STEPS:
        calm = failure.calm | {kind.__name__}
        trace, promise = run(base, failure.seed, calm)
        if promise and len(trace) <= len(failure.trace):
            failure = replace(failure, promise=promise, trace=tuple(trace), calm=calm)
    return failure
