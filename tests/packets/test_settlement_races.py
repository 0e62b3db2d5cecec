"""Settlement by many workers at once: nobody is paid twice, and nobody waits in a circle."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest import mock

import psycopg
import pytest
from django.db import IntegrityError, connection

from engine.lib.sql import load
from packets import settlement
from packets.ledger import sqlstate
from packets.models import Lane
from packets.settlement import SettlementResult, settle_due, settle_lane
from tests.conftest import wait_until
from tests.factories import make_claims, make_funding, make_packet
from tests.guards import without_guard
from tests.packets.settling import (
    assert_all_paid_once,
    locked,
    one_lane,
    picture,
)

pytestmark = pytest.mark.django_db(transaction=True)


def in_threads(workers: int, work: Callable[[int], SettlementResult]) -> list[SettlementResult]:
    """`work(0)`, `work(1)`, … at once, each with a connection of its own."""
    start = threading.Barrier(workers)

    def run(number: int) -> SettlementResult:
        try:
            start.wait(timeout=10)
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, range(workers)))


# --- many workers ---------------------------------------------------------------------------------


def test_a_lane_that_is_taken_is_left_alone(owner_dsn: str) -> None:
    _, lane = one_lane(10)
    make_claims(lane, 4)
    before = picture()
    taken = f"SELECT 1 FROM packets_lanecursor WHERE lane_id = {lane.id} FOR UPDATE"
    with locked(owner_dsn, taken):
        assert settle_lane(lane.id) == SettlementResult(busy=True)
    assert picture() == before
    assert settle_lane(lane.id).settled == 4


def test_five_sweeps_at_once_pay_everybody_once() -> None:
    packet = make_packet(count=400, lanes=4)
    for lane in packet.lanes.all():
        make_claims(lane, 80)

    results = in_threads(5, lambda _: settle_due(limit=20))

    settle_due()
    assert sum(result.settled for result in results) <= 320
    assert sum(result.parked + result.failed for result in results) == 0
    assert_all_paid_once()


@pytest.mark.control
@pytest.mark.parametrize("again", [False, True])
def test_without_the_cursors_lock_the_reference_still_pays_once(
    monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Guards overlap here: with lock and compare-and-set gone, the unique reference is left."""
    _, lane = one_lane(100)
    make_claims(lane, 60)
    monkeypatch.setattr(
        settlement, "_LOCK_CURSOR", settlement._LOCK_CURSOR.replace("FOR UPDATE SKIP LOCKED", "")
    )
    monkeypatch.setattr(
        settlement,
        "_MOVE_CURSOR",
        "UPDATE packets_lanecursor SET settled_count = %s"
        " WHERE lane_id = %s AND %s::bigint IS NOT NULL",
    )
    meeting = threading.Barrier(4)
    really_move = settlement._move

    def move_together(*arguments: Any) -> SettlementResult:
        meeting.wait(timeout=10)
        return really_move(*arguments)

    monkeypatch.setattr(settlement, "_move", move_together)

    def work(_: int) -> SettlementResult:
        try:
            return settlement._batch(lane.id, 1, 60, again)
        except IntegrityError as error:
            assert sqlstate(error) == settlement._TAKEN
            return SettlementResult(failed=1)

    results = in_threads(4, work)

    # All four were at the same claims, which the lock would have prevented …
    assert [result.busy for result in results] == [False] * 4
    # … and one of them paid. The others were refused, or passed over what was there.
    assert sorted(result.settled for result in results) == [0, 0, 0, 60]
    assert sum(result.failed for result in results) == (0 if again else 3)
    assert_all_paid_once()


# --- dense wallets: everybody's batch meets everybody's -------------------------------------------

WORKERS = 6
PEOPLE = 120
ROUNDS = 3
ACCOUNTS = 30 * PEOPLE  # as many as make it cheaper to look a few of them up than to walk them all


# An UPDATE locks in the order of its plan, and sessions keep plans of their own: one that planned
# when the accounts were few walks them otherwise than one that planned when they were many. Here
# half of the workers sort what they move, and half of them hash it.
PLANS = (
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;"
    " SET enable_hashagg = off",
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off;"
    " SET enable_sort = off",
)


@pytest.fixture
def install(owner_dsn: str, superuser_dsn: str) -> Iterator[Callable[[str], None]]:
    """Installs another text of ledger.sql, and the right one afterwards.

    Deadlocks are looked for after 50 ms, so that a control full of them doesn't take minutes.
    """
    text = load("packets", "ledger.sql")
    role = "ALTER ROLE laisee_app"

    def run(dsn: str, sql: str) -> None:
        connection.close()
        with psycopg.connect(dsn) as link:
            link.execute(sql)

    run(superuser_dsn, f"{role} SET deadlock_timeout = '50ms'")
    yield partial(run, owner_dsn)
    run(owner_dsn, text)
    run(superuser_dsn, f"{role} RESET deadlock_timeout")


