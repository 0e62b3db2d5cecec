"""A payout's steps against a rail that says what it is told: money, numbers, leases, fences."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models.functions import Now

from packets import invariants, ledger, tasks
from packets.models import Payout, PayoutCall, PayoutNumber, ProviderAccount, Transfer
from packets.payouts import breaker, callbacks, queue, sending
from packets.providers.base import BadCallback, Kind, Order, Result
from tests.packets.payouts.stage import (
    ACCEPTED,
    FAILED,
    NOT_FOUND,
    PAID,
    UNKNOWN,
    Rail,
    ages,
    due_now,
    number_of,
    payout_of,
    provider_account,
    step,
    use,
)

pytestmark = pytest.mark.django_db(transaction=True)

State, Step = Payout.State, Payout.Step


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> Rail:
    return use(monkeypatch, Rail())


def clearing_fen(account: ProviderAccount) -> int:
    return ledger.balance_fen(sending.clearing_account(account).pk)


def end_of(payout: Payout) -> Transfer:
    return Transfer.objects.get(reference=f"payout-end:{payout.id.hex}")


# --- the straight way -----------------------------------------------------------------------------


def test_paid_at_once(rail: Rail) -> None:
    account = provider_account()
    payout = payout_of(account, amount_fen=500)
    rail.says(PAID)

    payout = step(payout)

    assert (payout.state, payout.step, payout.next_attempt_at) == (State.PAID, Step.NONE, None)
    assert payout.provider_ref == "r1" and payout.ended_at
    assert end_of(payout).kind == Transfer.Kind.PAID
    assert clearing_fen(account) == 0
    [number] = payout.numbers.all()
    [call] = payout.calls.all()
    assert number.state == PayoutNumber.State.PAID and len(number.number) == 32
    assert (call.kind, call.result, call.number_id) == ("submit", "paid", number.pk)
    assert not sending.payout_step()
    assert invariants.invariants_check().holds


def test_failed_money_returns(rail: Rail) -> None:
    account = provider_account()
    payout = payout_of(account, amount_fen=500)
    rail.says(ACCEPTED, FAILED)

    assert step(payout).state == State.ACCEPTED
    payout = step(payout)

    assert (payout.state, payout.failure_code) == (State.FAILED, "ACCOUNT_CLOSED")
    assert end_of(payout).kind == Transfer.Kind.PAYBACK
    assert ledger.balance_fen(payout.wallet_id) == 500
    assert clearing_fen(account) == 0


# --- unknown is asked, never guessed --------------------------------------------------------------


def test_a_timeout_is_asked_for_and_sent_again_only_byte_for_byte(rail: Rail) -> None:
    account = provider_account(not_found_grace_s=600)
    payout = payout_of(account)
    rail.says(UNKNOWN, NOT_FOUND, NOT_FOUND, PAID)

    assert step(payout).state == State.UNKNOWN
    assert step(payout).step == Step.QUERY  # one second after the send: not yet believed
    ages(payout, 601)
    assert step(payout).step == Step.SUBMIT
    assert step(payout).state == State.PAID

    assert rail.steps == ["submit", "query", "query", "submit"]
    assert rail.asked[0] == rail.asked[3], "another number or other bytes"


def test_an_adapter_that_breaks_leaves_an_unknown_outcome(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(RuntimeError("a defect"))

    payout = step(payout)

    assert (payout.state, payout.step) == (State.UNKNOWN, Step.QUERY)


def test_after_two_days_a_person_looks(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(UNKNOWN, UNKNOWN)
    step(payout)
    ages(payout, 48 * 3_600 + 1)

    payout = step(payout)

    assert (payout.manual_reason, payout.state) == ("too_long", State.UNKNOWN)
    assert payout.next_attempt_at is None and payout.manual_at
    assert not sending.payout_step()
    assert clearing_fen(payout.account) == payout.amount_fen


def test_another_amount_is_nobodys_payment(rail: Rail) -> None:
    payout = payout_of(provider_account(), amount_fen=500)
    rail.says(Result(Kind.PAID, amount_fen=5_000))

    payout = step(payout)

    assert (payout.manual_reason, payout.state) == ("amount_differs", State.UNKNOWN)
    assert not Transfer.objects.filter(reference__startswith="payout-end:").exists()


def test_what_cannot_be_asked_for_goes_to_a_person(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.unsendable = "the payee's name is missing"

    payout = step(payout)

    assert (payout.manual_reason, payout.state) == ("not_sendable", State.CREATED)
    assert not PayoutNumber.objects.exists() and not rail.asked


def test_a_new_number_only_after_the_old_one_is_dead(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(Result(Kind.FAILED_FINAL, code="CLOSED", retry_new=True), PAID)

    step(payout)
    payout = step(payout)

    assert payout.state == State.PAID
    states = list(payout.numbers.order_by("id").values_list("state", flat=True))
    assert states == ["failed", "paid"]
    assert rail.asked[0][1] != rail.asked[1][1]


def test_restored_books_send_under_the_number_that_the_provider_knows(rail: Rail) -> None:
    """The backup is from before the send: the payout stands there as it was created."""
    payout = payout_of(provider_account())
    with transaction.atomic():
        rail.says(PAID)
        sending.payout_step()
        transaction.set_rollback(True)  # as a restore forgets it
    assert Payout.objects.get(id=payout.id).state == State.CREATED
    call_command("hold_payouts")
    assert not sending.payout_step(), "sent before anybody reconciled"

    ProviderAccount.objects.update(breaker="closed", breaker_reason="", breaker_until=None)
    rail.says(PAID)
    step(payout)

    assert rail.asked[0][1] == rail.asked[1][1]


# --- processes die --------------------------------------------------------------------------------


def test_killed_during_a_send_the_next_one_asks(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = payout_of(provider_account())
    with monkeypatch.context() as killed:
        killed.setattr(sending, "_call", _dies)
        with pytest.raises(KeyboardInterrupt):
            step(payout)
    held = Payout.objects.get(id=payout.id)
    assert (held.state, held.fence) == (State.SUBMITTING, 1)
    assert held.lease_until == held.next_attempt_at
    assert not sending.payout_step(), "the lease is still running"
    rail.says(PAID)

    payout = step(payout)

    assert rail.steps == ["query"]
    assert (payout.state, payout.fence) == (State.PAID, 2)
    assert PayoutCall.objects.filter(ended_at=None).count() == 1  # on record: nobody knows


def test_a_send_that_nobody_saw_the_end_of_is_asked_about_while_nothing_is_sent(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = provider_account()
    payout = payout_of(account)
    with monkeypatch.context() as killed:
        killed.setattr(sending, "_call", _dies)
        with pytest.raises(KeyboardInterrupt):
            step(payout)
    ProviderAccount.objects.filter(id=account.pk).update(
        breaker="open", breaker_reason="by_hand", breaker_until=Now() + dt.timedelta(days=3)
    )
    rail.says(PAID)

    assert step(payout).state == State.PAID
    assert rail.steps == ["query"]


def test_what_cannot_be_read_waits_for_a_person_and_holds_up_nobody(rail: Rail) -> None:
    account = provider_account()
    unreadable = payout_of(account, "ann")
    Payout.objects.filter(id=unreadable.id).update(payee_encrypted="gone:gAAAA")
    payout = payout_of(account, "ben")
    rail.says(PAID)

    while sending.payout_step():
        pass

    unreadable.refresh_from_db()
    payout.refresh_from_db()
    assert (unreadable.manual_reason, unreadable.state) == ("not_sendable", State.CREATED)
    assert payout.state == State.PAID


def _dies(taken: object) -> Result:
    raise KeyboardInterrupt


def test_killed_after_the_answer_the_next_one_asks(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = payout_of(provider_account())
    rail.says(PAID, PAID)
    with monkeypatch.context() as killed:
        killed.setattr(sending, "_write", _dies_writing)
        with pytest.raises(KeyboardInterrupt):
            step(payout)

    payout = step(payout)

    assert rail.steps == ["submit", "query"]
    assert payout.state == State.PAID
    assert Transfer.objects.filter(reference=f"payout-end:{payout.id.hex}").count() == 1


def _dies_writing(*args: object) -> None:
    raise KeyboardInterrupt


def test_an_answer_that_comes_after_its_lease_changes_nothing(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one holds an old fence: the faster one's word stands."""
    payout = payout_of(provider_account())
    real = sending._call

    def slow(taken: sending.Taken) -> Result:
        monkeypatch.setattr(sending, "_call", real)
        rail.says(ACCEPTED)
        assert step(payout).state == State.ACCEPTED
        return Result(Kind.FAILED_FINAL, code="LATE")

    monkeypatch.setattr(sending, "_call", slow)
    due_now(payout)
    sending.payout_step()

    now = Payout.objects.get(id=payout.id)
    assert (now.state, now.fence) == (State.ACCEPTED, 2)
    assert not Transfer.objects.filter(reference__startswith="payout-end:").exists()


