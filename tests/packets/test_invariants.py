"""Each invariant holds on a sound story, and turns red when exactly what it guards is corrupted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from django.core.management import call_command
from django.db import connection

from engine.lib.audit import audit_record
from engine.lib.redis import stock as stock_client
from packets import invariants, ledger, recovery, services, settlement
from packets.invariants import (
    QUESTIONS,
    AuditUnfinished,
    Verdict,
    invariants_check,
    questions,
    questions_sql,
)
from packets.models import Account, Claim, Lane, LaneEpoch, Packet, Transfer
from packets.payouts import sending
from tests import world
from tests.conftest import clean_tables
from tests.factories import make_claims, make_funding, make_packet
from tests.packets.payouts.stage import ACCEPTED, PAID, Rail, payout_of, provider_account, use

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Story:
    """A campaign with a packet of two lanes, partly claimed and settled, and one that is closed."""

    open: Packet
    closed: Packet
    lane: Lane  # of the open packet: 6 claims, all settled
    other_lane: Lane  # 4 claims, 2 of them settled


@pytest.fixture
def story() -> Story:
    funding = make_funding(10_000)
    packet = make_packet(count=20, portion_fen=100, lanes=2, funding=funding)
    lane, other_lane = packet.lanes.order_by("number")
    make_claims(lane, 6)
    make_claims(other_lane, 4)
    settlement.settle_lane(lane.id)
    settlement.settle_lane(other_lane.id, limit=2)
    closed = make_packet(count=5, portion_fen=100, funding=funding)
    make_claims(closed.lanes.get(), 2)
    settlement.settle_lane(closed.lanes.get().id)
    closed = services.packet_close(packet_id=closed.id, actor="test")
    audit_record(actor="test", action="look", object_type="packet", object_id=packet.id.hex)
    return Story(packet, closed, lane, other_lane)


@pytest.fixture
def corrupt(superuser_dsn: str, story: Story) -> Iterator[Callable[..., None]]:
    """`corrupt(sql, …, without=[(table, constraint)])`: as nobody should be able to.

    Triggers and foreign keys look away; CHECKs and unique keys named in `without` are taken off,
    and put back after the test, once its rows are gone.
    """
    removed: list[tuple[str, str, str]] = []

    def run(*statements: str, without: list[tuple[str, str]] | None = None) -> None:
        connection.close()
        with psycopg.connect(superuser_dsn) as link:
            for table, constraint in without or []:
                row = link.execute(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                    " WHERE conrelid = %s::regclass AND conname = %s",
                    [table, constraint],
                ).fetchone()
                assert row is not None, constraint
                removed.append((table, constraint, str(row[0])))
                link.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint} CASCADE")
            link.execute("SET session_replication_role = replica")
            for statement in statements:
                assert link.execute(statement).rowcount != 0, statement

    yield run
    connection.close()
    with psycopg.connect(superuser_dsn) as link:
        clean_tables(link)
        link.execute("SET session_replication_role = origin")
        for table, constraint, definition in removed:
            link.execute(f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}")


def audit_money() -> tuple[int, set[str]]:
    """The real command: its exit code, and the checks that it calls broken."""
    out = io.StringIO()
    code: Any = 0
    try:
        call_command("audit_money", "--json", stdout=out)
    except SystemExit as stop:
        code = stop.code
    report = orjson.loads(out.getvalue())
    assert report["holds"] is (code == 0)
    return code, {check["name"] for check in report["checks"] if check["verdict"] == "broken"}


# --- a sound story --------------------------------------------------------------------------------


def test_a_sound_story_is_green(story: Story) -> None:
    report = invariants_check()
    assert [check for check in report.checks if check.verdict is not Verdict.HOLDS] == []
    assert report.holds
    assert audit_money() == (0, set())


def test_an_empty_house_is_green() -> None:
    report = invariants_check()
    assert report.holds
    assert report.totals == []
    assert report.progress.claims == 0


def test_a_packet_with_a_past_is_green() -> None:
    """Claimed through the real door, its stock lost and rebuilt, settled half-way, closed."""
    packet = world.open_packet(20_000, 40, strategy="tiers", tiers=[(5_000, 1)], lane_count=3)
    for number in range(12):
        world.claim(packet, f"early{number}")
    stock_client().flushdb()
    for lane in Lane.objects.filter(packet=packet):
        recovery.rebuild(stock_client(), lane_id=lane.id, seen_epoch=lane.epoch)
    for number in range(12):
        world.claim(packet, f"late{number}")
        if number == 6:
            settlement.settle_due(limit=3)
    assert LaneEpoch.objects.count() > 3
    assert invariants_check().holds

    services.packet_close(packet_id=packet.id, actor="test")
    assert invariants_check().holds

    settlement.settle_due()
    report = invariants_check()
    assert report.holds
    assert report.progress.claims == report.progress.settled == Claim.objects.count() > 12
    assert report.totals[0].escrow_fen == 0


def test_the_totals_say_where_the_money_is(story: Story) -> None:
    report = invariants_check()
    [totals] = report.totals
    assert (totals.funded_fen, totals.returned_fen) == (10_000, 0)
    assert totals.campaigns_fen == 10_000 - 2_000 - 500 + 300
    assert totals.escrow_fen == 2_000 - 800
    assert totals.wallets_fen == 800 + 200
    assert (totals.held_fen, totals.clearing_fen) == (0, 0)
    progress = report.progress
    assert (progress.claims, progress.claimed_fen) == (12, 1_200)
    assert (progress.settled, progress.parked, progress.waiting) == (10, 0, 2)
    assert progress.lag_s > 0


def test_money_that_went_back_outside(story: Story) -> None:
    campaign = Account.objects.get(kind="campaign")
    outside = ledger.external_account()
    ledger.post([ledger.Entry("refund:x", Transfer.Kind.REFUND, campaign.id, outside.id, 5_000)])
    report = invariants_check()
    assert report.holds
    assert report.totals[0].returned_fen == 5_000


def claims_meanwhile(story: Story) -> Callable[[], float]:
    """A clock for the checks: each time it's read, somebody else claims and settlement runs."""

    def claim_and_settle() -> None:
        try:
            if Claim.objects.filter(lane=story.lane).count() < story.lane.count:
                make_claims(story.lane, 1)
            settlement.settle_due()
        finally:
            connection.close()

    def clock() -> float:
        with ThreadPoolExecutor(1) as other:
            other.submit(claim_and_settle).result(timeout=10)
        return 0.0

    return clock


