"""Settlement: every claim is paid once, whoever works on it and whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from engine.lib.sql import load
from packets import ledger, selectors, settlement, tasks
from packets.invariants import invariants_check
from packets.ledger import Entry
from packets.models import Account, ClaimState, LaneCursor, Transfer
from packets.settlement import SettlementResult, TapeBroken, retry_parked, settle_due, settle_lane
from packets.settlement_moves import MAKE_WALLETS, MOVE, MOVE_REST
from tests.conftest import wait_until
from tests.factories import make_claims, make_packet, people
from tests.guards import without_guard
from tests.packets.settling import (
    assert_all_paid_once,
    escrow_fen,
    locked,
    one_lane,
    picture,
    refuse_money,
    settled_count,
    wallet_fen,
)

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent.parent


# --- the ordinary day -----------------------------------------------------------------------------


def test_three_people_get_their_money() -> None:
    packet, lane = one_lane(10, portion_fen=100)
    claims = make_claims(lane, 3)
    alice = bytes(claims[0].participant)
    assert selectors.wallet_balance(alice) == selectors.WalletBalance(0, 100, 0, 0, "CNY")

    assert settle_lane(lane.id) == SettlementResult(settled=3, settled_fen=300, batches=1)

    assert selectors.wallet_balance(alice) == selectors.WalletBalance(100, 0, 0, 0, "CNY")
    assert escrow_fen(packet) == 700
    assert settled_count(lane) == 3
    states = ClaimState.objects.values_list("state", "transfer__reference", "reason")
    assert set(states) == {("settled", f"settle:{claim.id.hex}", "") for claim in claims}
    [transfer] = selectors.wallet_transfers(alice)
    assert (transfer.amount_fen, transfer.debit_account_id) == (100, packet.escrow_id)
    assert_all_paid_once()


def test_settling_again_changes_nothing() -> None:
    _, lane = one_lane(10)
    make_claims(lane, 3)
    settle_lane(lane.id)
    before = picture()

    assert settle_lane(lane.id) == SettlementResult()
    assert settle_due() == SettlementResult()

    assert picture() == before


def test_a_long_tape_is_settled_in_batches() -> None:
    _, lane = one_lane(50)
    make_claims(lane, 25)

    assert settle_lane(lane.id, limit=10) == SettlementResult(10, 1_000, 0, 1, left=15)
    make_claims(lane, 5)
    total = settle_due(limit=10)

    assert (total.settled, total.batches) == (20, 2)
    assert settled_count(lane) == 30
    assert_all_paid_once()


def test_two_claims_of_one_person_in_one_batch() -> None:
    packet, lane = one_lane(10)
    alice = next(people(packet, lane))
    make_claims(lane, 1, participants=[alice])
    make_claims(lane, 1, participants=[alice], serial=1)

    settle_lane(lane.id)

    assert wallet_fen(alice) == 200
    assert_all_paid_once()


def test_the_sweep_visits_every_lane() -> None:
    packet = make_packet(count=40, lanes=4)
    for lane in packet.lanes.all():
        make_claims(lane, 6)

    tasks.settle_sweep()

    assert_all_paid_once()
    assert list(LaneCursor.objects.values_list("settled_count", flat=True)) == [6] * 4


def test_money_of_a_closed_packet_still_arrives() -> None:
    """What closing returns is what nobody claimed, so the claims' own money is still there."""
    from packets import services

    packet, lane = one_lane(10, portion_fen=100)
    make_claims(lane, 4)
    services.packet_close(packet_id=packet.id, actor="test")
    assert escrow_fen(packet) == 400

    settle_lane(lane.id)

    assert escrow_fen(packet) == 0
    assert_all_paid_once()


