"""The crowd's log against Postgres, row by row.

Every win that anyone heard must be a claim of that person with that id and amount; nobody has two;
nothing was given beyond the packet; a refusal that was final stayed one. The rows come from
`manage.py export_claims`, so the check needs no database driver and trusts no counter.

    python -m loadtest.ledger_check --log .data/crowd/RUN.jsonl --packet ID
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from loadtest.answers import Answer, Kind, read_log
from loadtest.target import Target, find_target

EXAMPLES_SHOWN = 5  # of each breach: enough to look one up, not a screenful


class Breach(StrEnum):
    """What the books may not show. Each one alone turns the check red."""

    LOST_WIN = "a win that was answered is not in Postgres"
    OTHER_AMOUNT = "the amount that was answered is not the one in Postgres"
    OTHER_PERSON = "the claim that was answered belongs to somebody else"
    CHANGED_ANSWER = "one person heard two claims or two amounts"
    TWO_CLAIMS = "one person has two claims in Postgres"
    REFUSED_AFTER_WIN = "a winner who asked again was refused"
    WON_AFTER_REFUSAL = "a refusal that was final became a win"
    REFUSED_YET_CLAIMED = "who heard a final refusal last has a claim in Postgres"
    TOO_MUCH = "more was given than the packet holds"
    TOO_MANY = "more portions were given than the packet has"
    PORTION_TWICE = "one portion was given twice"
    SOLD_OUT_EARLY = "sold_out was answered while Postgres has portions left"


# Contract: these two never turn into a win afterwards; the others (paused, not_started, …) may.
FINAL_REFUSALS = frozenset({"sold_out", "ended"})


@dataclass(frozen=True, slots=True)
class PacketRow:
    """The first line of the export: what the packet holds."""

    packet: str
    total_fen: int
    count: int


@dataclass(frozen=True, slots=True)
class ClaimRow:
    """One committed claim. `user` is None where the person's name was never written."""

    claim: str
    user: str | None
    serial: int
    amount_fen: int
    lane: int
    epoch: int
    index: int
    committed_at: str


