"""A made-up world in arrays, the same for the same arguments.

Nothing here touches a database; `walking.py` leads a world through the services. Honest people
invite as measured campaigns do (`honest.py`), farmers as farmers do (`farms.py`).
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from referrals.growing.crowd import in_order
from referrals.growing.farms import planted
from referrals.growing.honest import grown
from referrals.growing.shape import KINDS, MAX_FARMED, NOBODY, FarmKind, Farms, Preset, World

__all__ = [
    "KINDS",
    "NOBODY",
    "FarmKind",
    "Farms",
    "Preset",
    "World",
    "farms_of",
    "make_world",
    "same",
]


def farms_of(text: str) -> dict[FarmKind, float]:
    """`star:0.01,chain:0.02` as shares of all people; empty: no farms. Raises ValueError."""
    farms: dict[FarmKind, float] = {}
    for part in filter(None, text.split(",")):
        name, _, share = part.partition(":")
        kind, value = FarmKind(name.strip()), float(share)
        if kind in farms or not 0 < value <= MAX_FARMED:
            raise ValueError(f"{part}: once a kind, a share above 0 and up to {MAX_FARMED}")
        farms[kind] = value
    if sum(farms.values()) > MAX_FARMED:
        raise ValueError(f"farms may have {MAX_FARMED} of all people together")
    return farms


def make_world(users: int, preset: Preset, farms: Farms, seed: int) -> World:
    """`users` people, honest ones and farmers, deterministic by the arguments."""
    if users < 1 or sum(farms.values()) > MAX_FARMED:
        raise ValueError("a world needs people, and not too many farmers")
    rng = np.random.default_rng(seed)
    sizes = {kind: round(users * share) for kind, share in farms.items()}
    crowd = grown(rng, preset, users - sum(sizes.values()))
    for kind in KINDS:
        planted(rng, crowd, kind, sizes.get(kind, 0))
    return in_order(crowd)


def same(one: World, other: World) -> bool:
    """Whether two worlds are equal to the last bit."""
    return all(
        np.array_equal(
            (a := getattr(one, field.name)),
            getattr(other, field.name),
            equal_nan=a.dtype.kind == "f",
        )
        for field in fields(World)
    )