def test_the_sweep_looks_no_more_at_what_is_closed_and_settled(superuser_dsn: str) -> None:
    from packets import services

    open_packet, _ = one_lane(10)
    closed, lane = one_lane(10)
    make_claims(lane, 4)
    services.packet_close(packet_id=closed.id, actor="test")

    def done() -> list[int]:
        return list(LaneCursor.objects.filter(is_done=True).values_list("lane_id", flat=True))

    assert settle_due(limit=2, max_batches=1).settled == 2
    assert done() == []  # closed, but not settled to its end
    assert settle_due().settled == 2
    assert done() == [lane.id]
    assert invariants_check().holds
    # What says so too early is found.
    with psycopg.connect(superuser_dsn) as link:
        link.execute("UPDATE packets_lanecursor SET is_done = true")
    [broken] = [check for check in invariants_check().checks if check.value]
    assert (broken.name, broken.value) == ("cursors", 1)
    assert str(open_packet.lanes.get().id) in broken.detail


def test_settlement_does_not_touch_the_lanes_row(owner_dsn: str) -> None:
    """Claims go on committing beside it: it never waits for the lane, nor the lane for it."""
    _, lane = one_lane(10)
    make_claims(lane, 4)
    with locked(owner_dsn, f"SELECT 1 FROM packets_lane WHERE id = {lane.id} FOR UPDATE"):
        assert settle_lane(lane.id).settled == 4


# --- a claim that can't be paid -------------------------------------------------------------------


@pytest.fixture
def refuse(owner_dsn: str) -> Iterator[Callable[[bytes | None], None]]:
    """Makes one wallet refuse all money; None lets it take money again."""
    run = partial(refuse_money, owner_dsn)
    yield run
    run(None)


def test_one_refusing_wallet_parks_its_claim_and_the_rest_is_paid(
    refuse: Callable[[bytes | None], None],
) -> None:
    packet, lane = one_lane(100, portion_fen=100)
    claims = make_claims(lane, 100)
    mallory = claims[37]
    refuse(bytes(mallory.participant))

    done = settle_lane(lane.id)

    assert (done.settled, done.settled_fen, done.parked, done.left) == (99, 9_900, 1, 0)
    state = ClaimState.objects.get(claim=mallory)
    assert (state.state, state.transfer_id) == ("parked", None)
    assert "test_refuses" in state.reason
    assert escrow_fen(packet) == 100  # his money waits where it was
    assert settled_count(lane) == 100
    balance = selectors.wallet_balance(bytes(mallory.participant))
    assert (balance.available_fen, balance.pending_fen) == (0, 100)

    # Nothing has changed, so trying again parks it again and moves nothing.
    before = picture()
    assert retry_parked() == SettlementResult(parked=1)
    assert picture() == before

    refuse(None)
    assert retry_parked().settled == 1
    assert ClaimState.objects.get(claim=mallory).state == "settled"
    assert_all_paid_once()
    assert retry_parked() == SettlementResult()