def test_a_report_is_one_moment(story: Story) -> None:
    report = invariants_check(clock=claims_meanwhile(story))
    assert report.holds
    # The clock is read twice before the first query takes the snapshot; later claims don't show.
    assert report.progress.claims == 14
    assert Claim.objects.count() > 14


@pytest.mark.control
def test_without_one_snapshot_a_report_is_several_moments(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "SNAPSHOT", "SET TRANSACTION READ ONLY")
    report = invariants_check(clock=claims_meanwhile(story))
    assert report.progress.claims > 14


def test_it_stops_when_its_time_is_over(story: Story) -> None:
    with pytest.raises(AuditUnfinished, match="within 0 ms"):
        invariants_check(limit_ms=0)
    times = iter([0.0, 0.0] + [99.0] * 100)
    with pytest.raises(AuditUnfinished):
        invariants_check(limit_ms=1_000, clock=lambda: next(times))
    with pytest.raises(SystemExit) as stop:
        call_command("audit_money", "--limit-s", "0", stderr=io.StringIO())
    assert stop.value.code == 2


def test_every_question_is_asked_somewhere() -> None:
    text = "\n".join(questions_sql().values())
    assert [question.name for question in questions() if f"'{question.name}'" not in text] == []
    assert len({question.name for question in questions()}) == len(questions())


# --- each corruption, and the check that sees it --------------------------------------------------

