"""What the application's database role may not do, and that it can do its work all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from packets import settlement
from packets.models import Account, Claim, ClaimState, Lane, LaneEpoch, Payout, Transfer
from tests.factories import make_claims, make_packet
from tests.packets.payouts.stage import payout_of, provider_account

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent.parent
App = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def app(app_dsn: str) -> Iterator[App]:
    with psycopg.connect(app_dsn) as link:
        yield link
        link.rollback()


@pytest.fixture
def paid() -> Claim:
    """A claim that was committed and settled with the application's rights alone."""
    lane = make_packet(count=5).lanes.get()
    [claim] = make_claims(lane, 1)
    assert settlement.settle_lane(lane.id).settled == 1
    return claim


def grant_app_rights() -> str:
    """The real command in a process of its own; `manage.py` makes it the owner's."""
    done = subprocess.run(
        [sys.executable, "manage.py", "grant_app_rights"],
        cwd=ROOT,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def picture() -> tuple[object, ...]:
    return tuple(
        list(model.objects.order_by("pk").values_list())
        for model in (Account, Transfer, Claim, ClaimState, Lane, LaneEpoch)
    )


def test_a_claim_and_its_settlement_need_no_more(app: App, paid: Claim) -> None:
    row = app.execute("SELECT current_user, pg_has_role('laisee_owner', 'MEMBER')").fetchone()
    assert row == ("laisee_app", False)
    assert ClaimState.objects.get(claim=paid).state == "settled"
    wallet = Account.objects.get(kind="wallet", owner=bytes(paid.participant).hex())
    assert wallet.balance_fen == 100


FORBIDDEN = [
    "UPDATE packets_transfer SET amount_fen = 1",
    "DELETE FROM packets_transfer",
    "TRUNCATE packets_transfer CASCADE",
    "UPDATE packets_claim SET amount_fen = 1",
    "DELETE FROM packets_claim",
    "TRUNCATE packets_claim CASCADE",
    "INSERT INTO packets_claim SELECT * FROM packets_claim",
    "UPDATE packets_lane SET claimed_fen = 0, claimed_count = 0",
    "UPDATE packets_lane SET total_fen = total_fen + 1",
    "DELETE FROM packets_lane",
    "UPDATE packets_laneepoch SET left_fen = 1",
    "DELETE FROM packets_laneepoch",
    "UPDATE packets_account SET credits_fen = credits_fen + 1",
    "DELETE FROM packets_account",
    "DELETE FROM packets_claimstate",
    "DELETE FROM packets_lanecursor",
    "UPDATE packets_hold SET amount_fen = 1",
    "UPDATE packets_hold SET wallet_id = funder_id, state = 'released', resolved_at = now()",
    "DELETE FROM packets_hold",
    "UPDATE packets_riskrule SET most = 1",
    "DELETE FROM packets_riskrule",
    "UPDATE packets_holdappeal SET text_encrypted = ''",
    "DELETE FROM packets_holdappeal",
    "DELETE FROM packets_payout",
    "TRUNCATE packets_payout CASCADE",
    "UPDATE packets_payoutnumber SET number = 'another'",
    "UPDATE packets_payoutnumber SET payout_id = gen_random_uuid()",
    "UPDATE packets_payoutnumber SET request_encrypted = '', request_sha256 = ''",
    "DELETE FROM packets_payoutnumber",
    "UPDATE packets_payoutcall SET kind = 'query', fence = 0",
    "UPDATE packets_payoutcall SET started_at = now()",
    "DELETE FROM packets_payoutcall",
    "DELETE FROM packets_payoutmark",
    "DELETE FROM packets_providerchange",
    "UPDATE engine_auditevent SET actor = 'nobody'",
    "DELETE FROM engine_auditevent",
    "TRUNCATE engine_auditevent",
    "INSERT INTO engine_audithead (id, last_id, hash) VALUES (2, 0, '')",
    "UPDATE engine_audithead SET last_id = 0",
    "DELETE FROM engine_audithead",
    "UPDATE engine_outboxevent SET payload = '{}'",
    "DELETE FROM engine_outboxevent",
    "UPDATE engine_webhookattempt SET status = 200",
    "DELETE FROM engine_webhookattempt",
    "DELETE FROM engine_webhookdelivery",
    "DELETE FROM django_migrations",
    # The guards themselves.
    "ALTER TABLE packets_transfer DISABLE TRIGGER ALL",
    "DROP TRIGGER transfer_insert_only ON packets_transfer",
    "ALTER TABLE packets_lane DROP CONSTRAINT lane_cap_fen",
    "CREATE OR REPLACE FUNCTION laisee_ledger_apply() RETURNS trigger LANGUAGE plpgsql"
    " AS $$ BEGIN RETURN NULL; END $$",
    "CREATE TABLE public.packets_account_too (id int)",
    "SET session_replication_role = replica",
    "SET ROLE laisee_owner",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_refused(app: App, paid: Claim, statement: str) -> None:
    before = picture()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement)
    app.rollback()
    assert picture() == before


MEANT = [
    "amount_fen = 1",
    "participant = decode(repeat('00', 16), 'hex')",
    "payee_hash = 'mallory'",
    "payee_masked = 'm***'",
    "key = 'again'",
    "created_at = now()",
    "fence = fence - 1",
    "state = 'paid', step = 'none', ended_at = now(), next_attempt_at = NULL",
]


@pytest.mark.parametrize("change", MEANT)
def test_a_payout_stays_what_was_asked_for(app: App, change: str) -> None:
    """Its state may change by the machine's ways alone: paid before it was sent is none of them."""
    payout = payout_of(provider_account(), fence=3)
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        app.execute(f"UPDATE packets_payout SET {change}")  # type: ignore[arg-type]
    app.rollback()
    assert Payout.objects.values().get() == Payout.objects.values().get(pk=payout.pk)
    assert (payout.state, Payout.objects.get().state) == ("created", "created")


def test_an_ended_call_and_number_stay_as_they_are(app: App) -> None:
    payout = payout_of(provider_account())
    number = payout.numbers.create(number="n1", request_encrypted="x", request_sha256="0" * 64)
    payout.calls.create(number=number, kind="submit", fence=1)
    app.execute("UPDATE packets_payoutcall SET ended_at = now(), result = 'unknown'")
    app.execute("UPDATE packets_payoutnumber SET ended_at = now(), state = 'failed'")
    app.commit()
    for again in (
        "UPDATE packets_payoutcall SET result = 'paid'",
        "UPDATE packets_payoutnumber SET state = 'paid'",
        "UPDATE packets_payoutnumber SET state = 'live', ended_at = NULL",
    ):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            app.execute(again)  # type: ignore[call-overload]
        app.rollback()


def test_a_wallet_cannot_be_born_rich(app: App) -> None:
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="no transfer brought"):
        app.execute(
            "INSERT INTO packets_account"
            " (kind, owner, currency, debits_fen, credits_fen, created_at)"
            " VALUES ('wallet', 'mallory', 'CNY', 0, 1000000, now())"
        )


