"""Postgres comes back from a backup that is older than Redis: one command makes the books whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.run.paths import CHECKOUT
from loadtest.answers import Answer, AnswerLog, Kind, read_log
from tests.faults import drill
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

PORTIONS = 400


@pytest.fixture(scope="module")
def laisee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy of its own: it is stopped, and set back to older books."""
    with Copy.running(tmp_path_factory.mktemp("copy")) as copy:
        yield copy


def engine_run(laisee: Copy, *arguments: str) -> str:
    """What `make backup` and `make restore` call."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.run", *arguments],
        cwd=CHECKOUT,
        env={
            **drill.clean_environment(laisee),
            "PORT": str(laisee.port),
            "EDGE_PORT": str(laisee.edge_port),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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


def finish_well(crowd: drill.Crowd, winners: int) -> None:
    """Everybody was answered, so many have won, and the books agree with all of them."""
    figures = crowd.finish()
    print(drill.totals_line(crowd.run, figures))
    assert crowd.process.returncode == 0, crowd.text()
    assert figures["winners"] == winners
    assert figures["money"]["ledger_check"]["ok"]


def test_an_older_backup_is_restored_by_one_command(laisee: Copy) -> None:
    """100 claims are in the backup, 100 come after it; then the books are lost."""
    packet = drill.open_packet(laisee, PORTIONS)
    early = drill.crowd(laisee, packet, "early", people=100)
    finish_well(early, winners=100)
    backup = laisee.root / "books.dump"
    print(engine_run(laisee, "backup", str(backup)))
    before = epochs(laisee)
    late = drill.crowd(laisee, packet, "late", people=100)
    finish_well(late, winners=100)
    laisee.stop()

    print(engine_run(laisee, "restore", str(backup)))
    laisee.start()

    assert len(drill.export(laisee, packet)[1]) == 100
    after = epochs(laisee)
    assert set(after) == set(before)
    for lane, (epoch, cause) in after.items():
        assert epoch > before[lane][0], f"lane {lane} is still in epoch {epoch}"
        assert cause == "restored"
    assert laisee.manage_result("audit_money").returncode == 0

    # The first hear what they heard. Those of whom the backup knows nothing are asked anew: what
    # they hear now is in Postgres, and nothing is given beyond the packet.
    finish_well(drill.crowd(laisee, packet, "early-again", ask_again=early.log), winners=100)
    late.log.rename(late.log.with_suffix(".lost"))
    finish_well(drill.crowd(laisee, packet, "late", people=400), winners=300)
    claims = drill.export(laisee, packet)[1]
    assert sum(claim["amount_fen"] for claim in claims) == PORTIONS * 100
    assert len(claims) == PORTIONS
    assert {claim["claim"] for claim in claims} >= {
        answer.claim for answer in read_log(early.log) if answer.won
    }
    drill.assert_settled_and_green(laisee, packet, PORTIONS, PORTIONS * 100)


@pytest.mark.control
@pytest.mark.nightly
def test_until_the_lanes_are_reopened_redis_vouches_for_lost_claims(laisee: Copy) -> None:
    """The same loss with files copied behind the launcher's back: the check sees lost wins, and
    the one step of the restore that concerns lanes ends it."""
    packet = drill.fresh_packet(laisee)
    laisee.stop()
    backup = laisee.root / "postgres.backup"
    shutil.copytree(laisee.places.postgres, backup, symlinks=True)
    laisee.start()
    late = drill.crowd(laisee, packet, "unknown", people=100)
    finish_well(late, winners=100)
    laisee.stop()
    shutil.rmtree(laisee.places.postgres)
    shutil.copytree(backup, laisee.places.postgres, symlinks=True)
    laisee.start()

    people = write_people(late.log, laisee.root / "people.jsonl")
    control = drill.crowd(laisee, packet, "control", ask_again=people)
    breaches = control.finish()["money"]["ledger_check"]["breaches"]
    print(f"before the lanes are reopened: {breaches}")
    assert control.process.returncode == 4, control.text()
    assert breaches["LOST_WIN"] > 50

    laisee.manage("reopen_lanes")
    people = write_people(late.log, laisee.root / "people-again.jsonl")
    finish_well(drill.crowd(laisee, packet, "reopened", ask_again=people), winners=100)