def test_a_payout_that_an_adapter_breaks_on_holds_up_nobody(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = provider_account()
    odd, plain = payout_of(account, "odd"), payout_of(account, "plain")
    request = rail.request

    def breaks(order: Order) -> bytes:
        return request(order) if order.payee_name == "plain" else {}[order.payee_name]

    monkeypatch.setattr(rail, "request", breaks)
    rail.says(PAID)
    assert sending.payout_sweep_run() == 2
    odd.refresh_from_db()
    plain.refresh_from_db()
    assert (odd.state, odd.manual_reason) == (State.CREATED, "not_sendable")
    assert odd.failure_detail == "KeyError"
    assert plain.state == State.PAID


def stands_still_and_goes_on(rail: Rail, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Payout:
    """A worker stops between taking and sending (SIGSTOP, a frozen machine) for longer than its
    lease. Meanwhile another one ends the payout, and the money is back."""
    payout = payout_of(provider_account(), amount_fen=500)
    take = sending._take

    def stopped(ask_first: bool) -> sending.Taken | Payout | None:
        taken = take(ask_first)
        monkeypatch.setattr(sending, "_take", take)
        settings.PAYOUT_LEASE_S = 60.0
        rail.says(FAILED)
        assert step(payout).state == State.FAILED
        rail.says(PAID)
        settings.PAYOUT_LEASE_S = 0.1
        time.sleep(0.2)
        return taken

    settings.PAYOUT_LEASE_S = 0.1
    monkeypatch.setattr(sending, "_take", stopped)
    assert sending.payout_step()
    return Payout.objects.get(id=payout.id)


def test_a_worker_that_outlived_its_lease_sends_nothing(
    rail: Rail, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    payout = stands_still_and_goes_on(rail, monkeypatch, settings)
    assert rail.steps == ["query"]
    assert (payout.state, end_of(payout).kind) == (State.FAILED, Transfer.Kind.PAYBACK)
    assert invariants.invariants_check().holds


@pytest.mark.control
def test_without_looking_at_its_watch_it_pays_what_was_returned(
    rail: Rail, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(sending, "CALL_BEGINS_WITHIN", float("inf"))
    payout = stands_still_and_goes_on(rail, monkeypatch, settings)
    assert rail.steps == ["query", "submit"]
    assert payout.state == State.FAILED


def test_what_could_not_be_sent_again_for_two_days_goes_to_a_person(rail: Rail) -> None:
    """Nobody asks about what waits to be sent; and while the breaker is open nothing is sent."""
    account = provider_account()
    long_ago = Now() - dt.timedelta(hours=50)
    waiting = payout_of(account, "ann", created_at=long_ago)
    calling = payout_of(account, "ben", created_at=long_ago)
    fresh = payout_of(account, "cat")
    for payout in (waiting, calling, fresh):
        rail.says(Result(Kind.RETRY_SAME, code="BUSY"))
        assert step(payout).step == Step.SUBMIT
    ages(waiting, 49 * 3600)
    ages(calling, 49 * 3600)
    Payout.objects.filter(id=calling.id).update(lease_until=Now() + dt.timedelta(seconds=60))
    breaker.breakers_open_by_hand()
    assert not sending.payout_step()

    tasks.payout_overdue()

    waiting.refresh_from_db()
    assert (waiting.manual_reason, waiting.next_attempt_at) == ("too_long", None)
    assert waiting.state == State.SUBMITTING
    for payout in (calling, fresh):
        payout.refresh_from_db()
        assert (payout.manual_reason, payout.next_attempt_at is None) == ("", False)


def test_a_callback_reaches_what_a_dead_worker_left_in_its_lease(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(UNKNOWN, PAID)
    step(payout)
    Payout.objects.filter(id=payout.id).update(
        manual_reason="too_long",
        manual_at=Now(),
        next_attempt_at=None,
        lease_until=Now() - dt.timedelta(seconds=1),
    )
    callbacks.callback_receive(
        account=payout.account,
        headers={"signature": "good"},
        raw=number_of(payout).number.encode(),
    )
    assert sending.payout_step()
    assert Payout.objects.get(id=payout.id).state == State.PAID


def test_two_workers_never_hold_the_same_payout(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = provider_account()
    for number in range(12):
        payout_of(account, f"p{number}")
    inside: dict[object, int] = {}
    most: list[int] = []
    lock = threading.Lock()

    def call(taken: sending.Taken) -> Result:
        with lock:
            inside[taken.payout_id] = inside.get(taken.payout_id, 0) + 1
            most.append(inside[taken.payout_id])
        return PAID

    monkeypatch.setattr(sending, "_call", call)

    def work() -> None:
        while sending.payout_step():
            pass
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)

    assert len(most) == 12 and max(most) == 1
    assert set(Payout.objects.values_list("state", flat=True)) == {State.PAID}


# --- callbacks ------------------------------------------------------------------------------------


def test_a_callback_only_makes_us_ask(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(ACCEPTED)
    step(payout)
    raw = number_of(payout).number.encode()

    for _ in range(3):  # replayed
        assert callbacks.callback_receive(
            account=payout.account, headers={"signature": "good"}, raw=raw
        )

    now = Payout.objects.get(id=payout.id)
    assert (now.state, now.step) == (State.ACCEPTED, Step.QUERY)
    rail.says(PAID)
    assert sending.payout_step()
    assert Payout.objects.get(id=payout.id).state == State.PAID
    assert callbacks.callback_receive(
        account=payout.account, headers={"signature": "good"}, raw=raw
    )
    assert not sending.payout_step()


def test_a_forged_callback_changes_nothing(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(ACCEPTED)
    step(payout)
    before = Payout.objects.filter(id=payout.id).values().get()

    with pytest.raises(BadCallback):
        callbacks.callback_receive(
            account=payout.account,
            headers={"signature": "forged"},
            raw=number_of(payout).number.encode(),
        )

    assert Payout.objects.filter(id=payout.id).values().get() == before
    assert not callbacks.callback_receive(
        account=payout.account, headers={"signature": "good"}, raw=b"nobody"
    )


def test_a_callback_during_the_call_is_not_lost(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = payout_of(provider_account())

    def call(taken: sending.Taken) -> Result:
        callbacks.callback_receive(
            account=payout.account,
            headers={"signature": "good"},
            raw=taken.number.number.encode(),
        )
        return ACCEPTED

    with monkeypatch.context() as busy:
        busy.setattr(sending, "_call", call)
        step(payout)
    rail.says(PAID)

    assert sending.payout_step(), "it waits for the schedule although there is news"


# --- breaker, pace, shares ------------------------------------------------------------------------


def test_out_of_funds_opens_the_breaker_and_one_tries_again(rail: Rail) -> None:
    account = provider_account()
    first, second = payout_of(account, "a"), payout_of(account, "b")
    rail.says(Result(Kind.RETRY_SAME, code="NOT_ENOUGH", out_of_funds=True, retry_after_s=0))
    assert sending.payout_step()
    account.refresh_from_db()
    assert (account.breaker, account.breaker_reason) == ("open", "out_of_funds")
    due_now(first)
    assert not sending.payout_step(), "sent although the breaker is open"

    ProviderAccount.objects.update(breaker_until=Now())
    rail.says(PAID, PAID)
    assert sending.payout_step()
    account.refresh_from_db()
    assert account.breaker == "closed"
    assert sending.payout_step()
    assert {Payout.objects.get(id=p.id).state for p in (first, second)} == {State.PAID}
    assert rail.asked[0] == next(ask for ask in rail.asked[1:] if ask[1] == rail.asked[0][1])


def test_failures_in_a_row_open_it_and_questions_go_on(rail: Rail) -> None:
    account = provider_account()
    payouts = [payout_of(account, f"p{number}") for number in range(11)]
    rail.says(*[UNKNOWN] * 10)
    for _ in range(10):
        assert sending.payout_step(ask_first=False)
    account.refresh_from_db()
    assert (account.breaker, account.failures) == ("open", 10)
    assert not sending.payout_step(), "the eleventh was sent"

    rail.says(PAID)
    for payout in payouts:
        due_now(payout)
    assert sending.payout_step()
    assert rail.steps[-1] == "query"
    account.refresh_from_db()
    assert (account.breaker, account.failures) == ("open", 0)  # only a send's success closes it


def test_a_rail_is_not_run_over(rail: Rail) -> None:
    """60 a minute: about a second's worth at once, the rest waits."""
    account = provider_account(rate_per_minute=60)
    for number in range(6):
        payout_of(account, f"p{number}")
    rail.says(*[PAID] * 6)

    sent = sum(sending.payout_step() for _ in range(6))

    assert 1 <= sent <= 3
    account.refresh_from_db()
    assert account.paced_until is not None


def test_campaigns_take_turns_and_the_oldest_of_each_goes_first(rail: Rail) -> None:
    account = provider_account()
    crowd = [payout_of(account, f"big{number}", share=1) for number in range(4)]
    few = [payout_of(account, f"small{number}", share=2) for number in range(2)]
    rail.says(*[PAID] * 6)
    while sending.payout_step():
        pass

    order = list(Payout.objects.order_by("first_submitted_at").values_list("id", flat=True))
    assert order == [
        crowd[0].id, few[0].id, crowd[1].id, few[1].id, crowd[2].id, crowd[3].id
    ]  # fmt: skip


def test_an_estimate_counts_who_stands_before(rail: Rail) -> None:
    account = provider_account(rate_per_minute=60)
    crowd = [payout_of(account, f"big{number}", share=1) for number in range(30)]
    late = payout_of(account, "late", share=2)

    first, last = queue.eta_s(crowd[0]), queue.eta_s(crowd[-1])
    small = queue.eta_s(late)
    assert first is not None and last is not None and small is not None
    assert small < last, "the small campaign waits behind the big one"
    assert last - first == pytest.approx(30, abs=2)
    [one, two] = queue.backlog()
    assert (one.waiting, two.waiting, one.waiting_fen) == (30, 1, 15_000)


# --- what Postgres refuses ------------------------------------------------------------------------


def test_a_terminal_state_has_no_way_out(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(PAID)
    step(payout)

    for change in (
        {"state": State.FAILED},
        {"state": State.SUBMITTING, "step": "submit", "ended_at": None, "next_attempt_at": Now()},
        {"amount_fen": 1},
        {"fence": 0},
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            Payout.objects.filter(id=payout.id).update(**change)
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM packets_payout")


def test_one_live_number_and_calls_stay_as_written(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(ACCEPTED)
    step(payout)
    number = number_of(payout)

    with pytest.raises(IntegrityError), transaction.atomic():
        PayoutNumber.objects.create(
            payout=payout, number="b" * 32, request_encrypted="x", request_sha256="y"
        )
    for refused in (
        lambda: PayoutNumber.objects.filter(id=number.pk).update(request_encrypted="other"),
        lambda: PayoutCall.objects.update(result="paid"),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            refused()


def test_nothing_is_forgotten() -> None:
    payout = payout_of(provider_account())

    with pytest.raises(IntegrityError), transaction.atomic():
        Payout.objects.filter(id=payout.id).update(next_attempt_at=None)