def settle_dense() -> list[str]:
    """Six packets' lanes over the same few wallets, settled at once; what made them try again."""
    funding = make_funding()
    crowd = [bytes([number]) * 16 for number in range(PEOPLE)]
    lanes: list[Lane] = []
    for seed in range(WORKERS):
        _, lane = one_lane(PEOPLE * ROUNDS, funding=funding)
        lanes.append(lane)
        for serial in range(ROUNDS):
            # Each lane has the wallets in an order of its own.
            order = random.Random(seed * 100 + serial).sample(crowd, PEOPLE)
            make_claims(lane, PEOPLE, participants=order, serial=serial)

    def work(number: int) -> SettlementResult:
        with connection.cursor() as cursor:
            cursor.execute(PLANS[number % len(PLANS)])
        total = SettlementResult()
        while True:
            done = settle_lane(lanes[number].id, limit=PEOPLE // 2)
            total += done
            if not done.left:
                return total

    with mock.patch.object(settlement, "log") as log:
        results = in_threads(WORKERS, work)
    assert sum(result.settled for result in results) == WORKERS * PEOPLE * ROUNDS
    assert_all_paid_once()
    return [call.kwargs["sqlstate"] for call in log.warning.call_args_list]


def test_dense_wallets_never_deadlock(install: Callable[[str], None]) -> None:
    assert [settle_dense() for _ in range(2)] == [[], []]


def locked_before(middle: int, owner_dsn: str, superuser_dsn: str) -> tuple[set[int], set[int]]:
    """What a batch has locked when it comes to the `middle` wallet: (its wallets, those locked).

    The batch hashes what it moves, so that the order of its plan is nobody's.
    """
    packet, _ = one_lane(PEOPLE)
    with psycopg.connect(owner_dsn) as link:
        wallets = [
            row[0]
            for row in link.execute(
                "INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen,"
                " created_at) SELECT 'wallet', md5(n::text), %s, 0, 0, now()"
                " FROM generate_series(1, %s) AS n RETURNING id",
                (packet.currency, ACCOUNTS),
            )
        ][:: ACCOUNTS // PEOPLE]

    def move() -> None:
        with psycopg.connect(owner_dsn) as link:
            link.execute(PLANS[1])
            link.execute(
                "INSERT INTO packets_transfer (reference, kind, debit_account_id,"
                " credit_account_id, currency, amount_fen) SELECT 'order:' || id, 'settle', %s,"
                " id, %s, 1 FROM unnest(%s::bigint[]) AS id",
                (packet.escrow_id, packet.currency, wallets),
            )
            link.rollback()

    with ThreadPoolExecutor(1) as pool:
        # Not FOR UPDATE: the foreign keys' checks would wait for that, in an order of their own.
        held = f"SELECT 1 FROM packets_account WHERE id = {wallets[middle]} FOR NO KEY UPDATE"
        with locked(owner_dsn, held):
            moving = pool.submit(move)
            wait_until(lambda: waiting_transfers(superuser_dsn) == 1, 20, "the batch to wait")
            with psycopg.connect(owner_dsn) as link:
                free = link.execute(
                    "SELECT id FROM packets_account WHERE id = ANY (%s)"
                    " FOR NO KEY UPDATE SKIP LOCKED",
                    (wallets,),
                ).fetchall()
        moving.result(timeout=20)
    return set(wallets), set(wallets) - {row[0] for row in free}


def waiting_transfers(dsn: str) -> int:
    with psycopg.connect(dsn) as link:
        row = link.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%INSERT INTO packets_transfer%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_accounts_are_locked_in_the_order_of_their_ids(owner_dsn: str, superuser_dsn: str) -> None:
    wallets, taken = locked_before(PEOPLE // 2, owner_dsn, superuser_dsn)
    assert taken == set(sorted(wallets)[: PEOPLE // 2 + 1])


@pytest.mark.control
def test_without_the_accounts_order_the_plan_decides(
    install: Callable[[str], None], owner_dsn: str, superuser_dsn: str
) -> None:
    """Two such batches with plans of their own wait for each other."""
    install(without_guard(load("packets", "ledger.sql"), "account_order"))
    wallets, taken = locked_before(PEOPLE // 2, owner_dsn, superuser_dsn)
    assert taken != set(sorted(wallets)[: PEOPLE // 2 + 1])
