"""Two at once over held money: one of them happens, nobody goes below zero, nobody is stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import psycopg
import pytest
from django.db import connection, transaction

from engine.lib.errors import ServiceError, TransitionRefused
from packets import ledger, settlement
from packets.holds import editing, holding, resolving, rules
from packets.holds.resolving import hold_forfeit, hold_release
from packets.holds.rules import payout_reasons
from packets.invariants import invariants_check
from packets.models import Hold, Payout, Transfer
from packets.payouts.withdrawals import payout_create
from tests.conftest import wait_until
from tests.factories import make_claims
from tests.guards import without_guard
from tests.packets.holding import Kind, claims_of_one, freeze, held_fen, held_hold, rule, sound
from tests.packets.payouts.stage import payout_of, provider_account
from tests.packets.settling import one_lane, wallet_fen
from tests.world import APP, person

pytestmark = pytest.mark.django_db(transaction=True)

TRIES = 200
Outcome = Any


def side_by_side(pairs: list[tuple[Callable[[], Any], Callable[[], Any]]]) -> list[list[Outcome]]:
    """Both of each pair at the same moment, pair by pair; what each returned or raised."""
    meet = threading.Barrier(2)
    results: list[list[Outcome]] = [[None, None] for _ in pairs]

    def run(side: int) -> None:
        try:
            for number, pair in enumerate(pairs):
                meet.wait(timeout=60)
                try:
                    results[number][side] = pair[side]()
                except Exception as error:
                    results[number][side] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[side]) for side in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return results


# --- released and forfeited at once ---------------------------------------------------------------


def many_holds() -> list[Hold]:
    """Half of them of claims, half of wallets."""
    packet, lane = one_lane(TRIES * 2)
    crowd = [bytes(claim.participant) for claim in make_claims(lane, TRIES // 2)]
    rule(most=1)
    make_claims(lane, TRIES // 2, participants=crowd, serial=1)
    settlement.settle_lane(lane.id)
    for who in crowd:
        freeze(who, 100, packet.funder_id)
    holds = list(Hold.objects.order_by("pk"))
    assert len(holds) == TRIES
    return holds


def decide(hold: Hold) -> tuple[Callable[[], Hold], Callable[[], Hold]]:
    return (
        lambda: hold_release(hold_id=hold.pk, actor="staff:ann", reason="fine"),
        lambda: hold_forfeit(hold_id=hold.pk, actor="staff:bob", reason="a farm"),
    )


def test_of_release_and_forfeit_exactly_one_happens() -> None:
    holds = many_holds()
    results = side_by_side([decide(hold) for hold in holds])
    for hold, pair in zip(holds, results, strict=True):
        [done] = [one for one in pair if isinstance(one, Hold)]
        [refused] = [one for one in pair if not isinstance(one, Hold)]
        assert isinstance(refused, TransitionRefused) and refused.state == done.state
        assert Transfer.objects.filter(reference=f"resolve:{hold.pk.hex}").count() == 1
    assert not Hold.objects.filter(state="open").exists()
    assert sound()


@contextmanager
def guards_off(owner_dsn: str) -> Iterator[None]:
    """The condition, the one reference and the trigger: each alone would stop the second."""
    every = resolving.reference
    names = iter(range(TRIES))
    with (
        mock.patch.object(resolving, "RESOLVE", without_guard(resolving.RESOLVE, "resolve_open")),
        mock.patch.object(resolving, "reference", lambda hold: f"{every(hold)}:{next(names)}"),
        psycopg.connect(owner_dsn, autocommit=True) as owner,
    ):
        owner.execute("ALTER TABLE packets_hold DISABLE TRIGGER hold_once")
        try:
            yield
        finally:
            owner.execute("ALTER TABLE packets_hold ENABLE TRIGGER hold_once")


@pytest.mark.control
def test_without_the_guards_both_happen(owner_dsn: str) -> None:
    packet, lane, who = claims_of_one(4)
    settlement.settle_lane(lane.id)
    hold, _other = freeze(who, 100, packet.funder_id), freeze(who, 100, packet.funder_id)
    assert hold is not None
    with guards_off(owner_dsn):
        [pair] = side_by_side([decide(hold)])
    assert [type(one) for one in pair] == [Hold, Hold]
    # Paid to both, out of another hold's money.
    assert (wallet_fen(who), held_fen(who)) == (300, 0)
    broken = {check.name for check in invariants_check().checks if check.value}
    assert broken == {"held_balance", "holds_ended"}


# --- held while it is withdrawn -------------------------------------------------------------------


RAIL = "http://127.0.0.1:9/"  # nothing is sent here


def withdraw(who: bytes, fen: int, account: str) -> Payout:
    return payout_create(
        participant=who,
        client_app_id=APP,
        amount_fen=fen,
        provider=account,
        payee_account=f"{who.hex()}@bank",
        key="only one",
    )


def test_a_hold_and_a_withdrawal_never_take_the_same_money() -> None:
    packet, lane = one_lane(50)
    crowd = [bytes(claim.participant) for claim in make_claims(lane, 50)]
    settlement.settle_lane(lane.id)
    account = provider_account(base_url=RAIL).name

    def pair(who: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
        return lambda: withdraw(who, 80, account), lambda: freeze(who, 50, packet.funder_id)

    for who, (taken, frozen) in zip(crowd, side_by_side([pair(w) for w in crowd]), strict=True):
        assert isinstance(frozen, Hold)
        if isinstance(taken, ServiceError):
            assert taken.code == "insufficient_funds"
            assert (frozen.amount_fen, wallet_fen(who)) == (50, 50)
        else:
            assert isinstance(taken, Payout), taken
            assert (frozen.amount_fen, wallet_fen(who)) == (20, 0)
    assert sound()


@pytest.mark.control
def test_without_the_wallet_s_lock_the_hold_finds_less_than_it_saw() -> None:
    packet, lane, who = claims_of_one(1)
    settlement.settle_lane(lane.id)
    seen, account = ledger.balance_fen, provider_account(base_url=RAIL).name

    def spend() -> None:
        withdraw(who, 80, account)
        connection.close()

    def spent_after_the_look(account_id: int) -> int:
        balance = seen(account_id)
        meanwhile = threading.Thread(
            target=lambda: (withdraw(who, 80, account), connection.close())
        )
        meanwhile.start()
        meanwhile.join(30)
        assert not meanwhile.is_alive()
        return balance

    with (
        mock.patch.object(holding, "accounts_lock", lambda ids: None),
        mock.patch.object(holding.ledger, "balance_fen", spent_after_the_look),
        pytest.raises(ledger.InsufficientFunds),
    ):
        freeze(who, 50, packet.funder_id)
    # Not even then below zero: the account itself refuses.
    assert (wallet_fen(who), held_fen(who)) == (20, 0)


# --- settled while it is decided ------------------------------------------------------------------


def settle_while_deciding(superuser_dsn: str) -> tuple[list[str], Outcome]:
    """A batch that pays and holds one person's claims, while another hold of theirs is released.

    The release is waiting when the batch goes on from holding to paying. Why the batch was tried
    again, and what came of the release.
    """
    _, [hold] = held_hold()
    first = hold.rule
    assert first is not None
    wanted = editing.Wanted(kind=Kind.CLAIMS_PER_PERSON, most=3, window_s=3_600)
    editing.rule_set(wanted=wanted, actor="staff:ria", after=first)
    _, lane = one_lane(5)
    for serial in range(2):
        make_claims(lane, 1, participants=[bytes(hold.participant)], serial=serial)
    outcome: list[Outcome] = []

    def release() -> None:
        try:
            outcome.append(hold_release(hold_id=hold.pk, actor="staff:ann", reason="fine"))
        except Exception as error:
            outcome.append(error)
        finally:
            connection.close()

    releasing = threading.Thread(target=release)
    really_hold = holding.claims_hold

    def hold_then_meet(*args: Any, **names: Any) -> int:
        held = really_hold(*args, **names)
        if not releasing.ident:
            releasing.start()
            wait_until(lambda: waits_for_accounts(superuser_dsn), 20, "the release to wait")
        return held

    with (
        mock.patch.object(settlement, "claims_hold", hold_then_meet),
        mock.patch.object(settlement, "log") as log,
    ):
        done = settlement.settle_lane(lane.id)
    releasing.join(30)
    assert not releasing.is_alive()
    assert (done.settled, done.held, done.parked) == (1, 1, 0)
    return [call.kwargs["sqlstate"] for call in log.warning.call_args_list], outcome[0]


def waits_for_accounts(dsn: str) -> bool:
    with psycopg.connect(dsn) as link:
        row = link.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%INSERT INTO packets_transfer%'"
        ).fetchone()
    return bool(row and row[0])


def test_a_decision_waits_for_settlement_and_not_the_other_way_round(superuser_dsn: str) -> None:
    tried_again, released = settle_while_deciding(superuser_dsn)
    assert tried_again == [] and isinstance(released, Hold)
    assert sound()


@pytest.mark.control
def test_without_the_common_lock_they_wait_in_a_circle(superuser_dsn: str) -> None:
    with mock.patch.object(holding, "_LOCK", "SELECT 1"):
        tried_again, released = settle_while_deciding(superuser_dsn)
    victims = [*tried_again]
    if not isinstance(released, Hold):
        victims.append(ledger.sqlstate(released))
    assert victims == ["40P01"]


# --- two wallets to one payee ---------------------------------------------------------------------


def two_to_one_payee() -> list[list[str]]:
    """Two people withdraw to one account at once; why a person must look at each."""
    rule(Kind.WALLETS_PER_PAYEE, most=1)
    account, looks = provider_account(), threading.Barrier(2)
    found: list[list[str]] = []

    def ask(name: str) -> None:
        try:
            with transaction.atomic():
                reasons = payout_reasons(person(name).participant, "one bank account", 500)
                found.append([str(reason) for reason in reasons])
                with suppress(threading.BrokenBarrierError):
                    # Where both have looked before either has written, neither sees the other.
                    looks.wait(timeout=1)
                payout_of(account, name, payee_hash="one bank account")
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=[name]) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return sorted(found)


def test_of_two_withdrawals_to_one_payee_the_second_is_seen() -> None:
    assert two_to_one_payee() == [[], ["wallets_per_payee"]]


@pytest.mark.control
def test_without_the_payee_s_lock_neither_sees_the_other() -> None:
    with mock.patch.object(rules, "_LOCK_PAYEE", "SELECT length(%s)"):
        assert two_to_one_payee() == [[], []]
