"""Postgres comes back from a backup that is older than Redis: one command makes the books whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from loadtest.answers import Answer, AnswerLog, Kind, read_log
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


def epochs(laisee: Copy) -> dict[int, tuple[int, str]]:
    """Lane id -> (current epoch, cause of it), of every lane that isn't closed."""
    with drill.owner(laisee) as link:
        rows = link.execute(
            "SELECT l.id, l.epoch, e.cause FROM packets_lane l JOIN packets_laneepoch e"
            " ON e.lane_id = l.id AND e.epoch = l.epoch WHERE l.state <> 'closed'"
        ).fetchall()
    return {lane: (epoch, cause) for lane, epoch, cause in rows}


def write_people(log: Path, to: Path) -> Path:
    """The people of a log, without what they heard."""
    people = AnswerLog(to)
    for user in dict.fromkeys(answer.user for answer in read_log(log)):
        people.write(Answer(user, Kind.VIEW, 0.0, 200, "viewed", 0.0))
    people.close()
    return to


def test_an_older_backup_is_brought_in_line_by_one_command(laisee: Copy) -> None:
    packet = drill.fresh_packet(laisee)
    early = drill.crowd(laisee, packet, "early", people=200)
    assert early.finish()["winners"] == 200
    assert early.process.returncode == 0, early.text()

    # A cold backup of Postgres, with 200 claims in it.
    laisee.stop()
    backup = laisee.root / "postgres.backup"
    shutil.copytree(laisee.places.postgres, backup, symlinks=True)
    laisee.start()
    late = drill.crowd(laisee, packet, "late", people=300)
    assert late.finish()["winners"] == 300
    with drill.stock(laisee) as link:
        assert link.dbsize() > 0

    # Postgres is lost and comes back with 200 claims; Redis still knows of 500.
    laisee.stop()
    shutil.rmtree(laisee.places.postgres)
    shutil.copytree(backup, laisee.places.postgres, symlinks=True)
    laisee.start()
    assert len(drill.export(laisee, packet)[1]) == 200
    before = epochs(laisee)

    # The control: before the command, Redis vouches for claims that Postgres doesn't have.
    people = write_people(late.log, late.log.with_suffix(".people"))
    control = drill.crowd(laisee, packet, "control", ask_again=people)
    breaches = control.finish()["money"]["ledger_check"]["breaches"]
    print(f"before the command: {breaches}")
    assert control.process.returncode == 4, control.text()
    assert breaches["LOST_WIN"] > 0

    told = laisee.manage("reopen_lanes")
    print(told.strip())

    after = epochs(laisee)
    assert set(after) == set(before)
    for lane, (epoch, cause) in after.items():
        assert epoch > before[lane][0], f"lane {lane} is still in epoch {epoch}"
        assert cause == "restored"
    assert laisee.manage_result("audit_money").returncode == 0

    # The 200 hear what they heard. The 300 whose claims the backup never had are asked anew: what
    # they hear now is in Postgres, and nothing is given beyond the packet.
    again = drill.crowd(laisee, packet, "early-again", ask_again=early.log)
    figures = again.finish()
    assert again.process.returncode == 0, again.text()
    assert figures["winners"] == 200
    late.log.rename(late.log.with_suffix(".lost"))
    crowd = drill.crowd(laisee, packet, "late", people=1_000)
    figures = crowd.finish()
    print(drill.totals_line("after the restore", figures))
    assert crowd.process.returncode == 0, crowd.text()
    assert figures["winners"] == 800
    verdict = figures["money"]["ledger_check"]
    assert verdict["ok"], verdict
    assert (verdict["claims"], verdict["claimed_fen"]) == (drill.PORTIONS, drill.TOTAL_FEN)
    rows = {claim["claim"]: claim for claim in drill.export(laisee, packet)[1]}
    assert {claim["epoch"] for claim in rows.values()} >= {1, after[_lane(laisee, packet)][0]}
    heard = {answer.claim for answer in read_log(early.log) if answer.won}
    assert heard <= set(rows)
    drill.assert_settled_and_green(laisee, packet, drill.PORTIONS, drill.TOTAL_FEN)
    assert json.loads(laisee.manage("seed_demo"))["packet"] != packet


def _lane(laisee: Copy, packet: str) -> int:
    return drill.number(laisee, "SELECT id FROM packets_lane WHERE packet_id = %s::uuid", packet)
