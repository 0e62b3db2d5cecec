"""What goes wrong in the middle of a drill: `kill_redis@60,slow_network@90+20:delay=80ms`.

`name@second`, for what lasts `+seconds`, then its options. Faults act on the copy that the drill
started (`loadtest.harm`). One is over when it was undone and the dependency itself answers again;
from then on the recovery of the claims is measured (`loadtest.verdict`).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from loadtest import harm
from loadtest.harm import System
from loadtest.proxy import Weather
from loadtest.target import TargetProblem
from loadtest.verdict import Fault

LOOK_EVERY_S = 0.02
BACK_PATIENCE_S = 60.0  # a dependency that isn't back by then never came back
UNDO_EVERY_S = 0.2  # a server that is just starting again can't be put right before it answers
LASTS_S = 10.0  # what lasts and wasn't told how long
DELAY_AT_MOST_S = 10.0  # longer than anybody here waits for anything
WANTED = re.compile(
    r"(?P<name>[a-z_]+)@(?P<at>[0-9]+(?:\.[0-9]+)?)(?:\+(?P<lasts>[0-9]+(?:\.[0-9]+)?))?"
    r"(?P<options>(?::[a-z]+=[^:=]+)*)\Z"
)
NETWORKS = ("door", "postgres", "redis")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`at_s`: seconds after the drill's beginning; `lasts_s`: 0 of what is gone in a moment."""

    name: str
    at_s: float
    lasts_s: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """As it is asked for."""
        lasts = f"+{self.lasts_s:g}" if self.lasts_s else ""
        return f"{self.name}@{self.at_s:g}{lasts}" + "".join(
            f":{name}={value}" for name, value in self.options.items()
        )

    @property
    def ends_s(self) -> float:
        return self.at_s + self.lasts_s

    @property
    def network(self) -> str | None:
        """Which of NETWORKS a proxy must stand on for this; None: none."""
        return self.option("on") if self.name == "slow_network" else None

    def option(self, name: str) -> str:
        return self.options.get(name, KINDS[self.name].options[name].default)


# --- options --------------------------------------------------------------------------------------


def seconds_of(text: str) -> float:
    """`50ms` or `0.2s`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s)", text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 50ms or 0.2s")
    return float(match[1]) / (1_000 if match[2] == "ms" else 1)


def _at_most(limit_s: float) -> Callable[[str], object]:
    def check(text: str) -> None:
        if seconds_of(text) > limit_s:
            raise ValueError(f"{text} is more than {limit_s * 1000:g}ms")

    return check


def share_of(text: str) -> float:
    """`1%` or `0.5%`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", text)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{text!r} is no share such as 1%")
    return float(match[1]) / 100


def _one_of(*known: str) -> Callable[[str], object]:
    def check(text: str) -> None:
        if text not in known:
            raise ValueError(f"{text!r} is none of {', '.join(known)}")

    return check


@dataclass(frozen=True, slots=True)
class Option:
    """`check` raises ValueError."""

    default: str
    check: Callable[[str], object]


