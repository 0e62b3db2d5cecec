"""2,000 people (5,000 nightly), 100 in flight, 1,000 portions: what each heard stays true."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.answers import Answer, AnswerLog, read_log
from tests.conftest import wait_until
from tests.faults import drill
from tests.private_copy import Copy
from tests.upgrading.beside import given_by_previous, previous_version

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

PORTIONS = 500  # of the packet that two versions give away
PEOPLE = [2_000, pytest.param(5_000, marks=pytest.mark.nightly)]


def wins_of(answers: list[Answer]) -> dict[str, set[tuple[str | None, int | None]]]:
    """For every winner, each distinct claim and amount that was heard."""
    heard: dict[str, set[tuple[str | None, int | None]]] = {}
    for answer in answers:
        if answer.won:
            heard.setdefault(answer.user, set()).add((answer.claim, answer.amount_fen))
    return heard


def ask_again(laisee: Copy, packet: str, log: Path, run: str) -> list[Answer]:
    """What all winners of `log` and every tenth of the others answer, asked once more."""
    won = {answer.user: answer for answer in read_log(log) if answer.won}
    others = {answer.user: answer for answer in read_log(log) if answer.user not in won}
    path = log.with_suffix(f".{run}.jsonl")
    asked = AnswerLog(path)
    for answer in [*won.values(), *list(others.values())[::10]]:
        asked.write(answer)
    asked.close()
    again = drill.crowd(laisee, packet, run, ask_again=path)
    figures = again.finish()
    print(drill.totals_line(run, figures))
    assert again.process.returncode == 0, again.text()
    return list(read_log(path))[len(won) + len(list(others)[::10]) :]


@pytest.mark.parametrize("people", PEOPLE)
def test_a_thousand_win_once_and_for_good(laisee: Copy, people: int) -> None:
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, f"crowd-{people}", people=people)
    figures = crowd.finish()
    print(drill.totals_line("crowd", figures))
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    assert figures["people"] == people
    won = wins_of(list(read_log(crowd.log)))
    assert len(won) == drill.PORTIONS
    assert all(len(heard) == 1 for heard in won.values())

    # The last round of the crowd asked everybody on the sold-out packet; now paused, then closed.
    for action in ("pause", "close"):
        drill.packet_do(laisee, action, packet)
        answers = ask_again(laisee, packet, crowd.log, f"{people}-after-{action}")
        assert wins_of(answers) == won
        assert all(answer.replayed for answer in answers if answer.won)
        refused = {answer.result for answer in answers if not answer.won}
        assert refused <= {"sold_out", "ended", "paused"}, refused
    drill.assert_settled_and_green(laisee, packet, drill.PORTIONS, drill.TOTAL_FEN)


@pytest.mark.nightly  # every story of the API asks again while paused; this is the crowd's size
def test_a_win_is_heard_again_while_half_the_packet_is_left_and_paused(laisee: Copy) -> None:
    """Paused and closed half-way: winners hear their win, the rest is returned once."""
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, "half", people=400)
    figures = crowd.finish()
    print(drill.totals_line("half", figures))
    assert crowd.process.returncode == 0, crowd.text()
    assert figures["winners"] == 400
    won = wins_of(list(read_log(crowd.log)))
    for action in ("pause", "close"):
        drill.packet_do(laisee, action, packet)
        answers = ask_again(laisee, packet, crowd.log, f"half-after-{action}")
        assert wins_of(answers) == won
        assert len(answers) >= 400
    returned = drill.number(
        laisee,
        "SELECT amount_fen FROM packets_transfer WHERE kind = 'close' AND debit_account_id ="
        " (SELECT escrow_id FROM packets_packet WHERE id = %s::uuid)",
        packet,
    )
    assert returned == drill.TOTAL_FEN - figures["won_fen"]
    drill.assert_settled_and_green(laisee, packet, 400, figures["won_fen"])


def test_two_versions_serve_one_crowd(laisee: Copy) -> None:
    """Edges and workers of this version and of the one before it (docs/upgrading.md).

    Redis forgets everything on the way, so that each mends what both have given.
    """
    packet = drill.open_packet(laisee, PORTIONS)
    with previous_version(laisee):
        crowd = drill.crowd(laisee, packet, "versions", people=800, in_flight=256, door="edge")
        crowd.wait_for_wins(100)
        wait_until(lambda: given_by_previous(laisee, packet) > 0, 20, "a win by the previous edge")
        before = given_by_previous(laisee, packet)
        with drill.stock(laisee) as link:
            link.flushdb()
        figures = crowd.finish()
        after = given_by_previous(laisee, packet)
        print(drill.totals_line("two versions", figures))
        print(f"two versions: the previous one gave {before} and, after the loss, {after} portions")
        assert after > 0 and before + after < PORTIONS
        drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text(), PORTIONS)
        drill.assert_settled_and_green(laisee, packet, PORTIONS, PORTIONS * 100)
