"""One answer that one person heard, as a line of the crowd's own log.

The log is the crowd's memory: whatever the product says later is held against it. Every line is
written with one `write` at the moment of the answer, so a killed crowd loses at most the line that
it was writing, and the reader leaves out a torn last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

NO_ANSWER = "no_answer"  # the connection broke or timed out: nobody knows what became of it
UNREADABLE = "unreadable"  # an answer that isn't the JSON of the contract


class Kind(StrEnum):
    """Why the person asked."""

    VIEW = "view"  # looked at the packet
    FIRST = "first"  # claimed for the first time
    REPEAT = "repeat"  # claimed once more while the crowd was still coming
    AGAIN = "again"  # claimed once more after everybody had been there


class LogDamaged(Exception):
    """A line in the middle of a log is not an answer: the log can't be trusted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought. `status` 0: no answer at all. `at`: Unix seconds of the answer."""

    user: str
    kind: Kind
    at: float
    status: int
    result: str
    latency_ms: float
    claim: str | None = None
    amount_fen: int | None = None
    replayed: bool = False
    attempt: int = 1
    scheduled_at: float | None = None  # of a drill's arrival; `latency_ms` counts from there
    late_ms: float = 0.0  # by which the crowd itself sent it too late

    @property
    def won(self) -> bool:
        return self.status == 200 and self.result == "won" and self.kind is not Kind.VIEW

    @property
    def must_ask_again(self) -> bool:
        """The contract's "the same request may always be sent again", or nothing was heard."""
        return self.status in (0, 429, 502, 503, 504) or (
            self.status == 200 and self.result == "busy"
        )

    @property
    def is_error(self) -> bool:
        """Neither an answer of the contract nor an invitation to ask again."""
        return not self.must_ask_again and (self.status != 200 or self.result == UNREADABLE)


def read_claim_answer(
    *,
    user: str,
    kind: Kind,
    at: float,
    status: int,
    body: bytes,
    latency_ms: float,
    attempt: int,
    scheduled_at: float | None = None,
    late_ms: float = 0.0,
) -> Answer:
    """The answer behind a response to POST …/claims, whatever its body turns out to be."""
    parsed = _object(body)
    result, claim, amount, replayed = UNREADABLE, None, None, False
    if status == 0:
        result = NO_ANSWER
    elif status != 200:
        result = str(parsed.get("code") or UNREADABLE)
    elif isinstance(parsed.get("result"), str):
        result = str(parsed["result"])
        replayed = parsed.get("replayed") is True
        if result == "won":
            told = parsed.get("claim")
            told = told if isinstance(told, dict) else {}
            claim, amount = told.get("id"), told.get("amount_fen")
            if not isinstance(claim, str) or type(amount) is not int:
                result, claim, amount = UNREADABLE, None, None
    return Answer(
        user=user,
        kind=kind,
        at=round(at, 4),
        status=status,
        result=result,
        latency_ms=round(latency_ms, 2),
        claim=claim,
        amount_fen=amount,
        replayed=replayed,
        attempt=attempt,
        scheduled_at=scheduled_at,
        late_ms=round(late_ms, 2),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


class AnswerLog:
    """Appends answers to a file, one line and one `write` each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, answer: Answer) -> None:
        line = json.dumps(asdict(answer), separators=(",", ":"), ensure_ascii=True)
        os.write(self._descriptor, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def parse_line(line: str) -> Answer:
    fields = json.loads(line)
    fields["kind"] = Kind(fields["kind"])
    return Answer(**fields)


def read_log(path: Path) -> Iterator[Answer]:
    """Every answer in order; a last line without its newline was being written and is left out."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield parse_line(line)
            except (ValueError, TypeError, KeyError) as error:
                raise LogDamaged(f"{path}, line {number}: {error}") from error


class LogTail:
    """Reads what has been added to a log since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_answers(self) -> list[Answer]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as lines:
            lines.seek(self._offset)
            chunk = lines.read()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [parse_line(line) for line in whole.decode().splitlines()]
