"""`make crowd`: thousands of people claim one packet; the books must agree with what they heard.

    PEOPLE=5000 IN_FLIGHT=100 python -m loadtest.crowd_run

Everybody claims once, some look first, a fifth tap again later, and at the end everybody asks once
more. The answers go to `DATA_DIR/crowd/RUN.jsonl` as they come. Exit codes: 0 all well, 4 the money
is wrong, 1 errors, 2 it could not run; the first of 4 and 1 that applies.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest import ledger_check, summary
from loadtest.answers import Kind, LogTail, read_log
from loadtest.plan import REPEAT_SHARE
from loadtest.target import ROOT, Seeded, Target, TargetProblem, find_target

DEFAULT_PEOPLE = 5000
DEFAULT_IN_FLIGHT = 100
# A run that has not ended by then is ended: the floor rate is what one slow core answers.
FLOOR_REQUESTS_PER_S = 25
GRACE_S = 120
LOOK_EVERY_S = 0.25
PLAIN_LINE_EVERY_S = 2.0
EXIT_OK, EXIT_ERRORS, EXIT_NOT_RUN, EXIT_MONEY = 0, 1, 2, 4


@dataclass(frozen=True, slots=True)
class Options:
    people: int
    in_flight: int
    run: str
    packet: str
    seed: int
    again: bool
    ask_again: Path | None
    money: bool


def parse_options(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m loadtest.crowd_run", description=__doc__)
    parser.add_argument("--people", type=int, default=os.environ.get("PEOPLE", DEFAULT_PEOPLE))
    parser.add_argument(
        "--in-flight", type=int, default=os.environ.get("IN_FLIGHT", DEFAULT_IN_FLIGHT)
    )
    parser.add_argument("--run", default="", help="name of the run (default: made from the time)")
    parser.add_argument("--packet", default="", help="packet id (default: the demo's packet)")
    parser.add_argument(
        "--seed", type=int, default=os.environ.get("SEED", 1), help="of the crowd's dice"
    )
    parser.add_argument("--no-again", action="store_true", help="nobody asks once more at the end")
    parser.add_argument(
        "--ask-again",
        type=Path,
        metavar="LOG",
        help="no new people: everybody of this log asks once more, into the same log",
    )
    parser.add_argument(
        "--no-money", action="store_true", help="leave the money check to somebody else"
    )
    given = parser.parse_args(arguments)
    if given.people < 1 or given.in_flight < 1:
        parser.error("PEOPLE and IN_FLIGHT must be at least 1")
    if given.ask_again is not None and not given.ask_again.exists():
        parser.error(f"there is no log {given.ask_again}")
    return Options(
        people=given.people,
        in_flight=min(given.in_flight, given.people),
        # Two runs never share people, also when they begin in the same second.
        run=given.run or time.strftime("%y%m%d-%H%M%S-") + secrets.token_hex(2),
        packet=given.packet,
        seed=given.seed,
        again=not given.no_again,
        ask_again=given.ask_again,
        money=not given.no_money,
    )


@dataclass(frozen=True, slots=True)
class Files:
    """Where a run leaves its log, its figures and Locust's own report."""

    log: Path
    figures: Path
    report: Path
    locust: Path

    @classmethod
    def of(cls, target: Target, options: Options) -> Files:
        folder = target.data_dir / "crowd"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            options.ask_again or folder / f"{options.run}.jsonl",
            folder / f"{options.run}.json",
            folder / f"{options.run}.html",
            folder / f"{options.run}.locust.log",
        )