@pytest.mark.control
def test_without_halving_one_bad_claim_stops_all(
    refuse: Callable[[bytes | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lane = one_lane(100)
    refuse(bytes(make_claims(lane, 100)[37].participant))
    monkeypatch.setattr(settlement, "_is_refusal", lambda error: False)
    before = picture()
    for _ in range(3):
        assert settle_due().failed == 1
    assert picture() == before  # 0 of 100, at every sweep


def test_a_claim_whose_reference_is_taken_is_parked(superuser_dsn: str) -> None:
    _, lane = one_lane(10)
    claims = make_claims(lane, 3)
    settle_lane(lane.id)
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("DELETE FROM packets_claimstate WHERE claim_id = %s", [claims[1].id])
        link.execute("UPDATE packets_lanecursor SET settled_count = 0")

    done = settle_lane(lane.id)

    assert (done.settled, done.parked) == (0, 1)
    assert "have a transfer already" in ClaimState.objects.get(claim=claims[1]).reason
    assert_all_paid_once()


def test_a_rewound_cursor_pays_nobody_twice(superuser_dsn: str) -> None:
    _, lane = one_lane(10)
    make_claims(lane, 5)
    settle_lane(lane.id)
    with psycopg.connect(superuser_dsn) as link:
        link.execute("UPDATE packets_lanecursor SET settled_count = 0")

    assert settle_lane(lane.id) == SettlementResult(batches=1)

    assert settled_count(lane) == 5
    assert_all_paid_once()


def test_a_hole_in_the_tape_stops_its_lane_and_no_other(superuser_dsn: str) -> None:
    _, broken = one_lane(10)
    _, sound = one_lane(10)
    claims = make_claims(broken, 5)
    make_claims(sound, 5)
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("DELETE FROM packets_claim WHERE id = %s", [claims[2].id])

    with pytest.raises(TapeBroken, match="4 claims at positions 1 to 5"):
        settle_lane(broken.id)
    total = settle_due()

    assert (total.settled, total.failed) == (5, 1)
    assert settled_count(broken) == 0
    assert settled_count(sound) == 5


def test_a_lane_without_a_cursor_is_a_defect(superuser_dsn: str) -> None:
    _, lane = one_lane(10)
    with psycopg.connect(superuser_dsn) as link:
        link.execute("DELETE FROM packets_lanecursor")
    with pytest.raises(TapeBroken, match="no settlement cursor"):
        settle_lane(lane.id)


# --- trouble that isn't the claims' fault ---------------------------------------------------------


def test_a_lock_held_too_long_parks_nothing(
    owner_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet, lane = one_lane(10)
    make_claims(lane, 4)
    before = picture()
    monkeypatch.setattr(settlement, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(settlement, "ATTEMPTS", 2)
    escrow = f"SELECT 1 FROM packets_account WHERE id = {packet.escrow_id} FOR UPDATE"
    with locked(owner_dsn, escrow), pytest.raises(OperationalError, match="lock timeout"):
        settle_lane(lane.id)
    assert picture() == before
    assert settle_lane(lane.id).settled == 4


def test_a_lock_that_goes_away_is_waited_for_again(
    owner_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet, lane = one_lane(10)
    make_claims(lane, 4)
    monkeypatch.setattr(settlement, "LOCK_TIMEOUT_MS", 50)
    retries: list[float] = []
    with psycopg.connect(owner_dsn) as link:
        link.execute("SELECT 1 FROM packets_account WHERE id = %s FOR UPDATE", [packet.escrow_id])

        def let_go(pause_s: float) -> None:
            retries.append(pause_s)
            link.rollback()

        # The module's own clock: other threads of this process sleep too.
        monkeypatch.setattr(settlement, "time", SimpleNamespace(sleep=let_go))
        assert settle_lane(lane.id).settled == 4
    assert len(retries) == 1


def test_a_worker_killed_in_mid_batch_loses_and_doubles_nothing(superuser_dsn: str) -> None:
    packet, lane = one_lane(300)
    make_claims(lane, 200)
    before = picture()
    code = "import django; django.setup(); from packets.settlement import settle_due; settle_due()"
    escrow = f"SELECT 1 FROM packets_account WHERE id = {packet.escrow_id} FOR NO KEY UPDATE"
    with locked(superuser_dsn, escrow):
        # The batch has written its transfers; now the ledger's trigger waits for the escrow.
        worker = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "engine.settings"},
        )
        try:
            wait_until(lambda: waiting_settlements(superuser_dsn) == 1, 20, "the worker's batch")
        finally:
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
    wait_until(
        lambda: settlements(superuser_dsn) == 0, 10, "the end of the dead worker's transaction"
    )
    assert picture() == before

    assert settle_lane(lane.id).settled == 200
    assert_all_paid_once()


def waiting_settlements(dsn: str) -> int:
    return settlements(dsn, "AND wait_event_type = 'Lock'")


def settlements(dsn: str, also: str = "") -> int:
    with psycopg.connect(dsn) as link:
        row = link.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            " AND pid <> pg_backend_pid() AND query LIKE '%WITH due AS%' " + also
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_batch_looks_up_by_key_before_postgres_has_statistics() -> None:
    """As joins these look-ups compared every claim of a batch with every wallet there was."""
    packet, lane = one_lane(10)
    make_claims(lane, 4)
    # As many as fill many pages: of a table of one page any way of reading it costs the same.
    Account.objects.bulk_create(
        Account(kind=Account.Kind.WALLET, owner=f"{n:032x}") for n in range(3_000)
    )
    names = {
        "lane": lane.id,
        "first": 1,
        "last": 4,
        "escrow": packet.escrow_id,
        "currency": packet.currency,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        settlement._limit(cursor)
        for query in (MAKE_WALLETS, MOVE_REST, MOVE):
            if query is MOVE:
                cursor.execute("SET LOCAL enable_nestloop = off")
            cursor.execute("EXPLAIN " + query, names)
            plan = "\n".join(row[0] for row in cursor.fetchall())
            assert "Nested Loop" not in plan and "Seq Scan" not in plan, plan
            joins = [line.strip() for line in plan.splitlines() if "Join" in line]
            assert len(joins) == (1 if query is MOVE else 0), plan  # of two small sets at hand
            by_owner = [line for line in plan.splitlines() if "Index Cond" in line]
            if query is not MAKE_WALLETS:
                assert any(".owner)" in line for line in by_owner), plan


def read_through(owner_dsn: str) -> tuple[int, int]:
    """How often ten movements, made while accounts are few, read all of them; and a batch after."""
    outside = ledger.external_account()
    budget = ledger.account_get_or_create(kind=Account.Kind.CAMPAIGN, owner="budget")
    _, lane = one_lane(10)
    make_claims(lane, 4)
    connection.close()
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        # FULL: other tests' rows may have left many empty pages.
        owner.execute("VACUUM (FULL, ANALYZE) packets_account")
    seen = [scans()]
    for number in range(10):
        entry = Entry(f"gift:{number}", Transfer.Kind.FUND, outside.id, budget.id, 100)
        ledger.post([entry])
    seen.append(scans())
    assert settle_lane(lane.id).settled == 4
    return seen[1] - seen[0], scans() - seen[1]


def scans() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'packets_account'")
        return int(cursor.fetchone()[0])


def test_a_session_that_moved_money_before_settles_by_key(owner_dsn: str) -> None:
    assert read_through(owner_dsn) == (0, 0)


@pytest.mark.control
def test_control_movements_read_a_small_table_through(owner_dsn: str) -> None:
    """A function keeps its plans as long as the session lasts, whatever the table becomes."""
    text = load("packets", "ledger.sql")
    with psycopg.connect(owner_dsn) as owner:
        owner.execute(without_guard(text, "by_key"))
    try:
        by_movements, by_settlement = read_through(owner_dsn)
    finally:
        connection.close()
        with psycopg.connect(owner_dsn) as owner:
            owner.execute(text)
    assert by_movements >= 10
    assert by_settlement > 0


MANY = 3_000  # accounts: far more than a batch names


def looked_at(owner_dsn: str) -> int:
    """Rows of accounts read by a batch of four, when Postgres still believes that there are few."""
    _, lane = one_lane(10)
    make_claims(lane, 4)
    connection.close()
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute("VACUUM (FULL, ANALYZE) packets_account")
    Account.objects.bulk_create(
        Account(kind=Account.Kind.WALLET, owner=f"{n:032x}") for n in range(MANY)
    )
    before = rows_read()
    assert settle_lane(lane.id).settled == 4
    return rows_read() - before


def rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(
            "SELECT seq_tup_read + COALESCE(sum(known.idx_tup_read), 0)::bigint"
            "  FROM pg_stat_user_tables AS told"
            "  JOIN pg_stat_user_indexes AS known USING (relid)"
            " WHERE told.relname = 'packets_account' GROUP BY seq_tup_read"
        )
        return int(cursor.fetchone()[0])


def test_a_batch_reads_the_accounts_it_names_only(owner_dsn: str) -> None:
    assert looked_at(owner_dsn) < 100


@pytest.mark.control
def test_control_a_batch_reads_all_accounts_by_old_statistics(owner_dsn: str) -> None:
    """The statistics of a young system: a plan for few accounts hashes all there are."""
    text = load("packets", "ledger.sql")
    with psycopg.connect(owner_dsn) as owner:
        owner.execute(without_guard(text, "named_only"))
    try:
        read = looked_at(owner_dsn)
    finally:
        connection.close()
        with psycopg.connect(owner_dsn) as owner:
            owner.execute(text)
    assert read > MANY