LANE = "(SELECT min(id) FROM packets_lane)"
CLAIM = "(SELECT id FROM packets_claim WHERE position = 1 ORDER BY lane_id LIMIT 1)"
CLOSED = "(SELECT id FROM packets_packet WHERE state = 'closed')"
OPEN = "(SELECT id FROM packets_packet WHERE state = 'open')"
SETTLE = "(SELECT min(id) FROM packets_transfer WHERE kind = 'settle')"
WALLET = "(SELECT min(id) FROM packets_account WHERE kind = 'wallet')"

# name → (statements, constraints in the way, every check that turns red: the named one, and those
# that look at the same rows from another side)
CORRUPTIONS: dict[str, tuple[list[str], list[tuple[str, str]], set[str]]] = {
    "lane_caps": (
        [f"UPDATE packets_lane SET claimed_fen = total_fen + 1 WHERE id = {LANE}"],
        [("packets_lane", "lane_cap_fen")],
        {"lane_counters", "epoch_starts"},
    ),
    "lane_counters": (
        [f"UPDATE packets_lane SET claimed_fen = claimed_fen + 1 WHERE id = {LANE}"],
        [],
        {"epoch_starts"},
    ),
    "escrow_balance": (
        # The remainder of a closed packet went to somebody else.
        [
            f"UPDATE packets_transfer SET credit_account_id = {WALLET}, kind = 'fund'"
            " WHERE kind = 'close'"
        ],
        [],
        {"returned_once", "account_sums", "kinds_fit"},
    ),
    "lanes_in_packet": (
        [
            f"UPDATE packets_lane SET total_fen = total_fen + 1 WHERE id = {LANE}",
            f"UPDATE packets_laneepoch SET left_fen = left_fen + 1 WHERE lane_id = {LANE}",
        ],
        [],
        {"escrow_balance"},
    ),
    "packet_funded": (
        ["UPDATE packets_transfer SET kind = 'fund' WHERE kind = 'open'"],
        [],
        {"kinds_fit"},
    ),
    "campaign_covers": (
        ["UPDATE packets_transfer SET kind = 'grow' WHERE kind = 'fund'"],
        [],
        {"kinds_fit"},
    ),
    "conservation": (
        [f"UPDATE packets_account SET credits_fen = credits_fen + 1 WHERE id = {WALLET}"],
        [],
        {"account_sums"},
    ),
    "account_sums": (
        [
            f"UPDATE packets_account SET credits_fen = credits_fen + 1, debits_fen = debits_fen + 1"
            f" WHERE id = {WALLET}"
        ],
        [],
        set(),
    ),
    "transfers_sound": (
        [
            f"UPDATE packets_transfer SET debit_account_id = credit_account_id WHERE id = {SETTLE}",
        ],
        [("packets_transfer", "transfer_two_accounts")],
        {"account_sums", "settled_paid", "escrow_balance", "kinds_fit"},
    ),
    "kinds_fit": (
        [f"UPDATE packets_transfer SET kind = 'fund' WHERE id = {SETTLE}"],
        [],
        {"settled_paid", "escrow_balance"},
    ),
    "one_currency": (
        [f"UPDATE packets_transfer SET currency = 'HKD' WHERE id = {SETTLE}"],
        [],
        {"settled_paid"},
    ),
    "not_overdrawn": (
        [f"UPDATE packets_account SET debits_fen = credits_fen + 1 WHERE id = {WALLET}"],
        [("packets_account", "account_not_overdrawn")],
        {"account_sums", "conservation"},
    ),
    "one_claim_each": (
        # A second claim of the first person, in place of the second person's.
        [
            "UPDATE packets_claim AS claim SET participant = first.participant"
            f"  FROM packets_claim AS first WHERE first.id = {CLAIM}"
            "   AND claim.lane_id = first.lane_id AND claim.position = 2"
        ],
        [],
        {"claim_ids", "settled_paid"},
    ),
    "claim_ids": (
        [f"UPDATE packets_claim SET serial = 7 WHERE id = {CLAIM}"],
        [],
        set(),
    ),
    "tickets_issued": (
        [
            "UPDATE packets_packet SET needs_ticket = true"
            f" WHERE id = (SELECT packet_id FROM packets_claim WHERE id = {CLAIM})"
        ],
        [],
        set(),
    ),
    "home_lanes": (
        ["UPDATE packets_packet SET home_key = 'another home key'"],
        [],
        set(),
    ),
    "portion_once": (
        [f"UPDATE packets_claim SET index = 0 WHERE lane_id = {LANE} AND position = 2"],
        [("packets_claim", "claim_index_once")],
        set(),
    ),
    "positions": (
        [f"UPDATE packets_claim SET position = 7 WHERE lane_id = {LANE} AND position = 6"],
        [],
        {"claims_dealt"},
    ),
    "epochs_known": (
        [f"UPDATE packets_claim SET index = 1000 WHERE id = {CLAIM}"],
        [],
        set(),
    ),
    "epoch_order": (
        # Epoch 2 was opened after three claims; one of epoch 1 was committed after epoch 2's first.
        [
            "INSERT INTO packets_laneepoch"
            " (lane_id, epoch, left_fen, left_count, tiers_left, cause)"
            f" VALUES ({LANE}, 2, 700, 7, '[]', 'rebuilt')",
            f"UPDATE packets_lane SET epoch = 2 WHERE id = {LANE}",
            f"UPDATE packets_claim SET epoch = 2 WHERE lane_id = {LANE} AND position IN (3, 5, 6)",
        ],
        [],
        set(),
    ),
    "epoch_starts": (
        [f"UPDATE packets_laneepoch SET left_fen = left_fen - 1 WHERE lane_id = {LANE}"],
        [],
        set(),
    ),
    "cursors": (
        [f"DELETE FROM packets_lanecursor WHERE lane_id = {LANE}"],
        [],
        {"claims_dealt"},
    ),
    "claims_dealt": (
        [f"UPDATE packets_lanecursor SET settled_count = 5 WHERE lane_id = {LANE}"],
        [],
        set(),
    ),
    "settled_paid": (
        [
            # Two wallets' transfers of the same amount change places.
            "UPDATE packets_claimstate AS state SET transfer_id = -state.transfer_id"
            f" WHERE state.claim_id = {CLAIM}",
        ],
        [],
        {"paid_settled"},
    ),
    "states_claimed": (
        [
            "INSERT INTO packets_claimstate (claim_id, state, reason)"
            " VALUES (gen_random_uuid(), 'parked', '')",
        ],
        [],
        set(),
    ),
    "paid_settled": (
        [
            f"DELETE FROM packets_claimstate WHERE claim_id = {CLAIM}",
        ],
        [],
        {"claims_dealt"},
    ),
    "claim_states": (
        [f"UPDATE packets_claimstate SET state = 'parked' WHERE claim_id = {CLAIM}"],
        [("packets_claimstate", "claimstate_has_transfer")],
        {"paid_settled"},
    ),
    "closed_for_good": (
        [f"UPDATE packets_lane SET state = 'open' WHERE packet_id = {CLOSED}"],
        [],
        {"returned_once"},
    ),
    "returned_once": (
        ["DELETE FROM packets_transfer WHERE kind = 'close'"],
        [],
        {"escrow_balance", "account_sums"},
    ),
    "payout_begun": (
        ["UPDATE packets_payout SET amount_fen = amount_fen + 1 WHERE state = 'paid'"],
        [],
        {"payout_ended"},
    ),
    "payout_ended": (
        # Paid, and its money came back to the wallet as well.
        [
            "UPDATE packets_transfer SET kind = 'payback', credit_account_id ="
            " (SELECT wallet_id FROM packets_payout WHERE state = 'paid') WHERE kind = 'paid'"
        ],
        [],
        {"account_sums", "conservation"},
    ),
    "payout_numbers": (
        ["UPDATE packets_payoutnumber SET state = 'paid', ended_at = now() WHERE state = 'live'"],
        [],
        set(),
    ),
    "payout_watched": (
        [
            "UPDATE packets_payout SET first_submitted_at = now() - interval '3 days'"
            " WHERE state = 'accepted'"
        ],
        [],
        set(),
    ),
    "clearing_balance": (
        [
            "UPDATE packets_payout SET amount_fen = amount_fen - 1 WHERE state = 'accepted'",
            "UPDATE packets_transfer SET amount_fen = amount_fen - 1 WHERE id ="
            " (SELECT max(id) FROM packets_transfer WHERE kind = 'payout')",
        ],
        [],
        {"account_sums"},
    ),
    "audit_chain": (
        ["UPDATE engine_auditevent SET actor = 'nobody' WHERE id = 1"],
        [],
        set(),
    ),
    "fits_lua": (
        [f"UPDATE packets_packet SET max_fen = 9007199254740992 WHERE id = {OPEN}"],
        [],
        set(),
    ),
}


