"""The crowd's log: what was heard is read back as it was, and a torn line is no answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.answers import (
    Answer,
    AnswerLog,
    Kind,
    LogDamaged,
    LogTail,
    read_claim_answer,
    read_log,
)

ALICE = Answer("alice", Kind.FIRST, 1.5, 200, "won", 3.25, "c1", 124, False, 2)
BOB = Answer("bob", Kind.AGAIN, 2.5, 200, "sold_out", 1.0)


def answer_to(status: int, body: bytes) -> Answer:
    return read_claim_answer(
        user="alice", kind=Kind.FIRST, at=1.0, status=status, body=body, latency_ms=1.0, attempt=1
    )


def test_a_log_gives_back_what_was_written(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path / "crowd" / "run.jsonl")
    log.write(ALICE)
    log.write(BOB)
    assert list(read_log(tmp_path / "crowd" / "run.jsonl")) == [ALICE, BOB]
    log.close()


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    log = AnswerLog(path)
    log.write(ALICE)
    log.close()
    with path.open("a") as end:
        end.write('{"user":"bob","kind":"fi')
    assert list(read_log(path)) == [ALICE]


def test_damage_in_the_middle_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"user":"bob"\n')
    with pytest.raises(LogDamaged, match="line 1"):
        list(read_log(path))


def test_the_tail_gives_every_answer_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    tail = LogTail(path)
    assert tail.new_answers() == []
    log = AnswerLog(path)
    log.write(ALICE)
    assert tail.new_answers() == [ALICE]
    assert tail.new_answers() == []
    log.write(BOB)
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert tail.new_answers() == []
    path.write_bytes(whole)
    assert tail.new_answers() == [BOB]


def test_a_win_is_read_with_its_claim() -> None:
    body = {"result": "won", "claim": {"id": "c1", "amount_fen": 124}, "replayed": True}
    answer = answer_to(200, json.dumps(body).encode())
    assert (answer.claim, answer.amount_fen, answer.replayed) == ("c1", 124, True)
    assert answer.won
    assert not answer.is_error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"result": 1}',
        b'{"result": "won"}',
        b'{"result": "won", "claim": {"id": "c1", "amount_fen": 1.5}}',
        b'{"result": "won", "claim": {"id": "c1", "amount_fen": true}}',
        b'{"result": "won", "claim": {"amount_fen": 124}}',
    ],
)
def test_a_200_that_breaks_the_contract_is_an_error_and_no_win(body: bytes) -> None:
    answer = answer_to(200, body)
    assert answer.is_error
    assert not answer.won


def test_a_problem_is_told_by_its_code() -> None:
    answer = answer_to(503, b'{"code": "unavailable", "status": 503}')
    assert answer.result == "unavailable"
    assert answer.must_ask_again
    assert answer_to(401, b'{"code": "token_expired"}').is_error


@pytest.mark.parametrize(
    ("status", "body", "again"),
    [
        (0, b"", True),
        (429, b"{}", True),
        (503, b"{}", True),
        (200, b'{"result": "busy"}', True),
        (200, b'{"result": "sold_out"}', False),
        (500, b"{}", False),
    ],
)
def test_who_is_to_ask_again(status: int, body: bytes, again: bool) -> None:
    assert answer_to(status, body).must_ask_again is again
