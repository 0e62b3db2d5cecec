"""Settlement against COPY: how far a ledger is from the fastest way to write its rows.

In each round as many claims are settled as rows are copied, in transactions of the same size, by
one connection each, on the same disk. What is copied is what settling the claims has written: the
transfers, the states, and each person's wallet as it stands after the batch (a wallet that was made
is written twice by settlement and counts once). The rows were read before the clock starts, in
COPY's own form, so the yardstick is Postgres alone.

They go into empty twins of the three tables with the same checks, keys, unique keys and indexes,
and in one of the two ways with the same triggers, but for the two that see to it that balances come
by transfers only, since the copied wallets hold theirs already. Foreign keys would have to be on
the twins too; these tables have none, their triggers look in their place (packets/sql/ledger.sql).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from loadtest.bench.table import Result, Row, number
from tests.bench import cpu
from tests.bench.rig import Rig

# Of the transactions of packets.settlement: (twin's name, the rows of positions first..last).
ROWS = {
    "packets_account": "SELECT account.* FROM packets_account AS account WHERE account.id IN"
    " (SELECT credit_account_id FROM ({}) AS paid) ORDER BY account.id",
    "packets_transfer": "{} ORDER BY id",
    "packets_claimstate": "SELECT known.* FROM packets_claimstate AS known"
    " JOIN ({}) AS paid ON paid.id = known.transfer_id ORDER BY known.transfer_id",
}
PAID = (
    "SELECT paid.* FROM packets_transfer AS paid"
    " JOIN packets_claimstate AS known ON known.transfer_id = paid.id"
    " JOIN packets_claim AS claim ON claim.id = known.claim_id"
    " WHERE claim.lane_id = {} AND claim.position BETWEEN {} AND {}"
)
# Balances come by transfers only; the copied wallets hold theirs already.
BALANCES = ["ledger_apply", "account_starts_empty"]


@dataclass
class Found:
    """Claims a second of each way, and Postgres's CPU for one claim in microseconds, by round."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    cpu_us: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, claims: int, elapsed_s: float, cpu_s: float) -> None:
        self.rates.setdefault(name, []).append(claims / elapsed_s)
        self.cpu_us.setdefault(name, []).append(cpu_s / claims * 1e6)


def measure(rig: Rig, rounds: int, claims: int, result: Result, say: Callable[[str], None]) -> None:
    """Adds the rows. The claims are made through the commit function, each by somebody else."""
    found = Found()
    for number_ in range(1, rounds + 1):
        name = uuid.uuid4().hex[:12]
        # The first time each of them gets a wallet; the second time it is there.
        for people in ("new", "known"):
            lane_id = _claims(rig, claims, name)
            with _timed(rig, found, f"settled {people}", claims):
                _settle(lane_id, claims)
            blocks = _blocks(rig, lane_id, claims)
            for way, triggers in (("checked", True), ("bare", False)):
                with (
                    _twins(rig, triggers) as link,
                    _timed(rig, found, f"{way} {people}", claims),
                ):
                    _copy(link, blocks)
        told = ", ".join(f"{way} {number(rates[-1])}" for way, rates in found.rates.items())
        say(f"round {number_}/{rounds}  claims a second: {told}")
    for people in ("new", "known"):
        for way, words in (("checked", "its rows, constraints on"), ("bare", "its rows, bare")):
            result.rows.append(
                Row(
                    f"settlement, {people} people",
                    f"COPY of {words}",
                    0.5,
                    True,
                    found.rates[f"settled {people}"],
                    found.rates[f"{way} {people}"],
                )
            )
    result.facts["Postgres's CPU for a settled claim"] = "; ".join(
        f"{name} {number(sorted(us)[len(us) // 2])} µs" for name, us in found.cpu_us.items()
    )


@contextmanager
def _timed(rig: Rig, found: Found, name: str, claims: int) -> Iterator[None]:
    groups = {"postgres": rig.groups["postgres"]}
    before, started = cpu.used_s(groups)["postgres"], time.perf_counter()
    yield
    elapsed_s = time.perf_counter() - started
    found.add(name, claims, elapsed_s, cpu.used_s(groups)["postgres"] - before)


def _claims(rig: Rig, count: int, name: str) -> int:
    """A lane with so many claims of `name`'s people that nobody has settled."""
    from engine.lib import ids
    from packets.claiming import flow, registry
    from packets.claiming.effects import Commit, Committed, Portion
    from packets.claiming.journal import Journal
    from packets.models import Lane

    packet = rig.packet(count, strategy="fixed")
    view = registry.read(packet.id)
    assert view is not None
    lane = Lane.objects.get(packet=packet)
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


def _settle(lane_id: int, claims: int) -> None:
    from packets import settlement

    done = settlement.settle_lane(lane_id)
    while done.left:
        done += settlement.settle_lane(lane_id)
    assert (done.settled, done.parked, done.held) == (claims, 0, 0), done


Blocks = list[list[tuple[str, bytes]]]


def _blocks(rig: Rig, lane_id: int, claims: int) -> Blocks:
    """What each transaction copies: by table, as COPY reads it."""
    from packets.settlement import BATCH_CLAIMS

    blocks: Blocks = []
    with psycopg.connect(rig.copy.env["MIGRATION_DATABASE_URL"], autocommit=True) as link:
        for start in range(0, claims, BATCH_CLAIMS):
            paid = PAID.format(lane_id, start + 1, start + BATCH_CLAIMS)
            block = []
            for table, rows in ROWS.items():
                with link.cursor().copy(f"COPY ({rows.format(paid)}) TO STDOUT".encode()) as out:
                    block.append((_twin(table), b"".join(bytes(part) for part in out)))
            blocks.append(block)
    lines = sum(text.count(b"\n") for block in blocks for _, text in block)
    assert lines == 3 * claims, (lines, claims)
    return blocks


def _twin(table: str) -> str:
    return table.replace("packets_", "bench_")


@contextmanager
def _twins(rig: Rig, triggers: bool) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Empty tables as the three real ones are."""
    with psycopg.connect(rig.copy.env["MIGRATION_DATABASE_URL"], autocommit=True) as link:
        keys = link.execute(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
            " AND conrelid = ANY (%s::regclass[])",
            [list(ROWS)],
        ).fetchone()
        assert keys == (0,), "these tables have foreign keys now: the twins need them too"
        try:
            for table in ROWS:
                link.execute(
                    sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(
                        sql.Identifier(_twin(table)), sql.Identifier(table)
                    )
                )
                made = link.execute(
                    "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
                    " WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgname <> ALL (%s)",
                    [table, BALANCES],
                ).fetchall()
                for (text,) in made if triggers else []:
                    link.execute(
                        str(text).replace(f"public.{table}", f"public.{_twin(table)}").encode()
                    )
            yield link
        finally:
            for table in ROWS:
                link.execute(
                    sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(_twin(table)))
                )


def _copy(link: psycopg.Connection[tuple[object, ...]], blocks: Blocks) -> None:
    for block in blocks:
        with link.transaction():
            for table, rows in block:
                with link.cursor().copy(
                    sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
                ) as copy:
                    copy.write(rows)
