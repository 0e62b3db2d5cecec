"""What the crowd heard, how often and how fast. Pure: answers in, figures and lines out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from loadtest.answers import Answer, Kind

PERCENTILES = (50.0, 90.0, 99.0)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank on ascending values: the smallest one that `percent` % do not exceed.

    No value is invented between two others, so p100 is the maximum and p50 of one value is that
    value.
    """
    if not ordered:
        raise ValueError("no values, no percentile")
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies in (0, 100], not at {percent}")
    # The rounding keeps 99 % of 1,000 at rank 990 where the float product is a hair above it.
    return ordered[max(1, math.ceil(round(len(ordered) * percent / 100, 9))) - 1]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds, over answers that were really heard (status other than 0)."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Latency | None:
        ordered = sorted(values)
        if not ordered:
            return None
        p50, p90, p99 = (percentile(ordered, percent) for percent in PERCENTILES)
        return cls(p50, p90, p99, ordered[-1])


@dataclass(slots=True)
class Tally:
    """Running totals; `add` takes the answers as they come."""

    answers: int = 0
    results: Counter[str] = field(default_factory=Counter)  # claims, by result or problem code
    statuses: Counter[int] = field(default_factory=Counter)  # claims and views
    people: set[str] = field(default_factory=set)  # got at least one settled answer to a claim
    asked: set[str] = field(default_factory=set)  # asked at all
    won: dict[str, tuple[str, int]] = field(default_factory=dict)
    won_fen: int = 0
    replays: int = 0  # wins that were heard again
    replays_changed: int = 0
    replays_unmarked: int = 0  # a win heard again without `replayed: true`
    asked_again: int = 0  # answers that invite to ask again (503, busy, no answer …)
    errors: int = 0
    error_examples: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    begun_at: float = math.inf
    ended_at: float = 0.0

    def add(self, answer: Answer) -> None:
        self.answers += 1
        self.statuses[answer.status] += 1
        self.begun_at = min(self.begun_at, answer.at - answer.latency_ms / 1000)
        self.ended_at = max(self.ended_at, answer.at)
        if answer.status != 0:
            self.latencies_ms.append(answer.latency_ms)
        if answer.is_error:
            self._error(f"{answer.kind} {answer.user}: {answer.status} {answer.result}")
        if answer.kind is Kind.VIEW:
            return
        self.asked.add(answer.user)
        self.results[answer.result] += 1
        if answer.must_ask_again:
            self.asked_again += 1
        else:
            self.people.add(answer.user)
        if answer.won:
            self._win(answer)

    def _error(self, example: str) -> None:
        self.errors += 1
        if len(self.error_examples) < 5:
            self.error_examples.append(example)

    def _win(self, answer: Answer) -> None:
        heard = (str(answer.claim), int(answer.amount_fen or 0))
        before = self.won.setdefault(answer.user, heard)
        if before is heard:
            self.won_fen += heard[1]
            return
        self.replays += 1
        self.replays_changed += before != heard
        self.replays_unmarked += not answer.replayed

    @property
    def seconds(self) -> float:
        return max(self.ended_at - self.begun_at, 0.001) if self.answers else 0.0

    @property
    def unanswered(self) -> int:
        """People who asked and never heard anything settled."""
        return len(self.asked - self.people)

    @property
    def failed(self) -> bool:
        """Errors as the exit code knows them; money is judged apart."""
        return bool(self.errors or self.unanswered or self.replays_unmarked or self.replays_changed)


def tally(answers: Iterable[Answer]) -> Tally:
    totals = Tally()
    for answer in answers:
        totals.add(answer)
    return totals


def as_json(totals: Tally) -> dict[str, object]:
    latency = Latency.of(totals.latencies_ms)
    return {
        "answers": totals.answers,
        "results": dict(sorted(totals.results.items())),
        "statuses": {str(status): times for status, times in sorted(totals.statuses.items())},
        "people": len(totals.asked),
        "unanswered": totals.unanswered,
        "winners": len(totals.won),
        "won_fen": totals.won_fen,
        "replays": totals.replays,
        "replays_changed": totals.replays_changed,
        "replays_unmarked": totals.replays_unmarked,
        "asked_again": totals.asked_again,
        "errors": totals.errors,
        "error_examples": totals.error_examples,
        "seconds": round(totals.seconds, 2),
        "requests_per_s": round(totals.answers / totals.seconds, 1) if totals.answers else 0.0,
        "latency_ms": None
        if latency is None
        else {
            "p50": latency.p50_ms,
            "p90": latency.p90_ms,
            "p99": latency.p99_ms,
            "max": latency.max_ms,
        },
    }


def rows(totals: Tally) -> list[tuple[str, str]]:
    """The summary as (what, figure) rows, for a table or plain lines."""
    told = [
        ("people who asked", f"{len(totals.asked):,}"),
        ("requests", f"{totals.answers:,} in {totals.seconds:.1f} s"),
    ]
    if totals.answers:
        told.append(("requests per second", f"{totals.answers / totals.seconds:,.0f}"))
    told.extend(
        (f"answered {result}", f"{times:,}") for result, times in totals.results.most_common()
    )
    told.append(("people who won", f"{len(totals.won):,} ({totals.won_fen:,} fen)"))
    told.append(
        (
            "wins heard again",
            f"{totals.replays:,}, "
            + (f"{totals.replays_changed:,} CHANGED" if totals.replays_changed else "all the same"),
        )
    )
    if totals.replays_unmarked:
        told.append(("heard again, not marked replayed", f"{totals.replays_unmarked:,}"))
    latency = Latency.of(totals.latencies_ms)
    if latency is not None:
        told.append(
            (
                "latency p50 / p90 / p99 / max",
                f"{latency.p50_ms:.0f} / {latency.p90_ms:.0f} / {latency.p99_ms:.0f}"
                f" / {latency.max_ms:.0f} ms",
            )
        )
    told.append(("asked again after 503, busy or silence", f"{totals.asked_again:,}"))
    told.append(("people without an answer", f"{totals.unanswered:,}"))
    told.append(("errors", f"{totals.errors:,}"))
    return told