def start_locust(
    target: Target, seeded: Seeded, options: Options, files: Files, run_time_s: int
) -> subprocess.Popen[bytes]:
    """Locust in a process of its own: gevent patches the whole interpreter it runs in."""
    orders = {
        "packet": options.packet or seeded.packet,
        "kid": seeded.kid,
        "secret": seeded.secret,
        "run": options.run,
        "people": options.people,
        "seed": options.seed,
        "log": str(files.log),
        "again": options.again,
        "only_again": options.ask_again is not None,
    }
    with files.locust.open("wb") as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "locust", "--locustfile", "loadtest/crowd.py"),
                *("--headless", "--only-summary", "--host", target.base_url),
                *("--users", str(options.in_flight), "--spawn-rate", str(options.in_flight)),
                *("--run-time", f"{run_time_s}s", "--stop-timeout", "20s"),
                *("--html", str(files.report), "--loglevel", "WARNING"),
            ],
            cwd=ROOT,
            # The orders hold the client app's key, so they travel where `ps` does not show them.
            env={**os.environ, "LAISEE_CROWD": json.dumps(orders)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def watch(
    process: subprocess.Popen[bytes],
    tail: LogTail,
    expected: int,
    console: Console,
    deadline: float,
) -> summary.Tally:
    """Follow the log until the crowd has gone home; the progress shown is what was answered."""
    totals = summary.Tally()
    settled = 0

    def look() -> None:
        nonlocal settled
        for answer in tail.new_answers():
            totals.add(answer)
            settled += answer.kind is not Kind.VIEW and not answer.must_ask_again

    def follow(show: Callable[[], None]) -> None:
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.terminate()
            time.sleep(LOOK_EVERY_S)
            look()
            show()
        look()
        show()

    def rate() -> str:
        return f"{len(totals.won):,} won · {totals.answers / max(totals.seconds, 0.5):,.0f}/s"

    if console.is_terminal:
        columns = (
            *(TextColumn("crowd"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            TextColumn("{task.fields[rate]}"),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("crowd", total=expected, rate="")
            follow(
                lambda: progress.update(
                    bar, completed=settled, total=max(expected, settled), rate=rate()
                )
            )
            progress.update(bar, total=settled)
    else:
        said_at = time.monotonic()

        def say() -> None:
            nonlocal said_at
            over = process.poll() is not None
            if over or time.monotonic() - said_at >= PLAIN_LINE_EVERY_S:
                said_at = time.monotonic()
                print(f"crowd: {settled:,} of about {expected:,} · {rate()}", flush=True)

        follow(say)
    return totals


def money_check(
    target: Target, packet: str, files: Files, console: Console
) -> tuple[bool, dict[str, object]]:
    """Both halves: the books by themselves, and the crowd's log against them."""
    audit = target.manage("audit_money")
    console.print(audit.stdout.rstrip(), markup=False, highlight=False, soft_wrap=True)
    if audit.returncode != 0:
        console.print(audit.stderr.rstrip(), markup=False, highlight=False, soft_wrap=True)
    verdict = ledger_check.check_log(target, files.log, packet)
    for line in verdict.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    ok = audit.returncode == 0 and verdict.ok
    return ok, {"audit_money": audit.returncode, "ledger_check": verdict.as_json()}


def show_summary(totals: summary.Tally, console: Console) -> None:
    table = Table(title="The crowd", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for what, figure in summary.rows(totals):
        table.add_row(what, figure)
    console.print(table)
    for example in totals.error_examples:
        console.print(f"error: {example}", markup=False, highlight=False, soft_wrap=True)


def expected_claims(options: Options) -> int:
    if options.ask_again is not None:
        return len({answer.user for answer in read_log(options.ask_again)})
    return round(options.people * (1 + REPEAT_SHARE)) + (options.people if options.again else 0)


def run(options: Options, console: Console) -> int:
    target = find_target()
    seeded = target.seed()
    files = Files.of(target, options)
    packet = options.packet or seeded.packet
    expected = expected_claims(options)
    run_time_s = GRACE_S + expected // FLOOR_REQUESTS_PER_S
    asking = (
        f"everybody of {files.log.name} asks again"
        if options.ask_again is not None
        else f"{options.people:,} people"
    )
    console.print(
        f"{asking}, {options.in_flight} in flight, on packet {packet} at {target.base_url}",
        highlight=False,
        soft_wrap=True,
    )
    tail = LogTail(files.log)
    tail.new_answers()  # what an earlier run left there is not of this run
    process = start_locust(target, seeded, options, files, run_time_s)
    try:
        totals = watch(process, tail, expected, console, time.monotonic() + run_time_s + GRACE_S)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)
    show_summary(totals, console)
    missing = process.returncode != 0 or totals.people == set()
    if missing:
        console.print(files.locust.read_text(errors="replace")[-4000:], markup=False)
    whole = options.ask_again is not None or len(totals.asked) == options.people
    if not whole:
        console.print(f"only {len(totals.asked):,} of {options.people:,} people came to ask")
    money_ok = True
    money: dict[str, object] = {}
    if options.money:
        money_ok, money = money_check(target, packet, files, console)
    figures = {
        "run": options.run,
        "packet": packet,
        "log": str(files.log),
        "options": {key: str(value) for key, value in asdict(options).items()},
        **summary.as_json(totals),
        "money": money,
    }
    files.figures.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    console.print(f"log {files.log}, report {files.report}", highlight=False, soft_wrap=True)
    failed = missing or not whole or totals.failed
    code = EXIT_MONEY if not money_ok else EXIT_ERRORS if failed else EXIT_OK
    if options.money or code:
        console.print(
            {
                EXIT_OK: "money check: green",
                EXIT_ERRORS: "money check: green, but the run had errors",
                EXIT_MONEY: "MONEY CHECK: RED",
            }[code]
        )
    return code


def main(arguments: list[str] | None = None) -> int:
    console = Console(soft_wrap=False)
    try:
        return run(parse_options(arguments), console)
    except TargetProblem as problem:
        console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        return EXIT_NOT_RUN
    except KeyboardInterrupt:
        console.print("the crowd was sent home")
        return 130


if __name__ == "__main__":
    sys.exit(main())
