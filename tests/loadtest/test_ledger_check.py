"""The check of the crowd's log must be able to fail: each breach alone turns it red, by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loadtest.answers import Answer, Kind
from loadtest.ledger_check import Breach, ClaimRow, PacketRow, Verdict, check, read_export

PACKET = PacketRow("p1", total_fen=300, count=2)


def won(
    user: str, claim: str, amount_fen: int, *, kind: Kind = Kind.FIRST, replayed: bool = False
) -> Answer:
    return Answer(user, kind, 10.0, 200, "won", 5.0, claim, amount_fen, replayed)


def heard(user: str, status: int, result: str, kind: Kind = Kind.FIRST) -> Answer:
    return Answer(user, kind, 10.0, status, result, 5.0)


def row(claim: str, user: str, amount_fen: int, index: int) -> ClaimRow:
    return ClaimRow(claim, user, 0, amount_fen, 0, 1, index, "2026-01-01T00:00:00+00:00")


ALICE_ROW = row("c1", "alice", 124, 0)
BOB_ROW = row("c2", "bob", 176, 1)
ROWS = [ALICE_ROW, BOB_ROW]
HEARD = [
    heard("alice", 200, "viewed", Kind.VIEW),
    won("alice", "c1", 124),
    won("bob", "c2", 176),
    heard("carol", 200, "sold_out"),
    won("alice", "c1", 124, kind=Kind.AGAIN, replayed=True),
    heard("carol", 200, "sold_out", Kind.AGAIN),
]


def only(verdict: Verdict) -> Breach:
    """The one breach that was found."""
    assert not verdict.ok
    assert list(verdict.breaches.values()) == [1]
    (breach,) = verdict.breaches
    assert breach.value in "\n".join(verdict.lines())
    return breach


def test_books_that_agree_are_green() -> None:
    verdict = check(HEARD, PACKET, ROWS)
    assert verdict.ok
    assert (verdict.people, verdict.winners, verdict.wins_heard) == (3, 2, 3)
    assert (verdict.claims, verdict.claimed_fen, verdict.unheard) == (2, 300, 0)
    assert verdict.lines() == [
        "3 wins heard by 2 of 3 people; Postgres has 2 of 2 claims, 300 of 300 fen"
    ]


def test_a_lost_win_is_seen() -> None:
    answers = [won("alice", "c1", 124), won("bob", "c2", 176)]
    assert only(check(answers, PACKET, [ALICE_ROW])) is Breach.LOST_WIN


def test_a_changed_amount_is_seen() -> None:
    rows = [replace(ALICE_ROW, amount_fen=123), BOB_ROW]
    answers = [won("alice", "c1", 124), won("bob", "c2", 176)]
    assert only(check(answers, PACKET, rows)) is Breach.OTHER_AMOUNT


def test_a_claim_of_somebody_else_is_seen() -> None:
    answers = [won("carol", "c1", 124)]
    assert only(check(answers, PACKET, ROWS)) is Breach.OTHER_PERSON


def test_two_claims_of_one_person_are_seen() -> None:
    rows = [ALICE_ROW, replace(BOB_ROW, user="alice")]
    assert only(check([won("alice", "c1", 124)], PACKET, rows)) is Breach.TWO_CLAIMS


def test_two_tickets_of_one_person_are_two_claims_and_no_breach() -> None:
    rows = [ALICE_ROW, replace(BOB_ROW, user="alice", serial=1)]
    assert check([won("alice", "c1", 124)], PACKET, rows).ok


def test_hearing_two_claims_is_seen() -> None:
    rows = [ALICE_ROW, replace(BOB_ROW, user="alice", serial=1)]
    answers = [won("alice", "c1", 124), won("alice", "c2", 176)]
    assert only(check(answers, PACKET, rows)) is Breach.CHANGED_ANSWER


def test_hearing_two_amounts_is_seen() -> None:
    answers = [won("alice", "c1", 124), won("alice", "c1", 125)]
    verdict = check(answers, PACKET, ROWS)
    assert set(verdict.breaches) == {Breach.CHANGED_ANSWER, Breach.OTHER_AMOUNT}


@pytest.mark.parametrize("refusal", ["sold_out", "ended", "paused", "not_eligible", "blocked"])
def test_a_winner_who_is_refused_later_is_seen(refusal: str) -> None:
    answers = [won("alice", "c1", 124), heard("alice", 200, refusal, Kind.AGAIN)]
    assert only(check(answers, PACKET, ROWS)) is Breach.REFUSED_AFTER_WIN


def test_a_winner_who_is_asked_to_ask_again_lost_nothing() -> None:
    answers = [
        won("alice", "c1", 124),
        heard("alice", 503, "unavailable", Kind.AGAIN),
        heard("alice", 200, "busy", Kind.AGAIN),
        heard("alice", 0, "no_answer", Kind.AGAIN),
    ]
    assert check(answers, PACKET, ROWS).ok


@pytest.mark.parametrize("refusal", ["sold_out", "ended"])
def test_a_final_refusal_that_becomes_a_win_is_seen(refusal: str) -> None:
    answers = [heard("alice", 200, refusal), won("alice", "c1", 124, kind=Kind.AGAIN)]
    assert only(check(answers, PACKET, ROWS)) is Breach.WON_AFTER_REFUSAL


@pytest.mark.parametrize("refusal", ["paused", "not_started", "not_eligible"])
def test_a_refusal_for_now_may_become_a_win(refusal: str) -> None:
    answers = [heard("alice", 200, refusal), won("alice", "c1", 124, kind=Kind.AGAIN)]
    assert check(answers, PACKET, ROWS).ok


def test_a_claim_of_someone_who_was_refused_for_good_is_seen() -> None:
    answers = [heard("alice", 200, "sold_out"), won("bob", "c2", 176)]
    assert only(check(answers, PACKET, ROWS)) is Breach.REFUSED_YET_CLAIMED


def test_a_claim_whose_owner_heard_nothing_yet_is_counted_not_blamed() -> None:
    verdict = check([heard("alice", 0, "no_answer")], PACKET, ROWS)
    assert verdict.ok
    assert verdict.unheard == 1
    assert "no answer yet" in "\n".join(verdict.lines())


def test_more_money_than_the_packet_holds_is_seen() -> None:
    rows = [ALICE_ROW, replace(BOB_ROW, amount_fen=177)]
    assert only(check([], PACKET, rows)) is Breach.TOO_MUCH


def test_more_portions_than_the_packet_has_are_seen() -> None:
    rows = [replace(ALICE_ROW, amount_fen=100), BOB_ROW, row("c3", "carol", 24, 2)]
    assert only(check([], PACKET, rows)) is Breach.TOO_MANY


def test_one_portion_for_two_people_is_seen() -> None:
    rows = [ALICE_ROW, replace(BOB_ROW, index=0)]
    assert only(check([], PACKET, rows)) is Breach.PORTION_TWICE


def test_the_same_index_in_another_lane_or_epoch_is_another_portion() -> None:
    assert check([], PACKET, [ALICE_ROW, replace(BOB_ROW, index=0, lane=1)]).ok
    assert check([], PACKET, [ALICE_ROW, replace(BOB_ROW, index=0, epoch=2)]).ok


def test_sold_out_with_portions_left_is_seen() -> None:
    answers = [won("alice", "c1", 124), heard("carol", 200, "sold_out")]
    assert only(check(answers, PACKET, [ALICE_ROW])) is Breach.SOLD_OUT_EARLY


def test_examples_are_few_and_counts_are_exact() -> None:
    answers = [won(f"u{number}", f"x{number}", 1) for number in range(40)]
    verdict = check(answers, PACKET, [])
    assert verdict.breaches == {Breach.LOST_WIN: 40}
    assert len(verdict.examples[Breach.LOST_WIN]) == 5
    assert verdict.as_json()["breaches"] == {"LOST_WIN": 40}


def test_the_export_is_read_line_by_line() -> None:
    head = {"packet": "p1", "total_fen": 300, "count": 2}
    line = {
        "claim": "c1",
        "user": "alice",
        "serial": 0,
        "amount_fen": 124,
        "lane": 0,
        "epoch": 1,
        "index": 0,
        "committed_at": "2026-01-01T00:00:00+00:00",
    }
    packet, rows = read_export([json.dumps(head), json.dumps(line), ""])
    assert packet == PACKET
    assert rows == [ALICE_ROW]