# --- the kinds ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """`end`: undoes what lasts. `process`: whose pid changes when it was killed.

    `excuses`: which arrivals (their `Kind`) the fault excuses from the SLOs; None: all of them.
    """

    begin: Callable[[System, Wanted], None]
    answers: Callable[[System], bool] = lambda _: True
    end: Callable[[System, Wanted], None] | None = None
    process: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    excuses: tuple[str, ...] | None = None


def _killed(*names: str, answers: Callable[[System], bool] = lambda _: True) -> Kind:
    def begin(system: System, _: Wanted) -> None:
        for name in names:
            system.kill(name)

    return Kind(begin, answers, process=names[0])


def _begin_slow_network(system: System, wanted: Wanted) -> None:
    weather = Weather(
        seconds_of(wanted.option("delay")),
        seconds_of(wanted.option("jitter")),
        share_of(wanted.option("cut")),
    )
    harm.bad_network(system, wanted.option("on"), weather)


KINDS: dict[str, Kind] = {
    "kill_redis": _killed("valkey", answers=harm.redis_answers),
    "lose_redis": Kind(
        lambda system, _: harm.lose_redis(system), harm.redis_answers, process="valkey"
    ),
    "kill_postgres": _killed("postgres", answers=harm.postgres_answers),
    "kill_workers": _killed("worker", "payouts", "webhooks"),
    "kill_edge": _killed("edge"),
    "kill_web": _killed("web"),
    "payout_outage": Kind(
        lambda system, _: harm.silence(system, "sandbox"),
        end=lambda system, _: harm.wake(system, "sandbox"),
        excuses=(),  # claims have nothing to do with it
    ),
    "slow_disk": Kind(
        lambda system, wanted: harm.slow_flushes(system, seconds_of(wanted.option("delay"))),
        harm.postgres_answers,
        end=lambda system, _: harm.quick_flushes(system),
        options={"delay": Option("50ms", _at_most(harm.COMMIT_DELAY_AT_MOST_S))},
    ),
    "slow_network": Kind(
        _begin_slow_network,
        end=lambda system, wanted: harm.good_network(system, wanted.option("on")),
        options={
            "on": Option("door", _one_of(*NETWORKS)),
            "delay": Option("50ms", _at_most(DELAY_AT_MOST_S)),
            "jitter": Option("0ms", _at_most(DELAY_AT_MOST_S)),
            "cut": Option("0%", share_of),
        },
    ),
}


def parse(text: str) -> list[Wanted]:
    """The faults of FAULTS in the order of their times. Raises ValueError."""
    parts = filter(None, (part.strip() for part in text.split(",")))
    return sorted(map(_parse_one, parts), key=lambda one: one.at_s)


def _parse_one(text: str) -> Wanted:
    match = WANTED.match(text)
    kind = KINDS.get(match["name"]) if match else None
    if match is None or kind is None:
        raise ValueError(
            f"{text!r} is no fault: name@second, what lasts name@second+seconds:option=value, with"
            f" one of {', '.join(sorted(KINDS))}"
        )
    if match["lasts"] and kind.end is None:
        raise ValueError(f"{text!r}: {match['name']} is over in a moment, +{match['lasts']} isn't")
    options = dict(pair.split("=", 1) for pair in match["options"].split(":")[1:])
    for name, value in options.items():
        if name not in kind.options:
            known = ", ".join(kind.options) or "none"
            raise ValueError(f"{text!r}: there is no option {name}; there is {known}")
        try:
            kind.options[name].check(value)
        except ValueError as problem:
            raise ValueError(f"{text!r}: {name}: {problem}") from None
    lasts_s = float(match["lasts"] or (LASTS_S if kind.end else 0.0))
    return Wanted(match["name"], float(match["at"]), lasts_s, options)


# --- playing them ---------------------------------------------------------------------------------


class Faults:
    """Plays each fault in a thread of its own; what lasts is undone whatever happens."""

    def __init__(self, wanted: list[Wanted], system: System, begins_file: Path) -> None:
        self.system, self._begins_file = system, begins_file
        self._played: dict[int, Fault] = {}
        self._problems: list[str] = []
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, one), name=str(one), daemon=True)
            for number, one in enumerate(wanted)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> list[Fault]:
        """In the order in which they were wanted, once what lasts is over."""
        self._ended.set()
        for thread in self._threads:
            thread.join(BACK_PATIENCE_S + 5)
        if self._problems:
            raise TargetProblem(f"a fault could not be made: {'; '.join(self._problems)}")
        return [self._played[number] for number in sorted(self._played)]

    def _run(self, number: int, wanted: Wanted) -> None:
        try:
            while not (begins_at := self._begins_at()):
                if self._ended.wait(LOOK_EVERY_S):
                    return
            if not self._ended.wait(max(0.0, begins_at + wanted.at_s - time.time())):
                self._played[number] = self._play(wanted)
        except Exception as problem:  # noqa: BLE001 (a thread's problem is told by `join`)
            self._problems.append(f"{wanted}: {type(problem).__name__}: {problem}")

    def _begins_at(self) -> float:
        """Unix seconds; 0 before it is known."""
        known = self._begins_file.read_text() if self._begins_file.exists() else ""
        return float(known) if known.endswith("\n") else 0.0

    def _play(self, wanted: Wanted) -> Fault:
        kind = KINDS[wanted.name]
        before = self.system.pid(kind.process) if kind.process else 0
        began_at = time.time()
        try:
            kind.begin(self.system, wanted)
            self._ended.wait(wanted.lasts_s)
        finally:
            deadline = time.monotonic() + BACK_PATIENCE_S
            self._undo(kind, wanted, deadline)
        back_at = None
        while back_at is None and time.monotonic() < deadline:
            if self._replaced(kind.process, before) and kind.answers(self.system):
                back_at = time.time()
            else:
                time.sleep(LOOK_EVERY_S)
        return Fault(wanted.name, began_at, back_at, kind.excuses)

    def _undo(self, kind: Kind, wanted: Wanted, deadline: float) -> None:
        while kind.end is not None:
            try:
                kind.end(self.system, wanted)
                return
            except (OSError, ValueError, psycopg.Error):
                # Another fault may just have killed what this one slows down.
                if time.monotonic() > deadline:
                    raise
                time.sleep(UNDO_EVERY_S)

    def _replaced(self, process: str | None, before: int) -> bool:
        try:
            return process is None or self.system.pid(process) != before
        except (OSError, ValueError):
            return False
