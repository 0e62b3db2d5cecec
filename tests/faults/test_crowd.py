"""5,000 people, 100 in flight, 1,000 portions: what each heard stays true whatever comes after."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.answers import Answer, read_log
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

PEOPLE = 5_000


def wins_of(answers: list[Answer]) -> dict[str, set[tuple[str | None, int | None]]]:
    """For every winner, each distinct claim and amount that was heard."""
    heard: dict[str, set[tuple[str | None, int | None]]] = {}
    for answer in answers:
        if answer.won:
            heard.setdefault(answer.user, set()).add((answer.claim, answer.amount_fen))
    return heard


def ask_everybody_again(laisee: Copy, packet: str, log: Path, run: str) -> list[Answer]:
    """The new answers of everybody in `log`, asked once more."""
    before = len(list(read_log(log)))
    again = drill.crowd(laisee, packet, run, ask_again=log)
    figures = again.finish()
    print(drill.totals_line(run, figures))
    assert again.process.returncode == 0, again.text()
    return list(read_log(log))[before:]


def test_a_thousand_of_five_thousand_win_once_and_for_good(laisee: Copy) -> None:
    packet = drill.fresh_packet(laisee)
    crowd = drill.crowd(laisee, packet, "crowd", people=PEOPLE)
    figures = crowd.finish()
    print(drill.totals_line("crowd", figures))
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    assert figures["people"] == PEOPLE
    won = wins_of(list(read_log(crowd.log)))
    assert len(won) == drill.PORTIONS
    assert all(len(heard) == 1 for heard in won.values())

    # The last round of the crowd asked everybody on the sold-out packet; now paused, then closed.
    for action in ("pause", "close"):
        drill.packet_do(laisee, action, packet)
        answers = ask_everybody_again(laisee, packet, crowd.log, f"after-{action}")
        assert wins_of(answers) == won
        assert all(answer.replayed for answer in answers if answer.won)
        refused = {answer.result for answer in answers if not answer.won}
        assert refused <= {"sold_out", "ended", "paused"}, refused
    drill.assert_settled_and_green(laisee, packet, drill.PORTIONS, drill.TOTAL_FEN)


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
        answers = ask_everybody_again(laisee, packet, crowd.log, f"half-after-{action}")
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
