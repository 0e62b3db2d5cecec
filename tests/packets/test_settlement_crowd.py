"""Settlement by four worker processes over the same few wallets, and over a million claims."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connection

from engine.lib.sql import load
from packets.invariants import invariants_check
from packets.models import Account, Claim, ClaimState, Lane, Transfer
from tests.conftest import wait_until
from tests.factories import make_claims, make_funding, make_packet
from tests.guards import without_guard
from tests.packets.settling import (
    Workers,
    assert_all_paid_once,
    locked,
    one_lane,
    refuse_money,
    total,
)

pytestmark = pytest.mark.django_db(transaction=True)

DEADLOCK = "40P01"
WORKERS = 4
LANES = 2 * WORKERS
PEOPLE = 125
BATCH = 100  # of a lane's claims: most of the people, in an order of its own
# A worker's memory may grow by so much while it settles a quarter of a million claims.
GROWTH_MAX_KIB = 4 * 1024
NIGHTLY = (pytest.mark.nightly, pytest.mark.timeout(600))


@pytest.fixture(scope="module")
def workers(django_db_setup: None) -> Iterator[Workers]:
    made = Workers(WORKERS)
    yield made
    made.close()


def crowd(claims: int) -> list[Lane]:
    """Lanes of as many packets, all claimed by the same people, each in an order of its own."""
    funding = make_funding()
    people = [bytes([number]) * 16 for number in range(PEOPLE)]
    lanes = []
    for seed in range(LANES):
        _, lane = one_lane(claims // LANES, funding=funding)
        lanes.append(lane)
        for serial in range(claims // LANES // PEOPLE):
            order = random.Random(f"{seed}:{serial}").sample(people, PEOPLE)
            make_claims(lane, PEOPLE, participants=order, serial=serial)
    assert Claim.objects.count() == claims
    return lanes


@pytest.mark.parametrize("claims", [5_000, pytest.param(100_000, marks=NIGHTLY)])
def test_four_workers_over_the_same_wallets_never_deadlock(workers: Workers, claims: int) -> None:
    crowd(claims)
    results = workers.settle(BATCH)
    assert [result["again"].get(DEADLOCK, 0) for result in results] == [0] * WORKERS
    assert (total(results, "parked"), total(results, "failed")) == (0, 0)
    assert total(results, "settled") == claims
    assert_all_paid_once()
    assert Account.objects.filter(kind="wallet").count() == PEOPLE


def test_one_refusing_wallet_keeps_nobody_else_waiting(workers: Workers, owner_dsn: str) -> None:
    lanes = crowd(1_000)
    mallory = bytes([37]) * 16
    hers = Claim.objects.filter(participant=mallory)
    assert hers.count() == len(lanes)
    refuse_money(owner_dsn, mallory)
    try:
        results = workers.settle(BATCH)
    finally:
        refuse_money(owner_dsn, None)
    assert total(results, "failed") == 0
    assert (total(results, "settled"), total(results, "parked")) == (992, 8)
    parked = ClaimState.objects.filter(state="parked")
    assert set(parked.values_list("claim_id")) == set(hers.values_list("id"))
    paid = Account.objects.filter(kind="wallet", credits_fen__gt=0)
    others = [who for who in (bytes([number]) * 16 for number in range(PEOPLE)) if who != mallory]
    assert dict(paid.values_list("owner", "credits_fen")) == {who.hex(): 800 for who in others}
    report = invariants_check()
    assert report.holds, report.checks


# --- two batches that meet ------------------------------------------------------------------------

# An UPDATE locks in the order of its plan: one session sorts what it moves, the other hashes it.
ASCENDING = "SET enable_hashagg = off; SET enable_incremental_sort = off"
HASHED = "SET enable_sort = off"
TRIES = 4  # a hash may happen to begin with the first wallets: once in sixty


def meet(owner_dsn: str, superuser_dsn: str) -> bool:
    """Two batches over the same wallets, brought to where each has locked some; whether they can
    only end by a deadlock.

    The first one has the first wallet and waits for the second one, which somebody else holds.
    The other one takes what it comes to until it needs one of those two. Then the somebody leaves.
    """
    packet, _ = one_lane(PEOPLE * 2)
    wallets = sorted(
        account.pk
        for account in Account.objects.bulk_create(
            Account(kind=Account.Kind.WALLET, owner=f"{packet.id.hex}{number:04}")
            for number in range(PEOPLE)
        )
    )
    other, _ = one_lane(PEOPLE * 2)
    ended = threading.Event()

    def move(plan: str, escrow_id: int | None, name: str) -> bool:
        with psycopg.connect(owner_dsn, application_name=name) as link:
            link.execute("SET lock_timeout = '30s'; SET statement_timeout = '60s'")
            link.execute(plan)
            try:
                link.execute(
                    "INSERT INTO packets_transfer (reference, kind, debit_account_id,"
                    " credit_account_id, currency, amount_fen) SELECT %s || id, 'settle', %s,"
                    " id, %s, 1 FROM unnest(%s::bigint[]) AS id",
                    (f"{name}:{packet.id.hex}:", escrow_id, packet.currency, wallets),
                )
            except psycopg.errors.DeadlockDetected:
                return True
            finally:
                link.rollback()
                ended.set()
        return False

    held = f"SELECT 1 FROM packets_account WHERE id = {wallets[1]} FOR NO KEY UPDATE"
    with ThreadPoolExecutor(2) as pool:
        with locked(owner_dsn, held):
            first = pool.submit(move, ASCENDING, packet.escrow_id, "first")
            wait_until(lambda: waiting(superuser_dsn, "first"), 20, "the first batch to wait")
            second = pool.submit(move, HASHED, other.escrow_id, "second")
            wait_until(lambda: waiting(superuser_dsn, "second"), 20, "the second batch to wait")
            assert not ended.is_set()
        return [first.result(timeout=60), second.result(timeout=60)].count(True) > 0


def waiting(dsn: str, name: str) -> bool:
    with psycopg.connect(dsn) as link:
        row = link.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND wait_event_type = 'Lock'",
            [name],
        ).fetchone()
    return row == (1,)


def test_two_batches_that_meet_wait_in_one_order(owner_dsn: str, superuser_dsn: str) -> None:
    assert [meet(owner_dsn, superuser_dsn) for _ in range(TRIES)] == [False] * TRIES


@pytest.mark.control
def test_without_the_accounts_order_they_deadlock(owner_dsn: str, superuser_dsn: str) -> None:
    text = load("packets", "ledger.sql")

    def install(sql: str) -> None:
        connection.close()
        with psycopg.connect(owner_dsn) as link:
            link.execute(sql)

    install(without_guard(text, "account_order"))
    try:
        assert any(meet(owner_dsn, superuser_dsn) for _ in range(TRIES))
    finally:
        install(text)


# --- a million ------------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_million_claims_are_settled_with_flat_memory(workers: Workers, owner_dsn: str) -> None:
    claims, portion_fen = 1_000_000, 100
    funding = make_funding(claims * portion_fen)
    with psycopg.connect(owner_dsn, autocommit=True) as link:
        for _ in range(WORKERS):
            lane = make_packet(count=claims // WORKERS, funding=funding).lanes.get()
            for begin in range(0, claims // WORKERS, 1_000):
                # Everybody claims twice, in two of the packets.
                won = link.execute(
                    "SELECT count(*) FROM (SELECT array_agg(substring("
                    "  sha256(int8send(n + %(people)s)) FOR 16) ORDER BY n) AS people,"
                    " array_agg(n ORDER BY n) AS indexes"
                    " FROM generate_series(%(begin)s::bigint, %(begin)s + 999) AS n) AS asked,"
                    " laisee_commit_claims(%(lane)s, people, array_fill(0, ARRAY[1000]),"
                    " array_fill(1::bigint, ARRAY[1000]), indexes,"
                    " array_fill(100::bigint, ARRAY[1000]), array_fill(0::smallint, ARRAY[1000]))"
                    " WHERE verdict = 'won'",
                    {"lane": lane.pk, "begin": begin, "people": lane.pk % 2 * claims},
                ).fetchone()
                assert won == (1_000,)

    results = workers.settle(1_000)

    assert total(results, "settled") == claims
    assert (total(results, "parked"), total(results, "failed")) == (0, 0)
    assert Transfer.objects.filter(kind="settle").count() == claims
    for result in results:
        seen = result["memory_kib"]
        early = seen[len(seen) // 10]
        print(f"{result['settled']} claims, {early} KiB early, {max(seen)} KiB at most")
        assert max(seen) - early < GROWTH_MAX_KIB
    report = invariants_check(limit_ms=300_000)
    assert report.holds, report.checks
    print(f"invariants of {claims} settled claims: {report.took_ms} ms")
