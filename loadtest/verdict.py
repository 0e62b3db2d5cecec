"""What a drill's answers amount to: figures by the second, and each SLO held or breached. Pure.

Latency counts from an arrival's scheduled time, so what waited in a queue before the server is in
it. Only first answers are judged; who asks again does so because the first answer said so. Seconds
within a fault's window are left out of the SLOs: a fault has a limit of its own, the recovery.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from loadtest.answers import Answer, Kind
from loadtest.summary import percentile

SENT_LATE_MS = 1_000.0  # beyond that an arrival was not achieved at its time
GOOD_SHARE = 0.95  # of a second's arrivals answered well: recovered
WELL_MS = 1_000.0  # an answer that took longer isn't what recovered claims look like
LOOK_STEP_S = 0.1
SLO_FILE = Path(__file__).with_name("slo.toml")


@dataclass(frozen=True, slots=True)
class Slo:
    """The limits of one profile, in the units of their names."""

    claims_p99_ms: float
    errors_share: float
    achieved_gap_share: float
    recovery_s: float
    settlement_lag_s: float

    @classmethod
    def read(cls, profile: str, path: Path = SLO_FILE) -> Slo:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        given = {**tables.get("default", {}), **tables.get(profile, {})}
        known = {one.name for one in fields(cls)}
        if unknown := set(given) - known:
            raise ValueError(f"{path.name}: there is no figure {', '.join(sorted(unknown))}")
        if missing := known - set(given):
            raise ValueError(f"{path.name}: {', '.join(sorted(missing))} is missing")
        return cls(**{name: float(value) for name, value in given.items()})


@dataclass(frozen=True, slots=True)
class Fault:
    """Unix seconds. `back_at`: when the dependency itself answered again; None: it never did.

    `excuses`: the `Kind`s of arrivals that it excuses from the SLOs; None: all of them.
    """

    name: str
    began_at: float
    back_at: float | None
    excuses: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """From a fault; `after_s` from the moment on when the dependency answered. None: `why`."""

    fault: str
    after_s: float | None
    why: str = ""


@dataclass(slots=True)
class Second:
    """One second of the drill, by its arrivals' schedule. Latencies in milliseconds."""

    target: int = 0
    achieved: int = 0
    good: int = 0
    errors: int = 0
    results: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the verdict's table. `group`: slo, errors or money."""

    group: str
    name: str
    value: str
    limit: str
    holds: bool


@dataclass(slots=True)
class Figures:
    """What was counted; `seconds` from the drill's beginning on."""

    seconds: list[Second]
    target: int = 0
    achieved: int = 0
    answered: int = 0
    judged: int = 0  # first answers outside the faults' windows
    errors: int = 0
    unsettled: int = 0  # people who asked again until they gave up
    claims_ms: list[float] = field(default_factory=list)
    results: Counter[str] = field(default_factory=Counter)
    error_examples: list[str] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)  # one for each fault


def is_error(answer: Answer) -> bool:
    """Nobody answered, the server failed, or it said what the contract doesn't know."""
    return answer.status == 0 or answer.status >= 500 or answer.is_error


def count(
    answers: Iterable[Answer],
    targets: Sequence[int],
    begins_at: float,
    faults: Sequence[Fault] = (),
    recovery_s: float = 5.0,
) -> Figures:
    """`targets`: the scheduled arrivals of each second."""
    figures = Figures([Second(target) for target in targets], target=sum(targets))
    asked: list[tuple[float, bool]] = []  # when, and whether it was answered well
    for answer in answers:
        assert answer.scheduled_at is not None
        if faults:
            well = not is_error(answer) and answer.latency_ms <= WELL_MS
            asked.append((answer.scheduled_at, well))
        if answer.attempt == 1:
            _add(figures, answer, begins_at, _excused(answer, faults, recovery_s))
    asked.sort()
    figures.recoveries = [_recovery(fault, asked) for fault in faults]
    return figures


def unsettled(answers_of_one_packet: Iterable[Answer]) -> int:
    """People whose last claim was never answered for good: they gave up asking."""
    last = {one.user: one.must_ask_again for one in answers_of_one_packet if one.kind != Kind.VIEW}
    return sum(last.values())


