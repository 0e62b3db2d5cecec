"""Redis dies in the middle of a crowd and stays away: the crowd is served to its end without it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.run.valkey import ValkeyServer
from tests.faults import drill
from tests.faults.test_crowd import ask_again, wins_of
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.nightly, pytest.mark.timeout(400)]

PEOPLE = 3_000
WINS_BEFORE = 200


@pytest.fixture
def copy(tmp_path: Path, valkey_server: ValkeyServer) -> Iterator[Copy]:
    """A copy whose Redis is nobody's to start again."""
    made = Copy(tmp_path, REDIS_URL=valkey_server.url)
    try:
        made.start()
        yield made
    finally:
        made.close()


def causes(copy: Copy, packet: str) -> list[str]:
    with drill.owner(copy) as link:
        rows = link.execute(
            "SELECT e.cause FROM packets_laneepoch e JOIN packets_lane l ON l.id = e.lane_id"
            " WHERE l.packet_id = %s::uuid ORDER BY e.epoch",
            [packet],
        ).fetchall()
    return [str(row[0]) for row in rows]


def test_a_crowd_is_served_to_its_end_and_redis_may_come_back(
    copy: Copy, valkey_server: ValkeyServer
) -> None:
    packet = drill.fresh_packet(copy)
    crowd = drill.crowd(copy, packet, "without-redis", people=PEOPLE)
    crowd.wait_for_wins(WINS_BEFORE)
    valkey_server.kill()
    killed_at = time.time()
    figures = crowd.finish()
    print(drill.totals_line("without redis", figures))
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    first = drill.first_new_win_after(crowd.log, killed_at)
    assert first is not None and first - killed_at <= drill.RECOVERY_S
    print(f"without redis: the next new win came {first - killed_at:.2f} s after its death")
    assert causes(copy, packet) == ["opened", "direct"]
    won = wins_of(crowd.answers())

    valkey_server.start(wipe=True)
    assert wins_of(ask_again(copy, packet, crowd.log, "redis-is-back")) == won
    drill.assert_settled_and_green(copy, packet, drill.PORTIONS, drill.TOTAL_FEN)

    # And the next packet is Redis's again.
    after = drill.fresh_packet(copy)
    crowd = drill.crowd(copy, after, "after", people=PEOPLE)
    figures = crowd.finish()
    print(drill.totals_line("after", figures))
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    assert causes(copy, after) == ["opened"]
    drill.assert_settled_and_green(copy, after, drill.PORTIONS, drill.TOTAL_FEN)
