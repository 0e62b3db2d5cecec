"""What a night looks like: curves of arrivals over time. Pure functions; `PEAK` scales them.

A profile says at each second which share of PEAK arrives (0 to 1), and which moments a reader of
the report wants to see marked. The arrivals are people who want something, not users who wait for
an answer before they want the next: a slow server meets as many of them as a fast one.

The shape of `lny_eve` is drawn after published figures of such nights, scaled to four minutes:
shaking waves at stated minutes of the gala and 14 million shakes a second in the busiest one
(WeChat with CCTV, 2015: Zhang Wenrui's account); 2.4 million packets sent and 6.2 million opened in
the minute of midnight, when messages ran 20 minutes late (2015-12-31); 760,000 a second at the peak
of 2017 (InfoQ). What they have in common: a steep evening, spikes that stand apart within seconds,
midnight above everything, and a tail of an hour.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

Curve = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Moment:
    """A second of the profile that has a name."""

    at_s: float
    name: str
    round: bool = False  # a packet of its own opens here


@dataclass(frozen=True, slots=True)
class Profile:
    """`share(t_s)`: arrivals a second at that time, as a share of PEAK; 0 outside the length."""

    name: str
    length_s: float
    curve: Curve
    moments: tuple[Moment, ...] = ()
    win_share: float = 1 / 21  # of the claims; the published night: 20 lose for each that wins
    view_share: float = 10 / 31  # of the arrivals: 10 views to 21 claims, of the same night
    at_once: frozenset[int] = frozenset()  # seconds whose arrivals come in the first tenth of them

    def share(self, t_s: float) -> float:
        return self.curve(t_s) if 0 <= t_s < self.length_s else 0.0


def _ramp(t_s: float, *points: tuple[float, float]) -> float:
    """Straight lines between (second, share) points."""
    for (t0, low), (t1, high) in itertools.pairwise(points):
        if t0 <= t_s <= t1:
            return low + (high - low) * (t_s - t0) / (t1 - t0)
    return points[-1][1]


def _spike(t_s: float, at_s: float, height: float, fall_s: float) -> float:
    """Nothing before its moment, all of it then, and a fall by half every `fall_s`."""
    return height * 0.5 ** ((t_s - at_s) / fall_s) if t_s >= at_s else 0.0


GALA_ROUNDS_S = (70.0, 100.0, 130.0)
MIDNIGHT_S = 165.0
PEAK_HOLDS_S = 10.0


def _lny_eve(t_s: float) -> float:
    evening = _ramp(t_s, (0, 0.08), (30, 0.12), (60, 0.30), (160, 0.38), (MIDNIGHT_S, 0.5))
    if t_s < MIDNIGHT_S:
        spikes = (_spike(t_s, at_s, 0.45, 3.0) for at_s in GALA_ROUNDS_S)
        return min(0.9, evening + sum(spikes))
    if t_s < MIDNIGHT_S + PEAK_HOLDS_S:
        return 1.0
    return max(0.06, _spike(t_s, MIDNIGHT_S + PEAK_HOLDS_S, 1.0, 12.0))


STAMPEDE_AT_S = 5.0
STAMPEDE_FALL_S = 1.5


def _stampede(t_s: float) -> float:
    """Everybody at one instant; whoever missed it comes within seconds."""
    return (
        0.05 if t_s < STAMPEDE_AT_S else max(0.05, _spike(t_s, STAMPEDE_AT_S, 1.0, STAMPEDE_FALL_S))
    )


RAIN_EVERY_S = 20.0


def _rain(t_s: float) -> float:
    """A round every so often: all at its beginning, gone before the next."""
    since_s = t_s % RAIN_EVERY_S
    return max(0.08, _spike(since_s, 2.0, 1.0, 2.0)) if since_s >= 2.0 else 0.08


STEPS = 10
STEP_S = 8.0


def _step(t_s: float) -> float:
    """Ten equal steps up to PEAK, for finding the knee."""
    return (int(t_s // STEP_S) + 1) / STEPS


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "lny_eve",
            240.0,
            _lny_eve,
            (
                *(Moment(at_s, f"gala {n}", True) for n, at_s in enumerate(GALA_ROUNDS_S, 1)),
                Moment(MIDNIGHT_S, "midnight", True),
            ),
        ),
        Profile(
            "stampede",
            30.0,
            _stampede,
            (Moment(STAMPEDE_AT_S, "the instant", True),),
            win_share=0.5,
            view_share=0.0,
            at_once=frozenset({int(STAMPEDE_AT_S)}),
        ),
        Profile(
            "rain",
            100.0,
            _rain,
            tuple(Moment(n * RAIN_EVERY_S + 2.0, f"round {n + 1}", True) for n in range(5)),
        ),
        Profile("soak", 300.0, lambda _t_s: 1.0),
        Profile("steady", 20.0, lambda _t_s: 1.0),
        Profile(
            "step",
            STEPS * STEP_S,
            _step,
            tuple(Moment(n * STEP_S, f"step {n + 1}") for n in range(STEPS)),
        ),
    )
}


def arrivals_of_second(profile: Profile, second: int, peak_per_s: float) -> float:
    """How many arrive between `second` and the next: Simpson's rule, exact to a thousandth."""
    at, half, end = float(second), second + 0.5, math.nextafter(second + 1.0, 0.0)
    mean = (profile.share(at) + 4 * profile.share(half) + profile.share(end)) / 6
    return mean * peak_per_s
