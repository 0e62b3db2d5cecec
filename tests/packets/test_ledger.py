"""The ledger: transfers move money once, and Postgres refuses everything else."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.lib.sql import load
from packets import ledger
from packets.ledger import Entry, InsufficientFunds, Posted, ReferenceReused
from packets.models import Account, ClaimState, Transfer
from tests.factories import make_claims, make_packet
from tests.guards import guards, without_guard

pytestmark = pytest.mark.django_db(transaction=True)

Owner = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def owner(owner_dsn: str) -> Iterator[Owner]:
    """The owner of the tables; what a test does as the owner is rolled back."""
    with psycopg.connect(owner_dsn) as link:
        yield link
        link.rollback()


def wallet(owner: str, currency: str = "CNY") -> Account:
    return ledger.account_get_or_create(kind=Account.Kind.WALLET, owner=owner, currency=currency)


def move(reference: str, debit: Account, credit: Account, amount_fen: int, **other: str) -> Entry:
    return Entry(reference, Transfer.Kind.SETTLE, debit.id, credit.id, amount_fen, **other)


def rich(name: str, amount_fen: int) -> Account:
    """A wallet that got its money from outside."""
    account = wallet(name)
    ledger.post([move(f"gift:{name}", ledger.external_account(), account, amount_fen)])
    return account


def picture() -> tuple[object, ...]:
    """Everything the ledger knows, to show that a refusal changed nothing."""
    accounts = Account.objects.order_by("id").values_list("id", "debits_fen", "credits_fen")
    transfers = Transfer.objects.order_by("id").values_list("id", "reference", "amount_fen")
    return tuple(accounts), tuple(transfers)


# --- moving money ---------------------------------------------------------------------------------


def test_alice_pays_bob() -> None:
    alice, bob = rich("alice", 1_000), wallet("bob")

    [posted] = ledger.post([move("lunch", alice, bob, 300)])

    assert posted == Posted("lunch", Transfer.objects.get(reference="lunch").id, created=True)
    assert ledger.balance_fen(alice.id) == 700
    assert ledger.balance_fen(bob.id) == 300
    assert ledger.balance_fen(ledger.external_account().id) == -1_000


def test_the_same_payment_again_moves_nothing() -> None:
    alice, bob = rich("alice", 1_000), wallet("bob")
    [first] = ledger.post([move("lunch", alice, bob, 300)])
    before = picture()

    [second] = ledger.post([move("lunch", alice, bob, 300)])

    assert second == Posted("lunch", first.transfer_id, created=False)
    assert picture() == before


def test_twice_in_one_call_moves_once() -> None:
    alice, bob = rich("alice", 1_000), wallet("bob")

    posted = ledger.post([move("lunch", alice, bob, 300)] * 2)

    assert [entry.created for entry in posted] == [True, False]
    assert ledger.balance_fen(bob.id) == 300


@pytest.mark.parametrize("difference", ["amount", "payer", "payee"])
def test_a_reference_stays_with_its_content(difference: str) -> None:
    alice, bob, carol = rich("alice", 1_000), wallet("bob"), rich("carol", 1_000)
    ledger.post([move("lunch", alice, bob, 300)])
    before = picture()
    other = {
        "amount": move("lunch", alice, bob, 301),
        "payer": move("lunch", carol, bob, 300),
        "payee": move("lunch", alice, carol, 300),
    }[difference]

    with pytest.raises(ReferenceReused, match="lunch"):
        ledger.post([move("tea", alice, bob, 5), other])

    assert picture() == before


def test_nobody_goes_below_zero_and_the_refusal_names_him() -> None:
    alice, bob = rich("alice", 1_000), rich("bob", 50)
    before = picture()

    with pytest.raises(InsufficientFunds) as refusal:
        ledger.post([move("one", alice, bob, 300), move("two", bob, alice, 351)])

    assert refusal.value.account_id == bob.id
    assert picture() == before


def test_a_refused_payment_leaves_the_callers_transaction_usable() -> None:
    alice, bob = rich("alice", 10), wallet("bob")
    with transaction.atomic():
        with pytest.raises(InsufficientFunds):
            ledger.post([move("too much", alice, bob, 11)])
        ledger.post([move("enough", alice, bob, 10)])
    assert ledger.balance_fen(bob.id) == 10


def test_the_outside_world_may_go_below_zero() -> None:
    rich("alice", 2**53 - 1)
    assert ledger.balance_fen(ledger.external_account().id) == -(2**53 - 1)


@pytest.mark.parametrize("amount_fen", [0, -1, 2**53])
def test_amounts_that_are_none(amount_fen: int) -> None:
    alice, bob = rich("alice", 1_000), rich("bob", 1_000)
    before = picture()
    with pytest.raises(IntegrityError, match="transfer_amount"):
        ledger.post([move("odd", alice, bob, amount_fen)])
    assert picture() == before


def test_to_oneself_is_no_transfer() -> None:
    alice = rich("alice", 1_000)
    with pytest.raises(IntegrityError, match="transfer_two_accounts"):
        ledger.post([move("circle", alice, alice, 1)])


def test_currencies_do_not_mix() -> None:
    alice, hongkong = rich("alice", 1_000), wallet("alice", "HKD")
    before = picture()
    with pytest.raises(IntegrityError, match=f"there is no account {hongkong.id} in CNY"):
        ledger.post([move("exchange", alice, hongkong, 100)])
    with pytest.raises(IntegrityError, match=f"there is no account {alice.id} in HKD"):
        ledger.post([move("exchange", alice, hongkong, 100, currency="HKD")])
    assert picture() == before


def test_accounts_that_are_not_there() -> None:
    alice, bob = rich("alice", 1_000), rich("bob", 1_000)
    before = picture()
    nobody = Account(id=10**9)
    for good_and_bad in (
        [move("to nobody", alice, nobody, 1)],
        [move("from nobody", nobody, alice, 1)],
        # A sound movement of the same accounts beside it hides nothing.
        [move("sound", alice, bob, 1), move("to nobody", bob, nobody, 1)],
        [move("sound", alice, bob, 1), move("exchange", bob, alice, 1, currency="HKD")],
    ):
        with pytest.raises(IntegrityError, match="there is no account"):
            ledger.post(good_and_bad)
        assert picture() == before


def test_one_account_of_a_kind() -> None:
    assert wallet("alice").id == wallet("alice").id
    assert wallet("alice").id != wallet("alice", "HKD").id


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 400)).filter(
                lambda step: step[0] != step[1]
            ),
            min_size=1,
            max_size=4,
        ),
        max_size=8,
    )
)
def test_any_history_adds_up(history: list[list[tuple[int, int, int]]]) -> None:
    """Against a model in plain Python: each batch moves wholly or not at all."""
    tag = f"{Transfer.objects.count()}"
    accounts = [rich(f"{tag}-{name}", 1_000) for name in range(4)]
    model = [1_000] * 4
    for number, batch in enumerate(history):
        after = list(model)
        for payer, payee, amount_fen in batch:
            after[payer] -= amount_fen
            after[payee] += amount_fen
        entries = [
            move(f"{tag}:{number}:{place}", accounts[payer], accounts[payee], amount_fen)
            for place, (payer, payee, amount_fen) in enumerate(batch)
        ]
        if min(after) >= 0:
            ledger.post(entries)
            model = after
        else:
            with pytest.raises(InsufficientFunds):
                ledger.post(entries)
        assert [ledger.balance_fen(account.id) for account in accounts] == model


# --- what even the owner of the tables can't do ---------------------------------------------------

INSERT_ONLY = [
    ("packets_transfer", "amount_fen = amount_fen + 1", "transfer_insert_only"),
    ("packets_claim", "amount_fen = amount_fen + 1", "claim_insert_only"),
    ("packets_laneepoch", "left_fen = left_fen - 1", "laneepoch_insert_only"),
]


def settled_claim() -> None:
    from packets import settlement

    lane = make_packet(count=3).lanes.get()
    make_claims(lane, 1)
    assert settlement.settle_lane(lane.id).settled == 1


@pytest.mark.parametrize(("table", "change", "trigger"), INSERT_ONLY)
def test_insert_only(owner: Owner, table: str, change: str, trigger: str) -> None:
    settled_claim()
    for statement in (f"UPDATE {table} SET {change}", f"DELETE FROM {table}"):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="insert-only"):
            owner.execute(statement)
        owner.rollback()


@pytest.mark.control
@pytest.mark.parametrize(("table", "change", "trigger"), INSERT_ONLY)
def test_without_its_trigger_the_owner_rewrites_it(
    owner: Owner, table: str, change: str, trigger: str
) -> None:
    settled_claim()
    owner.execute(f"DROP TRIGGER {trigger} ON {table}")
    assert owner.execute(f"UPDATE {table} SET {change}").rowcount > 0


def test_what_became_of_a_claim_is_said_once(owner: Owner) -> None:
    settled_claim()
    for statement in (
        "UPDATE packets_claimstate SET state = 'parked', transfer_id = NULL",
        "UPDATE packets_claimstate SET reason = 'hm'",
        "DELETE FROM packets_claimstate",
    ):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="is said once"):
            owner.execute(statement)
        owner.rollback()
    owner.execute("DROP TRIGGER claimstate_once ON packets_claimstate")
    assert owner.execute("DELETE FROM packets_claimstate").rowcount == 1  # the control


def test_settled_means_paid(owner: Owner) -> None:
    lane = make_packet(count=3).lanes.get()
    [claim] = make_claims(lane, 1)
    with pytest.raises(IntegrityError, match="claimstate_has_transfer"):
        ClaimState.objects.create(claim=claim, state=ClaimState.State.SETTLED)
    assert not ClaimState.objects.exists()


def test_accounts_move_by_transfers_only(owner: Owner) -> None:
    rich("alice", 1_000)
    before = picture()
    for statement in (
        "UPDATE packets_account SET credits_fen = credits_fen + 1",
        "UPDATE packets_account SET kind = 'external'",
        "UPDATE packets_account SET owner = owner || 'x'",
        "DELETE FROM packets_account",
    ):
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="only by transfers"):
            owner.execute(statement)
        owner.rollback()
    assert picture() == before
    owner.execute("DROP TRIGGER account_moves_by_transfer ON packets_account")
    assert owner.execute("UPDATE packets_account SET credits_fen = credits_fen + 1").rowcount == 2


def test_accounts_start_with_nothing(owner: Owner) -> None:
    insert = (
        "INSERT INTO packets_account (kind, owner, currency, debits_fen, credits_fen, created_at)"
        " VALUES ('wallet', 'mallory', 'CNY', 0, 5, now())"
    )
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="no transfer brought"):
        owner.execute(insert)
    owner.rollback()
    owner.execute("DROP TRIGGER account_starts_empty ON packets_account")
    assert owner.execute(insert).rowcount == 1  # the control


@pytest.mark.control
def test_without_looking_for_the_accounts_anything_is_moved(owner: Owner) -> None:
    alice, hongkong = rich("alice", 1_000), wallet("alice", "HKD")
    owner.execute(without_guard(load("packets", "ledger.sql"), "one_currency"))
    for number, account_id in enumerate([hongkong.id, 10**9]):
        moved = owner.execute(
            "INSERT INTO packets_transfer (reference, kind, debit_account_id, credit_account_id,"
            " amount_fen, currency) VALUES (%s, 'settle', %s, %s, 1, 'CNY')",
            [f"x{number}", alice.id, account_id],
        )
        assert moved.rowcount == 1


REFERS_TO_NOTHING = [
    # A claim that is not there, with a transfer that is.
    "INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)"
    " VALUES (gen_random_uuid(), 'settled', (SELECT max(id) FROM packets_transfer), '')",
    "INSERT INTO packets_claimstate (claim_id, state, reason)"
    " VALUES (gen_random_uuid(), 'parked', '')",
    # A transfer that is not there, at once or when a parked claim goes on.
    "INSERT INTO packets_claimstate (claim_id, state, transfer_id, reason)"
    " VALUES (%(claim)s, 'settled', 1000000000, '')",
    "INSERT INTO packets_claimstate (claim_id, state, reason) VALUES (%(claim)s, 'parked', '');"
    " UPDATE packets_claimstate SET state = 'settled', transfer_id = 1000000000",
]


@pytest.mark.parametrize("statement", REFERS_TO_NOTHING)
def test_a_state_names_a_claim_and_a_transfer_that_are_there(owner: Owner, statement: str) -> None:
    [claim] = make_claims(make_packet(count=3).lanes.get(), 1)
    told = statement.replace("%(claim)s", f"'{claim.id}'")
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="there is no such claim"):
        owner.execute(told)
    owner.rollback()
    for name in ("claimstate_refers_new", "claimstate_refers_changed"):  # the control
        owner.execute(f"DROP TRIGGER {name} ON packets_claimstate")
    owner.execute(told)


def test_the_file_may_be_installed_again(owner: Owner) -> None:
    text = load("packets", "ledger.sql")
    assert {"account_order", "insert_only", "one_currency", "claimstate_refers"} <= guards(text)
    owner.execute(text)
    owner.execute(without_guard(text, "insert_only", "account_order"))


# --- the tool that switches guards off ------------------------------------------------------------


def test_without_guard_takes_out_what_is_marked() -> None:
    two = "-- guard:two begin\nd\n-- guard:two end\n"
    text = "a\n  -- guard:one begin\nb\n  -- guard:one end\nc\n" + two
    assert without_guard(text, "one") == "a\nc\n" + two
    assert without_guard(text, "one", "two") == "a\nc\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a\n", "one"),
        ("-- guard:one begin\na\n", "one"),
        ("-- guard:one end\n-- guard:one begin\n", "one"),
        ("-- guard:one begin\n-- guard:one begin\n-- guard:one end\n", "one"),
    ],
)
def test_without_guard_refuses_to_strip_nothing(text: str, name: str) -> None:
    with pytest.raises(ValueError, match="guard"):
        without_guard(text, name)


def test_the_application_is_not_the_owner() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() == ("laisee_app",)


def test_the_lanes_pages_are_left_nearly_empty(owner: Owner) -> None:
    """Each commit writes a new version of its lane; with room on the page no index is touched."""
    row = owner.execute(
        "SELECT reloptions FROM pg_class WHERE oid = 'packets_lane'::regclass"
    ).fetchone()
    assert row is not None
    assert {"fillfactor=10", "autovacuum_vacuum_scale_factor=0"} <= set(row[0])  # type: ignore[call-overload]


def test_a_transfer_keeps_no_index_that_another_answers_for(owner: Owner) -> None:
    """Each would be written for every settled claim."""
    names = owner.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'packets_transfer'")
    assert {row[0] for row in names} == {
        "packets_transfer_pkey",
        "packets_transfer_reference_key",
        "transfer_credit",
        "transfer_debit",
    }
    owner.execute("SET enable_seqscan = off")
    for condition, index in (
        ("credit_account_id = 1", "transfer_credit"),
        ("debit_account_id = 1", "transfer_debit"),
        ("reference = ANY ('{a,b}')", "packets_transfer_reference_key"),
    ):
        plan = owner.execute(f"EXPLAIN SELECT * FROM packets_transfer WHERE {condition}")
        assert index in "".join(str(row[0]) for row in plan)
