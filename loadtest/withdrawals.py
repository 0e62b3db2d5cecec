"""Some of the crowd's winners take their money out: what they hear must be what the books say.

    WITHDRAWALS=60 python -m loadtest.withdrawals

Everybody withdraws the portion that the newest crowd's log says they won, through the sandbox; one
in six meets a provider that answers an error after it has paid, one in ten one that refuses.
Exit codes: 0 all well, 4 the money is wrong, 1 errors, 2 it could not run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from rich.console import Console
from rich.table import Table

from loadtest.answers import read_log
from loadtest.crowd_run import EXIT_ERRORS, EXIT_MONEY, EXIT_NOT_RUN, EXIT_OK
from loadtest.target import Seeded, TargetProblem, find_target, mint_token

DEFAULT_PEOPLE = 60
PROVIDER = "sandbox"
IN_FLIGHT = 8
TIMEOUT_S = 20
# A wallet is filled by settlement, within a second or two; a payout whose outcome was unknown is
# asked for after five seconds, and once more half a minute later.
WALLET_PATIENCE_S = 30
PAYOUT_PATIENCE_S = 90
POLL_S = 0.5
FINAL = ("paid", "failed", "cancelled")
# By the person's number: what their payee account makes of the sandbox.
EVERY_SIXTH, EVERY_TENTH = "fault:error_after_paying", "fault:failed"


@dataclass(frozen=True, slots=True)
class Person:
    number: int
    user: str
    amount_fen: int

    @property
    def payee(self) -> str:
        if self.number % 10 == 9:
            return EVERY_TENTH
        return EVERY_SIXTH if self.number % 6 == 5 else f"{self.user}@bank"

    @property
    def expected(self) -> str:
        return "failed" if self.payee == EVERY_TENTH else "paid"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one person heard in the end, and what their wallet says after it."""

    person: Person
    state: str
    left_fen: int
    seconds: float

    @property
    def as_expected(self) -> bool:
        left = self.person.amount_fen if self.state == "failed" else 0
        return self.state == self.person.expected and self.left_fen == left


def winners(log: Path, people: int) -> list[Person]:
    """The first so many who heard of a win, with what they heard."""
    won: dict[str, int] = {}
    for answer in read_log(log):
        if answer.won and answer.amount_fen is not None:
            won.setdefault(answer.user, answer.amount_fen)
            if len(won) == people:
                break
    return [Person(number, user, fen) for number, (user, fen) in enumerate(won.items())]


def newest_log(folder: Path) -> Path:
    logs = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise TargetProblem(f"no crowd has left a log in {folder}: `make crowd` sends one")
    return logs[-1]


class Door:
    """One person at the API."""

    def __init__(self, base_url: str, seeded: Seeded, person: Person) -> None:
        token = mint_token(user=person.user, kid=seeded.kid, secret=seeded.secret)
        self._base = f"{base_url}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._person = person

    def wallet_fen(self) -> int:
        return int(self._get("/me/wallet")["available_fen"])

    def withdraw(self) -> str:
        answer = requests.post(
            f"{self._base}/me/withdrawals",
            json={
                "amount_fen": self._person.amount_fen,
                "provider": PROVIDER,
                "payee": {"account": self._person.payee, "name": self._person.user},
            },
            # One key for this withdrawal, whoever asks again.
            headers={**self._headers, "Idempotency-Key": f"crowd-{self._person.user}"},
            timeout=TIMEOUT_S,
        )
        if answer.status_code != 201:
            raise requests.HTTPError(f"{answer.status_code} to {self._person}: {answer.text}")
        return str(answer.json()["id"])

    def state(self, withdrawal: str) -> str:
        return str(self._get(f"/me/withdrawals/{withdrawal}")["state"])

    def _get(self, path: str) -> dict[str, Any]:
        answer = requests.get(self._base + path, headers=self._headers, timeout=TIMEOUT_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def take_out(base_url: str, seeded: Seeded, person: Person) -> Outcome:
    """Wait for the money, withdraw it, wait for the provider's last word."""
    door, begun = Door(base_url, seeded, person), time.monotonic()
    while door.wallet_fen() < person.amount_fen and _within(begun, WALLET_PATIENCE_S):
        time.sleep(POLL_S)
    withdrawal = door.withdraw()
    state, asked = "", time.monotonic()
    while (state := door.state(withdrawal)) not in FINAL and _within(asked, PAYOUT_PATIENCE_S):
        time.sleep(POLL_S)
    return Outcome(person, state, door.wallet_fen(), time.monotonic() - begun)


def _within(begun: float, patience_s: float) -> bool:
    return time.monotonic() - begun < patience_s


def show(outcomes: list[Outcome], console: Console) -> None:
    table = Table(title="Withdrawals", title_justify="left")
    for heading in ("payee", "outcome", "people", "¥", "longest"):
        table.add_column(heading, justify="left" if heading in ("payee", "outcome") else "right")
    kinds: Counter[tuple[str, str]] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    longest: dict[tuple[str, str], float] = {}
    for outcome in outcomes:
        payee = outcome.person.payee
        key = (payee if payee.startswith("fault:") else "an account", outcome.state)
        kinds[key] += 1
        sums[key] += outcome.person.amount_fen
        longest[key] = max(longest.get(key, 0.0), outcome.seconds)
    for key, count in sorted(kinds.items()):
        table.add_row(*key, f"{count:,}", f"{sums[key] / 100:,.2f}", f"{longest[key]:.1f} s")
    console.print(table)


def run(people: int, log: Path | None, console: Console) -> int:
    target = find_target()
    seeded = target.seed()
    crowd = winners(log or newest_log(target.data_dir / "crowd"), people)
    if not crowd:
        raise TargetProblem("nobody of that crowd has won anything")
    console.print(f"{len(crowd)} winners withdraw through {PROVIDER} at {target.base_url}")
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        waiting = [pool.submit(take_out, target.base_url, seeded, person) for person in crowd]
        outcomes, errors = [], []
        for one in waiting:
            try:
                outcomes.append(one.result())
            except requests.RequestException as error:
                errors.append(str(error))
    show(outcomes, console)
    for problem in errors[:3]:
        console.print(f"error: {problem}", markup=False, highlight=False, soft_wrap=True)
    wrong = [outcome for outcome in outcomes if not outcome.as_expected]
    for outcome in wrong[:3]:
        console.print(f"not as it should be: {outcome}", markup=False, soft_wrap=True)
    books = target.manage("audit_money")
    console.print(books.stdout.strip().splitlines()[-1])
    if books.returncode != 0:
        return EXIT_MONEY
    return EXIT_ERRORS if wrong or errors else EXIT_OK


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.withdrawals", description=__doc__)
    parser.add_argument("--people", type=int, default=os.environ.get("WITHDRAWALS", DEFAULT_PEOPLE))
    parser.add_argument("--log", type=Path, help="a crowd's log (default: the newest)")
    given = parser.parse_args(arguments)
    if given.people < 1:
        parser.error("at least one person has to withdraw")
    console = Console(soft_wrap=False)
    try:
        return run(given.people, given.log, console)
    except TargetProblem as problem:
        console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        return EXIT_NOT_RUN
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
