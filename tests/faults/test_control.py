"""The same crowd, the same check and the same loss of Redis, with and without the database's guard.

The loss is the worst kind: in mid-crowd Redis forgets everything and stands there as it did when
the packet opened, with every portion still to give, in the epoch that Postgres holds for current.
(A Redis that is merely empty says so, and is rebuilt: see test_kill.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from engine.lib import sql
from tests.faults import drill
from tests.guards import without_guard
from tests.private_copy import Copy

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

PEOPLE = 1_600
WINS_BEFORE_THE_FAULT = 300

# What Postgres holds against a Redis that lies: the commit function's refusals, and beneath them
# the keys and the caps.
GUARDS = ("fence", "index", "total")
CONSTRAINTS = {
    "packets_claim": ("claim_index_once",),
    "packets_lane": ("lane_cap_fen", "lane_cap_count", "lane_ends_exactly"),
}


@pytest.fixture(scope="module")
def laisee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy of its own: its guards are gone for good."""
    with Copy.running(tmp_path_factory.mktemp("copy")) as copy:
        yield copy


def take_the_database_guard_away(laisee: Copy) -> None:
    with drill.owner(laisee) as link:
        link.execute(without_guard(sql.load("packets", "commit_claims.sql"), *GUARDS).encode())
        for table, names in CONSTRAINTS.items():
            for name in names:
                link.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())


def stock_as_it_is(link: redis.Redis) -> dict[bytes, bytes]:
    return {key: bytes(link.dump(key) or b"") for key in link.scan_iter(count=1000)}


def wipe_to(link: redis.Redis, stock: dict[bytes, bytes]) -> None:
    """Forget everything and stand there with `stock`, in one step."""
    pipeline = link.pipeline(transaction=True)
    pipeline.flushdb()
    for key, value in stock.items():
        pipeline.restore(key, 0, value)
    pipeline.execute()


def crowd_with_redis_wiped(
    laisee: Copy, run: str, patience_s: float
) -> tuple[drill.Crowd, dict[str, object]]:
    packet = drill.fresh_packet(laisee)
    with drill.stock(laisee) as link:
        opening = stock_as_it_is(link)
        crowd = drill.crowd(laisee, packet, run, people=PEOPLE, patience_s=patience_s)
        crowd.wait_for_wins(WINS_BEFORE_THE_FAULT)
        wipe_to(link, opening)
    figures = crowd.finish()
    print(drill.totals_line(run, figures))
    return crowd, figures


@pytest.mark.nightly  # test_kill takes Redis's data away in the middle; this is the control's twin
def test_with_the_guard_a_redis_that_forgot_harms_nobody(laisee: Copy) -> None:
    crowd, figures = crowd_with_redis_wiped(laisee, "guarded", patience_s=45.0)
    drill.assert_sold_out_exactly(figures, crowd.process.returncode, crowd.text())
    drill.assert_settled_and_green(laisee, str(figures["packet"]), drill.PORTIONS, drill.TOTAL_FEN)


@pytest.mark.control
def test_without_the_guard_the_same_check_sees_duplicates_and_oversell(laisee: Copy) -> None:
    """Last in this module: the copy's database is broken afterwards."""
    take_the_database_guard_away(laisee)
    # Where more is claimed than there is, nobody is ever told `sold_out`: they soon give up.
    crowd, figures = crowd_with_redis_wiped(laisee, "unguarded", patience_s=1.0)
    assert crowd.process.returncode == 4, crowd.text()
    breaches = figures["money"]["ledger_check"]["breaches"]  # type: ignore[index]
    print(f"without the guard: {breaches}")
    assert breaches.get("PORTION_TWICE", 0) > 0
    assert breaches.get("TOO_MANY", 0) > 0
    audit = laisee.manage_result("audit_money")
    assert audit.returncode == 1, audit.stdout
