"""Settlement against COPY: how far a ledger is from the fastest way to write its rows.

In each round as many claims are settled as rows are copied: transfers into a table of the same
columns, checks and indexes, in transactions of the same size, by the same disk.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from loadtest.bench.table import Result, Row
from tests.bench.rig import Rig


def measure(rig: Rig, rounds: int, claims: int, result: Result, say: Callable[[str], None]) -> None:
    """Adds the row. `claims` are made through the commit function, each by somebody else."""
    settled, copied = [], []
    for number in range(1, rounds + 1):
        lane_id = _claims(rig, claims)
        settled.append(_settle(lane_id, claims))
        copied.append(_copy(rig, claims))
        say(f"round {number}/{rounds}  settled {settled[-1]:,.0f}/s, copied {copied[-1]:,.0f}/s")
    result.rows.append(Row("settlement", "COPY of the same rows", 0.5, True, settled, copied))


def _claims(rig: Rig, count: int) -> int:
    """A lane with so many claims that nobody has settled."""
    from engine.lib import ids
    from packets.claiming import flow, registry
    from packets.claiming.effects import Commit, Committed, Portion
    from packets.claiming.journal import Journal
    from packets.models import Lane

    packet = rig.packet(count, strategy="fixed")
    view = registry.read(packet.id)
    assert view is not None
    lane = Lane.objects.get(packet=packet)
    name = uuid.uuid4().hex[:12]
    rows = []
    for index in range(count):
        who = f"{name}-{index}"
        slot = flow.slot_of(view, ids.participant_digest(rig.app.pk, who))
        rows.append(Commit(slot, Portion(lane.epoch, index, 100, 0), rig.app.pk, who))
    journal = Journal()
    for start in range(0, count, 500):
        answers = journal.commit(lane.pk, rows[start : start + 500])
        assert all(isinstance(answer, Committed) and answer.claimed for answer in answers)
    journal.close()
    return int(lane.pk)


def _settle(lane_id: int, claims: int) -> float:
    from django.db import connection

    from packets import settlement

    # A session of its own, as a worker that settles has one. (A session that has opened packets
    # keeps plans for the transfers' foreign keys that were made while there were few accounts.)
    connection.close()
    started = time.perf_counter()
    done = settlement.settle_lane(lane_id)
    while done.left:
        done += settlement.settle_lane(lane_id)
    elapsed_s = time.perf_counter() - started
    assert (done.settled, done.parked) == (claims, 0), done
    return claims / elapsed_s


def _copy(rig: Rig, rows: int) -> float:
    """The transfers that were just settled, copied into an empty twin of their table."""
    from packets.settlement import BATCH_CLAIMS

    with psycopg.connect(rig.copy.env["MIGRATION_DATABASE_URL"], autocommit=True) as link:
        columns = [
            str(row[0])
            for row in link.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'packets_transfer'::regclass"
                " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
            ).fetchall()
        ]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        found: list[tuple[Any, ...]] = link.execute(
            sql.SQL("SELECT {} FROM packets_transfer ORDER BY id DESC LIMIT %s").format(names),
            [rows],
        ).fetchall()
        assert len(found) == rows
        link.execute("CREATE TABLE bench_twin (LIKE packets_transfer INCLUDING ALL)")
        try:
            started = time.perf_counter()
            for start in range(0, rows, BATCH_CLAIMS):
                with link.cursor().copy(
                    sql.SQL("COPY bench_twin ({}) FROM STDIN").format(names)
                ) as copy:
                    for row in found[start : start + BATCH_CLAIMS]:
                        copy.write_row(row)
            return rows / (time.perf_counter() - started)
        finally:
            link.execute("DROP TABLE bench_twin")