def test_a_table_of_the_same_name_in_front_catches_nothing(app: App) -> None:
    """The owner's functions don't look where the caller's search path points."""
    lane = make_packet(count=5).lanes.get()
    before = picture()
    app.execute("CREATE TEMP TABLE packets_account (LIKE public.packets_account)")
    app.execute("SET search_path = pg_temp, public")
    app.execute(
        "INSERT INTO packets_transfer (reference, kind, debit_account_id, credit_account_id,"
        " currency, amount_fen) SELECT 'trick', 'settle', packet.escrow_id, packet.funder_id,"
        " 'CNY', 100 FROM public.packets_packet AS packet"
    )
    moved = app.execute(
        "SELECT debits_fen FROM public.packets_account WHERE kind = 'escrow'"
    ).fetchone()
    assert moved == (100,)
    app.rollback()
    assert picture() == before
    assert lane.claimed_count == 0


def test_a_right_given_by_hand_does_not_stay(app: App, owner_dsn: str, paid: Claim) -> None:
    with psycopg.connect(owner_dsn) as owner:
        owner.execute("GRANT UPDATE, TRUNCATE ON packets_transfer TO laisee_app")
    app.execute("SELECT 1 FROM packets_transfer FOR UPDATE")  # it is there
    app.rollback()

    assert "laisee_app may use" in grant_app_rights()

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SELECT 1 FROM packets_transfer FOR UPDATE")


def test_granting_again_changes_nothing(owner_dsn: str) -> None:
    def rights() -> list[tuple[object, ...]]:
        with psycopg.connect(owner_dsn) as owner:
            return owner.execute(
                "SELECT relname, relacl::text FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
            ).fetchall()

    grant_app_rights()
    before = rights()
    grant_app_rights()
    assert rights() == before
    assert not [row for row in before if "laisee_app=" in str(row[1]) and "D" in acl(str(row[1]))]


def acl(text: str) -> str:
    """The application's letters of an access list: a r w d, D for TRUNCATE."""
    return text.split("laisee_app=")[1].split("/")[0]


def test_an_application_that_is_the_owner_is_told_so(owner_dsn: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "grant_app_rights"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": owner_dsn, "MIGRATION_DATABASE_URL": owner_dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "which owns the tables" in done.stdout