def _add(figures: Figures, answer: Answer, begins_at: float, excused: bool) -> None:
    assert answer.scheduled_at is not None
    at = min(len(figures.seconds) - 1, max(0, int(answer.scheduled_at - begins_at)))
    second = figures.seconds[at]
    on_time, error = answer.late_ms <= SENT_LATE_MS, is_error(answer)
    figures.achieved += on_time
    second.achieved += on_time
    second.errors += error
    second.good += not error
    second.results[answer.result] += 1
    figures.results[answer.result] += 1
    figures.answered += answer.status != 0
    # Who heard nothing waited at least as long as they waited.
    second.latencies_ms.append(answer.latency_ms)
    if excused:
        return
    figures.judged += 1
    if answer.kind is not Kind.VIEW:
        figures.claims_ms.append(answer.latency_ms)
    if error:
        figures.errors += 1
        if len(figures.error_examples) < 5:
            figures.error_examples.append(
                f"second {at}: {answer.kind} of {answer.user}: {answer.status} {answer.result}"
            )


def _excused(answer: Answer, faults: Sequence[Fault], recovery_s: float) -> bool:
    """Whether the wait for this answer met a fault, or the recovery from it."""
    return any(
        answer.at >= fault.began_at
        and (fault.excuses is None or answer.kind in fault.excuses)
        and (answer.scheduled_at or 0.0) <= (fault.back_at or fault.began_at) + recovery_s
        for fault in faults
    )


def _recovery(fault: Fault, asked: Sequence[tuple[float, bool]]) -> Recovery:
    """Seconds after the dependency answered until a whole second's people were answered well.

    Who asks again counts as well: when a dependency is back, most of those who ask do.
    """
    if fault.back_at is None:
        return Recovery(fault.name, None, "never: it did not come back")
    after = asked[bisect_left(asked, (fault.back_at, False)) :]
    if not after:
        return Recovery(fault.name, None, "not seen: nobody asked any more when it was back")
    step, begin = 0, fault.back_at
    while begin <= after[-1][0]:
        first, end = bisect_left(after, (begin, False)), bisect_left(after, (begin + 1.0, False))
        well = sum(good for _, good in after[first:end])
        if end > first and well >= GOOD_SHARE * (end - first):
            return Recovery(fault.name, round(begin - fault.back_at, 1))
        step += 1
        begin = fault.back_at + step * LOOK_STEP_S
    return Recovery(fault.name, None, "never while people asked")


def judge(figures: Figures, slo: Slo, lag_s: float | None) -> list[Check]:
    """The SLOs and the errors; the money's lines come from `loadtest.drill_run`."""
    p99 = percentile(sorted(figures.claims_ms), 99.0) if figures.claims_ms else 0.0
    share = figures.errors / figures.judged if figures.judged else 1.0
    gap = 1 - figures.achieved / figures.target if figures.target else 0.0
    checks = [
        Check("slo", "claims p99", f"{p99:.0f} ms", f"{slo.claims_p99_ms:.0f} ms",
              p99 <= slo.claims_p99_ms),
        Check("slo", "arrivals that were not achieved", f"{gap:.2%}",
              f"{slo.achieved_gap_share:.2%}", gap <= slo.achieved_gap_share),
        Check("slo", "settlement caught up", "never" if lag_s is None else f"{lag_s:.1f} s",
              f"{slo.settlement_lag_s:.0f} s", lag_s is not None and lag_s <= slo.settlement_lag_s),
        Check("errors", "errors", f"{share:.3%}", f"{slo.errors_share:.3%}",
              share <= slo.errors_share),
        Check("errors", "people without an answer", f"{figures.unsettled:,}", "0",
              figures.unsettled == 0),
    ]  # fmt: skip
    for one in figures.recoveries:
        value = one.why if one.after_s is None else f"{one.after_s:.1f} s"
        checks.append(
            Check("slo", f"recovery from {one.fault}", value, f"{slo.recovery_s:.0f} s",
                  one.after_s is not None and one.after_s <= slo.recovery_s)
        )  # fmt: skip
    return checks


def as_json(figures: Figures, checks: Sequence[Check]) -> dict[str, object]:
    return {
        "target": figures.target,
        "achieved": figures.achieved,
        "answered": figures.answered,
        "errors": figures.errors,
        "error_examples": figures.error_examples,
        "unsettled": figures.unsettled,
        "results": dict(figures.results.most_common()),
        "recoveries": [asdict(recovery) for recovery in figures.recoveries],
        "checks": [asdict(check) for check in checks],
        "seconds": [
            {
                "target": second.target,
                "achieved": second.achieved,
                "errors": second.errors,
                "results": dict(second.results),
                **{
                    f"p{percent:.0f}_ms": percentile(sorted(second.latencies_ms), percent)
                    for percent in (50.0, 90.0, 99.0, 100.0)
                    if second.latencies_ms
                },
            }
            for second in figures.seconds
        ],
    }
