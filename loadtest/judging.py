"""From what a drill left in its folder to its verdict; may be passed again at any time.

    python -m loadtest.drill_run --judge RUN

The books may have changed since: money that is right tonight must be right tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtest import ledger_check, report, verdict
from loadtest.answers import Answer, read_log
from loadtest.arrivals import arrivals
from loadtest.profiles import PROFILES
from loadtest.target import Target
from loadtest.verdict import Fault

EXIT_OK, EXIT_ERRORS, EXIT_NOT_RUN, EXIT_SLO, EXIT_MONEY = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Played:
    """What is known of a drill once its crowd has gone home; `played.json` holds no secret."""

    run: str
    profile: str
    length_s: float
    peak_per_s: float
    seed: int
    campaign: str
    packets: list[str]  # by round
    begins_at: float
    faults: list[Fault]
    lag_s: float | None  # until everything was settled; None: it never was
    again: str  # the command that plays it again
    machine: dict[str, str]

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2) + "\n"
        (folder / "played.json").write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Played:
        known = json.loads((folder / "played.json").read_text(encoding="utf-8"))
        return cls(**{**known, "faults": [Fault(**fault) for fault in known["faults"]]})

    def targets(self) -> list[int]:
        """The scheduled arrivals of each second."""
        counts = [0] * int(self.length_s)
        profile = replace(PROFILES[self.profile], length_s=self.length_s)
        for arrival in arrivals(profile, self.peak_per_s, self.seed):
            counts[int(arrival.at_s)] += 1
        return counts


def judge(target: Target, played: Played, folder: Path, console: Console) -> int:
    """Write `result.json` and `report.html`, show the verdict; the exit code."""
    rounds = range(len(played.packets))
    slo = verdict.Slo.read(played.profile)
    figures = verdict.count(
        (answer for number in rounds for answer in answers_of(folder, number)),
        played.targets(),
        played.begins_at,
        played.faults,
        recovery_s=slo.recovery_s,
    )
    figures.unsettled = sum(verdict.unsettled(answers_of(folder, number)) for number in rounds)
    checks = [
        *verdict.judge(figures, slo, played.lag_s),
        *money(target, played.packets, folder),
    ]
    moments = PROFILES[played.profile].moments
    result = {
        **asdict(played),
        "moments": [asdict(moment) for moment in moments if moment.at_s < played.length_s],
        "exit_code": exit_code(checks),
        **verdict.as_json(figures, checks),
    }
    file = folder / "result.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(checks, figures, console)
    console.print(f"report {report.write(file)}", highlight=False, soft_wrap=True)
    return exit_code(checks)


def logs_of(folder: Path, packet: int) -> list[Path]:
    return sorted(folder.glob(f"answers.{packet}.*.jsonl"))


def answers_of(folder: Path, packet: int) -> Iterator[Answer]:
    """Each person is one worker's, so the order of their own answers is kept."""
    for path in logs_of(folder, packet):
        yield from read_log(path)


def money(target: Target, packets: Sequence[str], folder: Path) -> list[verdict.Check]:
    """The books by themselves, and the crowd's log against them, packet by packet."""
    audit = target.manage("audit_money")
    checks = [
        verdict.Check(
            "money", "the books (audit_money)",
            "green" if audit.returncode == 0 else (audit.stdout + audit.stderr)[-2_000:],
            "green", audit.returncode == 0,
        )
    ]  # fmt: skip
    for number, packet in enumerate(packets):
        head, rows = ledger_check.read_export(
            target.manage_lines("export_claims", "--packet", packet)
        )
        found = ledger_check.check(answers_of(folder, number), head, rows)
        checks.append(
            verdict.Check(
                "money", f"round {number}: what was heard against the ledger",
                "\n".join(found.lines()), "no breach", found.ok,
            )
        )  # fmt: skip
    return checks


def exit_code(checks: Sequence[verdict.Check]) -> int:
    failed = {check.group for check in checks if not check.holds}
    if "money" in failed:
        return EXIT_MONEY
    if "errors" in failed:
        return EXIT_ERRORS
    return EXIT_SLO if "slo" in failed else EXIT_OK


def show(checks: Sequence[verdict.Check], figures: verdict.Figures, console: Console) -> None:
    table = Table(title="The verdict", title_justify="left")
    for column in ("", "what", "measured", "limit"):
        table.add_column(column)
    for check in checks:
        mark = "✓" if check.holds else "✗"
        style = None if check.holds else "bold red"
        table.add_row(mark, check.name, check.value, check.limit, style=style)
    console.print(table)
    for check in checks:
        if not check.holds:  # whole and unbroken, to be copied
            console.print(check.value, markup=False, highlight=False, soft_wrap=True)
    for result, times in figures.results.most_common():
        console.print(f"answered {result}: {times:,}", highlight=False)
    for example in figures.error_examples:
        console.print(f"error: {example}", markup=False, highlight=False, soft_wrap=True)
