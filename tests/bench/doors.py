"""The rows about doors: each round sends every load once, one after the other, to one copy.

A load and what it is measured against meet in the same round, so the machine's other business hits
both alike. After each round of wins the crowd's own log is held against Postgres, row by row.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.answers import Answer, Kind, read_claim_answer
from loadtest.bench.table import Result, Row, Spread
from loadtest.ledger_check import check, read_export
from tests.bench.rig import Load, Person, Rig, claims_path

MANY = 256  # claims in flight: a full house
FEW = 32
WEB = 32  # two processes of eight threads are full with half of it
MANY_LANES = 64
REPEATERS = 20_000  # people whose repeats are sent round and round
NEWCOMERS_A_S = 20_000  # people made for a second of wins; the crowd must not run dry
WEB_NEWCOMERS_A_S = 2_000
WARM_S = 0.5
VIEW_LIFETIME_S = 1.2  # a process remembers a packet for a second

Say = Callable[[str], None]


@dataclass
class Doors:
    """The loads, and what their rounds brought, by the load's name."""

    rig: Rig
    seconds: float
    rounds: int
    say: Say
    loads: dict[str, list[Load]] = field(default_factory=lambda: defaultdict(list))
    wal_bytes: list[float] = field(default_factory=list)  # of one win, 256 in flight
    checked: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """A packet that is known to be over, and one with winners who will ask again."""
        rig = self.rig
        self.winners = rig.people(REPEATERS)
        self.won = rig.packet(4 * REPEATERS)
        self._all_of("edge", self.won, self.winners)
        self.late = rig.people(REPEATERS)
        self.over = rig.packet(1)
        self._all_of("edge", self.over, rig.people(1))
        time.sleep(VIEW_LIFETIME_S)
        for door in ("edge", "web"):
            self._wins(door, MANY if door == "edge" else WEB, WARM_S)
        self._nothing(MANY, WARM_S)
        self._over(WARM_S)

    def run(self) -> None:
        for number in range(1, self.rounds + 1):
            for name, load in self._round():
                made = load()
                self.loads[name].append(made)
                bad = [status for status in made.heard.status if status != 200]
                trouble = f", {len(bad)} not 200" if bad else ""
                self.say(f"round {number}/{self.rounds}  {name:28s} {made.rate:9,.0f}/s{trouble}")

    def _round(self) -> Sequence[tuple[str, Callable[[], Load]]]:
        seconds = self.seconds
        return (
            ("edge no-op, 256", lambda: self._nothing(MANY, seconds)),
            ("edge known sold out, 256", lambda: self._over(seconds)),
            ("edge repeats of wins, 256", lambda: self._repeats(seconds)),
            ("edge wins, 256", lambda: self._wins("edge", MANY, seconds)),
            ("edge no-op, 32", lambda: self._nothing(FEW, seconds)),
            ("edge wins, 32", lambda: self._wins("edge", FEW, seconds)),
            ("web no-op, 32", lambda: self._web_nothing(seconds)),
            ("web wins, 32", lambda: self._wins("web", WEB, seconds)),
            ("web wins, 64 lanes, 32", lambda: self._wins("web", WEB, seconds, MANY_LANES)),
        )

    # --- the loads --------------------------------------------------------------------------------

    def _nothing(self, in_flight: int, seconds: float) -> Load:
        path = claims_path(self.won)
        return self.rig.load("noop_edge", path, self.winners, in_flight, seconds)

    def _web_nothing(self, seconds: float) -> Load:
        return self.rig.load("noop_web", "/api/v1/nothing", self.winners, WEB, seconds)

    def _over(self, seconds: float) -> Load:
        load = self.rig.load("edge", claims_path(self.over), self.late, MANY, seconds)
        self._only(load, b'"sold_out"')
        return load

    def _repeats(self, seconds: float) -> Load:
        load = self.rig.load("edge", claims_path(self.won), self.winners, MANY, seconds)
        self._only(load, b'"replayed":true')
        return load

    def _wins(self, door: str, in_flight: int, seconds: float, lanes: int = 1) -> Load:
        a_second = NEWCOMERS_A_S if door == "edge" else WEB_NEWCOMERS_A_S
        people = self.rig.people(int(a_second * seconds))
        # Lanes are filled by chance, so a packet of many holds more than there are people.
        packet = self.rig.packet(len(people) * (2 if lanes > 1 else 1), lanes)
        before = _wal_bytes()
        load = self.rig.load(door, claims_path(packet), people, in_flight, seconds, repeat=False)
        if in_flight == MANY:
            self.wal_bytes.append((_wal_bytes() - before) / load.answers)
        self._check(load, packet, people)
        return load

    def _all_of(self, door: str, packet: Any, people: Sequence[Person]) -> None:
        """Everybody once, to the last; whoever got no answer asks again."""
        waiting = list(people)
        while waiting:
            load = self.rig.load(
                door, claims_path(packet), waiting, min(MANY, len(waiting)), 60.0, repeat=False
            )
            heard = load.heard
            told = {n for n, s in zip(heard.request, heard.status, strict=True) if s == 200}
            waiting = [person for n, person in enumerate(waiting) if n not in told]

    # --- what the answers must be -----------------------------------------------------------------

    def _only(self, load: Load, text: bytes) -> None:
        """A load that measures something else than its name says would be worse than none."""
        others = [
            body
            for status, body in zip(load.heard.status, load.heard.body, strict=True)
            if status == 200 and text not in body
        ]
        if others:
            raise AssertionError(f"{len(others)} answers without {text!r}, one is {others[0]!r}")

    def _check(self, load: Load, packet: Any, people: Sequence[Person]) -> None:
        """Each answer against Postgres: the person, the amount, the sum, the count."""
        heard = load.heard
        answers: list[Answer] = [
            read_claim_answer(
                user=people[number].user,
                kind=Kind.FIRST,
                at=0.0,
                status=status,
                body=body,
                latency_ms=latency_s * 1000,
                attempt=1,
            )
            for number, status, body, latency_s in zip(
                heard.request, heard.status, heard.body, heard.latency_s, strict=True
            )
        ]
        export = self.rig.copy.manage("export_claims", "--packet", packet.id.hex, timeout_s=120)
        row, claims = read_export(export.splitlines())
        verdict = check(answers, row, claims)
        if not verdict.ok:
            raise AssertionError("MONEY BREACH\n" + "\n".join(verdict.lines()))
        self.checked["wins heard, each found in Postgres with its amount"] += verdict.wins_heard
        self.checked["claims in Postgres"] += verdict.claims
        self.checked["answers that were not 200 (503, or none)"] += sum(
            status != 200 for status in heard.status
        )

    # --- the figures ------------------------------------------------------------------------------

    def report(self, result: Result) -> None:
        rates = {name: [load.rate for load in loads] for name, loads in self.loads.items()}
        for name, against, reach, value, base in (
            ("edge, packet known to be sold out", "edge no-op", 0.8,
             "edge known sold out, 256", "edge no-op, 256"),
            ("edge, repeats of a marked win", "edge no-op", 0.4,
             "edge repeats of wins, 256", "edge no-op, 256"),
            ("edge, wins on one hot packet, 256 in flight", "edge no-op", 0.25,
             "edge wins, 256", "edge no-op, 256"),
            ("the same, 32 in flight", "edge no-op", 0.12, "edge wins, 32", "edge no-op, 32"),
            ("edge wins", "DRF wins", 6.0, "edge wins, 256", "web wins, 32"),
            ("DRF claim, pool of 64 lanes", "DRF no-op POST, same token", 0.4,
             "web wins, 64 lanes, 32", "web no-op, 32"),
        ):  # fmt: skip
            result.rows.append(Row(name, against, reach, True, rates[value], rates[base]))
        p99 = {n: [load.latency_ms(99) for load in loads] for n, loads in self.loads.items()}
        result.rows.append(
            Row("p99 of edge wins, 256 in flight", "p99 of the no-op", 12.0, False,
                p99["edge wins, 256"], p99["edge no-op, 256"], " ms")
        )  # fmt: skip
        result.facts["bytes of Postgres's log for one win"] = Spread.of(self.wal_bytes).text()
        result.facts.update({key: f"{number:,}" for key, number in self.checked.items()})
        for name, loads in self.loads.items():
            result.cpu_us[name] = _by_process([load.cpu_us for load in loads])
            result.latency_ms[name] = {
                "p50": [load.latency_ms(50) for load in loads],
                "p99": p99[name],
            }


def _wal_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
        return int(cursor.fetchone()[0])


def _by_process(costs: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Edge and its no-op stand in one column: `door`."""
    found: dict[str, list[float]] = defaultdict(list)
    for cost in costs:
        for name, us in cost.items():
            found["door" if name.endswith(("edge", "web")) else name].append(us)
    return dict(found)
