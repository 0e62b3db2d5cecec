"""Money out of one wallet by several ways at once: what is there goes once.

Two things stand in the way of spending twice. The ledger's CHECK is the last word on what is there;
one act at a time for a person (`packets/wallets.py`) keeps the limits and the keys exact. Each
control takes one of them away at the moment when both have looked and neither has moved.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now

from engine.lib.auth import Caller
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.problem import IdempotencyKeySpent
from engine.models import ClientApp
from packets import invariants, people_packets
from packets.models import Payout, PeoplePacket, ProviderAccount, Transfer
from packets.payouts import sending, withdrawals
from packets.people_packets import Wanted, people_packet_create
from tests.campaign import stage
from tests.conftest import clean_tables, wait_until
from tests.wallets import assert_sound, available_fen, bank, digest, fill
from tests.world import together

pytestmark = pytest.mark.django_db(transaction=True)

TRIES = 200
FEN = 1_000
JOIN_S = 30.0


@dataclass(frozen=True)
class Town:
    app: ClientApp
    bank: ProviderAccount


@pytest.fixture
def town() -> Town:
    return Town(stage.make_app(), bank())


def names(n: int) -> list[str]:
    return [f"p{number}" for number in range(n)]


def withdraw(town: Town, name: str, fen: int = FEN, key: str = "") -> Payout:
    return withdrawals.payout_create(
        participant=digest(town.app, name),
        client_app_id=town.app.pk,
        amount_fen=fen,
        provider="bank",
        payee_account=f"{name}@bank",
        key=key or uuid.uuid4().hex,
    )


def send(town: Town, name: str, fen: int = FEN) -> Any:
    sender = Caller(town.app.pk, name, digest(town.app, name), group="family")
    return people_packet_create(sender=sender, wanted=Wanted("lucky", fen, 2), key=uuid.uuid4().hex)


def in_turns(pairs: Sequence[tuple[Callable[[], Any], ...]]) -> list[list[Any]]:
    """The acts of each group at once, group after group; results or errors, in order."""
    width = len(pairs[0])
    start = threading.Barrier(width)

    def run(number: int) -> list[Any]:
        found: list[Any] = []
        for group in pairs:
            start.wait(JOIN_S)
            try:
                found.append(group[number]())
            except (ServiceError, IdempotencyKeySpent, IntegrityError) as error:
                found.append(error)
        return found

    columns = together([lambda n=n: run(n) for n in range(width)], threads=width)
    for column in columns:
        if isinstance(column, BaseException):
            raise column
    return [list(row) for row in zip(*columns, strict=True)]  # type: ignore[arg-type]


def won(results: Sequence[Any]) -> int:
    return sum(not isinstance(result, Exception) for result in results)


@contextmanager
def both_look_first(monkeypatch: pytest.MonkeyPatch, module: Any, after: str) -> Iterator[None]:
    """Nobody waits for anybody at the wallet, but whoever has called `after` waits for the other:
    both have looked before either moves."""
    meeting = threading.Barrier(2)
    real = getattr(module, after)

    def looked(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        meeting.wait(JOIN_S)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(withdrawals, "one_at_a_time", lambda participant: None)
        patch.setattr(people_packets, "one_at_a_time", lambda participant: None)
        patch.setattr(module, after, looked)
        if after == "wallet_of":
            patch.setattr(people_packets, after, looked)
        yield


@pytest.fixture
def without(superuser_dsn: str) -> Iterator[Callable[[str, str], None]]:
    """`without(table, constraint)`: Postgres doesn't check it in this test."""
    removed: list[tuple[str, str, str]] = []

    def drop(table: str, name: str) -> None:
        connection.close()
        with psycopg.connect(superuser_dsn) as link:
            row = link.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conrelid = %s::regclass AND conname = %s",
                [table, name],
            ).fetchone()
            assert row is not None
            removed.append((table, name, str(row[0])))
            link.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())

    yield drop
    connection.close()
    with psycopg.connect(superuser_dsn) as link:
        clean_tables(link)
        link.execute("SET session_replication_role = origin")
        for table, name, definition in removed:
            link.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}".encode())