@dataclass(slots=True)
class Verdict:
    """What the comparison found; `ok` is the answer."""

    packet: PacketRow
    answers: int = 0
    people: int = 0
    winners: int = 0  # distinct people who heard a win
    wins_heard: int = 0  # answers, repeats included
    claims: int = 0
    claimed_fen: int = 0
    unheard: int = 0  # committed for someone of the crowd who never got an answer
    breaches: Counter[Breach] = field(default_factory=Counter)
    examples: dict[Breach, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.breaches

    def report(self, breach: Breach, example: str) -> None:
        self.breaches[breach] += 1
        shown = self.examples.setdefault(breach, [])
        if len(shown) < EXAMPLES_SHOWN:
            shown.append(example)

    def lines(self) -> list[str]:
        """For people: totals first, then every breach with examples."""
        told = [
            f"{self.wins_heard} wins heard by {self.winners} of {self.people} people;"
            f" Postgres has {self.claims} of {self.packet.count} claims,"
            f" {self.claimed_fen} of {self.packet.total_fen} fen"
        ]
        if self.unheard:
            told.append(f"{self.unheard} claims are committed whose owners got no answer yet")
        for breach, times in sorted(self.breaches.items()):
            told.append(f"BREACH {times} x {breach.value}")
            told.extend(f"    {example}" for example in self.examples[breach])
        return told

    def as_json(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "answers": self.answers,
            "people": self.people,
            "winners": self.winners,
            "wins_heard": self.wins_heard,
            "claims": self.claims,
            "claimed_fen": self.claimed_fen,
            "count": self.packet.count,
            "total_fen": self.packet.total_fen,
            "unheard": self.unheard,
            "breaches": {breach.name: times for breach, times in self.breaches.items()},
            "examples": {breach.name: shown for breach, shown in self.examples.items()},
        }


def check(answers: Iterable[Answer], packet: PacketRow, claims: Iterable[ClaimRow]) -> Verdict:
    """Compare; `answers` in the order in which each person heard them, about this packet only."""
    verdict = Verdict(packet)
    by_id, by_user = _check_rows(claims, verdict)
    heard: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.kind is not Kind.VIEW:
            heard.setdefault(answer.user, []).append(answer)
            verdict.answers += 1
    verdict.people = len(heard)
    for user, told in heard.items():
        _check_person(user, told, by_id, by_user.get(user), verdict)
    return verdict


def _check_rows(
    claims: Iterable[ClaimRow], verdict: Verdict
) -> tuple[dict[str, list[ClaimRow]], dict[str, ClaimRow]]:
    """The books by themselves: caps, one claim a person, one person a portion."""
    by_id: dict[str, list[ClaimRow]] = {}
    by_user: dict[str, ClaimRow] = {}
    by_person: dict[tuple[str, int], ClaimRow] = {}
    portions: dict[tuple[int, int, int], ClaimRow] = {}
    for row in claims:
        verdict.claims += 1
        verdict.claimed_fen += row.amount_fen
        by_id.setdefault(row.claim, []).append(row)
        if row.user is not None:
            by_user[row.user] = row
            other = by_person.setdefault((row.user, row.serial), row)
            if other is not row:
                verdict.report(
                    Breach.TWO_CLAIMS,
                    f"{row.user}: {other.claim} ({other.amount_fen} fen)"
                    f" and {row.claim} ({row.amount_fen} fen)",
                )
        twin = portions.setdefault((row.lane, row.epoch, row.index), row)
        if twin is not row:
            verdict.report(
                Breach.PORTION_TWICE,
                f"lane {row.lane} epoch {row.epoch} index {row.index}: {twin.claim}, {row.claim}",
            )
    packet = verdict.packet
    if verdict.claimed_fen > packet.total_fen:
        verdict.report(Breach.TOO_MUCH, f"{verdict.claimed_fen} of {packet.total_fen} fen")
    if verdict.claims > packet.count:
        verdict.report(Breach.TOO_MANY, f"{verdict.claims} of {packet.count}")
    return by_id, by_user


def _check_person(
    user: str,
    told: list[Answer],
    by_id: dict[str, list[ClaimRow]],
    row_of_user: ClaimRow | None,
    verdict: Verdict,
) -> None:
    """What one person heard, in order, against itself and against the rows."""
    first_win: Answer | None = None
    refused: Answer | None = None
    for answer in told:
        if answer.won:
            verdict.wins_heard += 1
            if refused is not None and first_win is None:
                verdict.report(Breach.WON_AFTER_REFUSAL, f"{user}: {refused.result}, then won")
            if first_win is None:
                first_win = answer
                verdict.winners += 1
            elif (answer.claim, answer.amount_fen) != (first_win.claim, first_win.amount_fen):
                verdict.report(
                    Breach.CHANGED_ANSWER,
                    f"{user}: {first_win.claim} {first_win.amount_fen} fen, then {answer.claim}"
                    f" {answer.amount_fen} fen",
                )
            _check_win(user, answer, by_id, verdict)
        elif answer.status == 200 and not answer.must_ask_again:
            if first_win is not None:
                verdict.report(Breach.REFUSED_AFTER_WIN, f"{user}: won, then {answer.result}")
            if answer.result in FINAL_REFUSALS:
                refused = answer
                if answer.result == "sold_out" and verdict.claims < verdict.packet.count:
                    verdict.report(
                        Breach.SOLD_OUT_EARLY,
                        f"{user}: {verdict.claims} of {verdict.packet.count} are claimed",
                    )
    if first_win is None and row_of_user is not None:
        if refused is not None:
            verdict.report(
                Breach.REFUSED_YET_CLAIMED, f"{user}: {refused.result}, but {row_of_user.claim}"
            )
        else:
            verdict.unheard += 1


def _check_win(
    user: str, answer: Answer, by_id: dict[str, list[ClaimRow]], verdict: Verdict
) -> None:
    rows = by_id.get(str(answer.claim))
    told = f"{user}: {answer.claim} {answer.amount_fen} fen"
    if not rows:
        verdict.report(Breach.LOST_WIN, told)
        return
    # With the product's keys there is one row to an id; without them (controls) any may match.
    if not any(row.amount_fen == answer.amount_fen for row in rows):
        verdict.report(Breach.OTHER_AMOUNT, f"{told}, Postgres has {rows[0].amount_fen}")
    if not any(row.user == user for row in rows):
        verdict.report(Breach.OTHER_PERSON, f"{told}, Postgres has {rows[0].user}")


def read_export(lines: Iterable[str]) -> tuple[PacketRow, list[ClaimRow]]:
    """The output of `manage.py export_claims`: the packet's line, then a line for each claim."""
    rows = (json.loads(line) for line in lines if line.strip())
    head = next(rows)
    packet = PacketRow(head["packet"], head["total_fen"], head["count"])
    return packet, [ClaimRow(**row) for row in rows]


def check_log(target: Target, log: Path, packet_id: str) -> Verdict:
    """Fetch the rows of the packet and hold the log against them."""
    packet, claims = read_export(target.manage_lines("export_claims", "--packet", packet_id))
    return check(read_log(log), packet, claims)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.ledger_check", description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="a crowd's log (JSON lines)")
    parser.add_argument("--packet", required=True, help="the packet's id")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args(arguments)
    verdict = check_log(find_target(), options.log, options.packet)
    if options.json:
        print(json.dumps(verdict.as_json()))
    else:
        print("\n".join(verdict.lines()))
        print("the crowd's log and the books agree" if verdict.ok else "MONEY BREACH")
    return 0 if verdict.ok else 4


if __name__ == "__main__":
    sys.exit(main())
