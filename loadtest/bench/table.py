"""Figures of many rounds as one table. Pure: values in, lines out.

A row is a ratio of two things measured in the same round, so that whatever else the machine does
hits both alike; the row's figure is the median of its rounds' ratios. Nothing here asserts a time:
a row that falls short says so in its verdict.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, median and maximum of the rounds."""

    low: float
    median: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            raise ValueError("no rounds, no figure")
        return cls(min(values), statistics.median(values), max(values), len(values))

    def text(self, unit: str = "") -> str:
        return f"{number(self.median)}{unit} ({number(self.low)}–{number(self.high)})"


def number(value: float) -> str:
    """Three significant digits or so, for people."""
    if value >= 1_000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class Row:
    """`value` against `base`; `at_least`: the reach is a floor, else a ceiling."""

    name: str
    against: str
    reach: float
    at_least: bool
    value: Sequence[float]
    base: Sequence[float]
    unit: str = "/s"
    note: str = ""

    @property
    def ratio(self) -> Spread:
        return Spread.of([v / b for v, b in zip(self.value, self.base, strict=True)])

    @property
    def reached(self) -> bool:
        median = self.ratio.median
        return median >= self.reach if self.at_least else median <= self.reach

    def as_json(self) -> dict[str, Any]:
        ratio = self.ratio
        return {
            "name": self.name,
            "against": self.against,
            "reach": self.reach,
            "at_least": self.at_least,
            "ratio": {"min": ratio.low, "median": ratio.median, "max": ratio.high},
            "rounds": ratio.rounds,
            "value": list(self.value),
            "base": list(self.base),
            "unit": self.unit,
            "reached": self.reached,
            "note": self.note,
        }


def row_of(stored: Mapping[str, Any]) -> Row:
    """The row behind its JSON."""
    return Row(
        **{
            name: stored[name]
            for name in ("name", "against", "reach", "at_least", "value", "base", "unit", "note")
        }
    )


HEADINGS = ("figure", "against", "reach", "ratio", "figure's median", "base's median", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.against,
        f"{'≥' if row.at_least else '≤'} {row.reach:g}",
        row.ratio.text(),
        number(Spread.of(row.value).median) + row.unit,
        number(Spread.of(row.base).median) + row.unit,
        "reached" if row.reached else "short",
    )


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(headings) + " |",
        "|" + "---|" * len(headings),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


@dataclass(slots=True)
class Result:
    """All that one run of the bench found; `as_json` is what it writes."""

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    # What a request cost: by load, by process, microseconds of CPU in each round.
    cpu_us: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    missing: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "rows": [row.as_json() for row in self.rows],
            "cpu_us": self.cpu_us,
            "latency_ms": self.latency_ms,
            "facts": self.facts,
            "missing": self.missing,
        }


def result_of(stored: Mapping[str, Any]) -> Result:
    """The result behind its JSON."""
    return Result(
        machine=dict(stored["machine"]),
        rows=[row_of(row) for row in stored["rows"]],
        cpu_us=dict(stored["cpu_us"]),
        latency_ms=dict(stored["latency_ms"]),
        facts=dict(stored["facts"]),
        missing=[(name, why) for name, why in stored["missing"]],
    )


def document(result: Result) -> str:
    """The whole result as Markdown: what `make bench` prints and what the docs show."""
    lines = ["Measured on " + "; ".join(f"{k} {v}" for k, v in result.machine.items()) + ".", ""]
    lines += markdown(HEADINGS, [cells(row) for row in result.rows])
    lines += [f"| {name} | | | | | | {why} |" for name, why in result.missing]
    noted = [row for row in result.rows if row.note]
    lines += ["", *(f"- {row.name}: {row.note}" for row in noted)] if noted else []
    processes = sorted({name for costs in result.cpu_us.values() for name in costs})
    lines += ["", "CPU of one request, in microseconds, by process:", ""]
    lines += markdown(
        ("load", *processes),
        [
            (load, *(Spread.of(costs[p]).text() if costs.get(p) else "" for p in processes))
            for load, costs in result.cpu_us.items()
        ],
    )
    lines += ["", "Latency in milliseconds, as the crowd saw it:", ""]
    lines += markdown(
        ("load", "p50", "p99"),
        [
            (load, *(Spread.of(found[p]).text() for p in ("p50", "p99")))
            for load, found in result.latency_ms.items()
        ],
    )
    lines += ["", *(f"- {name}: {value}" for name, value in result.facts.items())]
    return "\n".join(lines) + "\n"