@pytest.fixture
def payouts(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two wallets of the story: one paid out, one on its way."""
    paid, waiting = Account.objects.filter(kind="wallet").order_by("id")[:2]
    account = provider_account()
    rail = use(monkeypatch, Rail().says(PAID, ACCEPTED))
    payout_of(account, wallet=paid, amount_fen=60)
    payout_of(account, wallet=waiting, amount_fen=50)
    assert sending.payout_step() and sending.payout_step()
    assert rail.steps == ["submit", "submit"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_turns_red(story: Story, payouts: None, corrupt: Callable[..., None], name: str) -> None:
    assert audit_money() == (0, set())
    statements, constraints, also = CORRUPTIONS[name]
    corrupt(*statements, without=constraints)
    code, broken = audit_money()
    assert (code, broken) == (1, {name} | also)


@pytest.mark.parametrize(
    ("table", "trigger"),
    [
        ("packets_transfer", "ledger_apply"),
        ("packets_claim", "claim_insert_only"),
        ("engine_auditevent", "audit_append_only"),
    ],
)
def test_guards_in_place_turns_red(story: Story, owner_dsn: str, table: str, trigger: str) -> None:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
        try:
            assert audit_money() == (1, {"guards_in_place"})
        finally:
            owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}")
    assert audit_money() == (0, set())


def test_whole_fen_turns_red(owner_dsn: str) -> None:
    with psycopg.connect(owner_dsn, autocommit=True) as owner:
        owner.execute("ALTER TABLE packets_packet ADD COLUMN tip_fen double precision")
        try:
            assert audit_money() == (1, {"whole_fen"})
        finally:
            owner.execute("ALTER TABLE packets_packet DROP COLUMN tip_fen")


def test_every_question_has_been_turned_red() -> None:
    from tests.campaign import test_disclosures
    from tests.packets import test_invariants_holds
    from tests.packets.reconciling import test_books

    by_hand = {
        "guards_in_place", "whole_fen", *test_books.TURNED_RED, *test_disclosures.TURNED_RED
    }  # fmt: skip
    elsewhere = test_invariants_holds.CORRUPTIONS.keys()
    assert {question.name for question in QUESTIONS} == CORRUPTIONS.keys() | by_hand | elsewhere


def test_an_audit_log_cut_off_at_its_end(corrupt: Callable[..., None]) -> None:
    corrupt("DELETE FROM engine_auditevent WHERE id = (SELECT max(id) FROM engine_auditevent)")
    assert audit_money() == (1, {"audit_chain"})


def test_the_command_in_a_process_of_its_own(corrupt: Callable[..., None]) -> None:
    def run() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "manage.py", "audit_money"],
            cwd=ROOT,
            env=os.environ.copy(),
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    code, printed = run()
    assert code == 0
    assert f"money check: all {len(questions())} checks hold" in printed
    assert "CNY: funded ¥100.00 = campaigns ¥78.00 + escrow ¥12.00 + wallets ¥10.00" in printed
    assert "claims 12 · settled 10 · parked 0 · waiting 2" in printed

    corrupt(f"UPDATE packets_account SET credits_fen = credits_fen + 1 WHERE id = {WALLET}")
    code, printed = run()
    assert code == 1
    assert f"money check: 2 of {len(questions())} checks are broken" in printed
    assert "conservation" in printed