# --- the last fen ---------------------------------------------------------------------------------


def test_a_withdrawal_and_a_packet_race_for_the_last_fen(town: Town) -> None:
    people = names(TRIES)
    fill(town.app, people, FEN)

    races = in_turns([(lambda p=p: withdraw(town, p), lambda p=p: send(town, p)) for p in people])

    assert [won(race) for race in races] == [1] * TRIES
    losers = [result for race in races for result in race if isinstance(result, ServiceError)]
    assert {loser.code for loser in losers} == {"insufficient_funds"}
    assert all(available_fen(town.app, name) == 0 for name in people[:10])
    assert Payout.objects.count() + PeoplePacket.objects.count() == TRIES
    assert Transfer.objects.filter(kind__in=["payout", "open"], amount_fen=FEN).count() == TRIES
    assert_sound()


def test_the_ledger_alone_lets_one_of_them_through(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have seen the whole money in the wallet before either took it."""
    people = names(10)
    fill(town.app, people, FEN)

    with both_look_first(monkeypatch, withdrawals, "wallet_of"):
        races = in_turns(
            [(lambda p=p: withdraw(town, p), lambda p=p: send(town, p)) for p in people]
        )

    assert [won(race) for race in races] == [1] * 10
    assert_sound()


@pytest.mark.control
def test_control_without_the_check_both_go_through(
    town: Town, monkeypatch: pytest.MonkeyPatch, without: Callable[[str, str], None]
) -> None:
    people = names(3)
    fill(town.app, people, FEN)
    without("packets_account", "account_not_overdrawn")

    with both_look_first(monkeypatch, withdrawals, "wallet_of"):
        races = in_turns(
            [(lambda p=p: withdraw(town, p), lambda p=p: send(town, p)) for p in people]
        )

    assert [won(race) for race in races] == [2] * 3
    assert [available_fen(town.app, name) for name in people] == [-FEN] * 3
    report = invariants.invariants_check()
    assert "not_overdrawn" in {check.name for check in report.checks if check.value}


def test_fifty_withdrawals_of_everything_take_it_once(town: Town) -> None:
    fill(town.app, ["alice"], FEN)

    results = together([lambda: withdraw(town, "alice") for _ in range(50)], threads=16)

    assert won(results) == 1
    refusals = [result for result in results if isinstance(result, BaseException)]
    assert {getattr(refusal, "code", refusal) for refusal in refusals} == {"insufficient_funds"}
    assert available_fen(town.app, "alice") == 0
    assert_sound()


# --- limits and keys ------------------------------------------------------------------------------


def test_two_at_once_are_counted_one_after_the_other(town: Town) -> None:
    people = names(20)
    fill(town.app, people, FEN)
    ProviderAccount.objects.update(person_day_count=1)

    races = in_turns([(lambda p=p: withdraw(town, p, 10),) * 2 for p in people])

    assert [won(race) for race in races] == [1] * 20


@pytest.mark.control
def test_control_without_one_at_a_time_both_are_within_the_limit(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = names(3)
    fill(town.app, people, FEN)
    ProviderAccount.objects.update(person_day_count=1)

    with both_look_first(monkeypatch, withdrawals, "require_within_days"):
        races = in_turns([(lambda p=p: withdraw(town, p, 10),) * 2 for p in people])

    assert [won(race) for race in races] == [2] * 3


def test_everybodys_day_is_counted_one_after_the_other(town: Town) -> None:
    people = names(20)
    fill(town.app, people, FEN)
    ProviderAccount.objects.update(day_limit_fen=105)

    results = together([lambda p=p: withdraw(town, p, 10) for p in people], threads=8)

    assert won(results) == 10
    assert {getattr(r, "code", r) for r in results if isinstance(r, BaseException)} == {
        "full_today"
    }


def test_one_key_twice_at_once_takes_once(town: Town) -> None:
    people = names(20)
    fill(town.app, people, FEN)

    races = in_turns([(lambda p=p: withdraw(town, p, 10, key="k"),) * 2 for p in people])

    assert [won(race) for race in races] == [1] * 20
    assert all(any(isinstance(r, IdempotencyKeySpent) for r in race) for race in races)
    assert [available_fen(town.app, name) for name in people] == [FEN - 10] * 20


def test_the_column_alone_lets_one_key_take_once(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(town.app, ["alice"], FEN)

    with both_look_first(monkeypatch, withdrawals, "require_within_days"):
        (race,) = in_turns([(lambda: withdraw(town, "alice", 10, key="k"),) * 2])

    assert won(race) == 1
    assert any(isinstance(result, IntegrityError) for result in race)
    assert available_fen(town.app, "alice") == FEN - 10
    assert_sound()


@pytest.mark.control
def test_control_without_the_column_one_key_takes_twice(
    town: Town, monkeypatch: pytest.MonkeyPatch, without: Callable[[str, str], None]
) -> None:
    fill(town.app, ["alice"], FEN)
    without("packets_payout", "payout_key_once")

    with both_look_first(monkeypatch, withdrawals, "require_within_days"):
        (race,) = in_turns([(lambda: withdraw(town, "alice", 10, key="k"),) * 2])

    assert won(race) == 2
    assert available_fen(town.app, "alice") == FEN - 20


# --- taken back while it is being sent ------------------------------------------------------------


CancelWhile = Callable[[Callable[[uuid.UUID], Any]], Any]


@pytest.fixture
def cancel_while_it_is_taken(town: Town, superuser_dsn: str) -> Iterator[CancelWhile]:
    """A worker has the payout in its hands, uncommitted, when its owner wants it back."""
    with psycopg.connect(superuser_dsn, autocommit=True) as watch:

        def somebody_waits() -> bool:
            row = watch.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()
            return bool(row and row[0])

        def run(cancel: Callable[[uuid.UUID], Any]) -> Any:
            fill(town.app, ["alice"], FEN)
            payout = withdraw(town, "alice")
            results: list[Any] = []

            def want_it_back() -> None:
                try:
                    results.append(cancel(payout.id))
                except TransitionRefused as refusal:
                    results.append(refusal)
                finally:
                    connection.close()

            owner = threading.Thread(target=want_it_back)
            with transaction.atomic():
                taken = sending._take(ask_first=False)
                assert isinstance(taken, sending.Taken)
                assert taken.payout_id == payout.id
                owner.start()
                wait_until(somebody_waits, what="the owner's wait for the row")
            owner.join(JOIN_S)
            return results[0]

        yield run


def test_what_a_worker_has_just_taken_isnt_taken_back(
    town: Town, cancel_while_it_is_taken: CancelWhile
) -> None:
    refusal = cancel_while_it_is_taken(
        lambda payout_id: withdrawals.payout_cancel(
            participant=digest(town.app, "alice"), payout_id=payout_id
        ),
    )

    assert isinstance(refusal, TransitionRefused)
    assert available_fen(town.app, "alice") == 0
    assert_sound()


@pytest.mark.control
def test_control_without_the_condition_it_is_sent_and_back_in_the_wallet(
    town: Town, cancel_while_it_is_taken: CancelWhile
) -> None:
    def cancel(payout_id: uuid.UUID) -> None:
        with transaction.atomic():
            Payout.objects.filter(id=payout_id).update(
                state="cancelled", step="none", next_attempt_at=None, ended_at=Now()
            )
            sending.payout_money_end(payout_id=payout_id, actor="test", evidence={})

    cancel_while_it_is_taken(cancel)

    # The provider's number is live, and the money is there to be spent again.
    assert Payout.objects.get().numbers.get().state == "live"
    assert available_fen(town.app, "alice") == FEN
