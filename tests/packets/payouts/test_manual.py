"""What people decide about payouts: on evidence, by two where money ends, one of two at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from engine.lib.audit import audit_verify
from engine.lib.errors import ServiceError
from engine.models import AuditEvent
from packets import invariants, ledger
from packets.models import Account, Payout, PayoutMark, PayoutNumber, Transfer
from packets.payouts import callbacks, manual, sending
from packets.providers.base import Kind, Result
from tests import world
from tests.packets.payouts.stage import (
    ACCEPTED,
    NOT_FOUND,
    PAID,
    UNKNOWN,
    Rail,
    ages,
    number_of,
    payout_of,
    provider_account,
    step,
    use,
)

pytestmark = pytest.mark.django_db(transaction=True)

State = Payout.State
WHY = {"actor": "staff:fay", "reason": "seen in the console"}
TWO_DAYS_S = 48 * 3600.0


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> Rail:
    return use(monkeypatch, Rail())


def staff(name: str) -> User:
    return User.objects.get_or_create(username=name, defaults={"is_staff": True})[0]


def with_a_person(rail: Rail, amount_fen: int = 500) -> Payout:
    """Sent two days ago, and nobody knows what became of it."""
    payout = payout_of(provider_account(), amount_fen=amount_fen)
    rail.says(UNKNOWN)
    step(payout)
    ages(payout, TWO_DAYS_S)
    rail.says(UNKNOWN)
    payout = step(payout)
    assert (payout.state, payout.manual_reason) == (State.UNKNOWN, "too_long")
    return payout


def in_review() -> Payout:
    return payout_of(
        provider_account(), manual_reason="review", manual_at=Now(), next_attempt_at=None
    )


def balances() -> dict[str, int]:
    return {account.kind: account.balance_fen for account in Account.objects.order_by("id")}


def picture() -> dict[str, Any]:
    return {
        "payouts": list(Payout.objects.order_by("id").values()),
        "numbers": list(PayoutNumber.objects.order_by("id").values()),
        "marks": list(PayoutMark.objects.order_by("id").values()),
        "balances": balances(),
        "transfers": Transfer.objects.count(),
        "audit": AuditEvent.objects.count(),
    }


def refused(act: Callable[[], Any], code: str) -> None:
    """It says why, and nothing has changed."""
    before = picture()
    with pytest.raises(ServiceError) as refusal:
        act()
    assert refusal.value.code == code
    assert refusal.value.message
    assert picture() == before


def audited(payout: Payout) -> list[tuple[str, str]]:
    rows = AuditEvent.objects.filter(object_type="payout", object_id=payout.id.hex)
    return list(rows.order_by("id").values_list("actor", "action"))


def ask(payout: Payout, outcome: str = "paid", by: str = "fay", ref: str = "r-7") -> PayoutMark:
    return manual.payout_mark_ask(
        payout_id=payout.id,
        outcome=outcome,
        provider_ref=ref,
        evidence="order list of 3 March, page 2",
        by=staff(by),
    )


# --- before it is sent ----------------------------------------------------------------------------


def test_released_from_review_it_is_sent(rail: Rail) -> None:
    payout = in_review()
    assert not sending.payout_step()

    manual.payout_release(payout_id=payout.id, **WHY)
    rail.says(PAID)
    assert sending.payout_step()

    assert Payout.objects.get(id=payout.id).state == State.PAID
    assert audited(payout)[0] == ("staff:fay", "payout.release")
    assert invariants.invariants_check().holds


def test_refused_in_review_its_money_returns(rail: Rail) -> None:
    payout = in_review()

    manual.payout_refuse(payout_id=payout.id, **WHY)

    payout.refresh_from_db()
    assert (payout.state, payout.failure_code) == (State.FAILED, "refused")
    assert balances()["wallet"] == 500 and balances()["clearing"] == 0
    assert not sending.payout_step() and rail.asked == []
    assert audited(payout) == [("staff:fay", "payout.failed"), ("staff:fay", "payout.refuse")]
    refused(lambda: manual.payout_release(payout_id=payout.id, **WHY), "not_now")
    assert invariants.invariants_check().holds


def test_released_and_refused_at_once_one_of_them_happens(rail: Rail) -> None:
    for _ in range(5):
        payout = in_review()
        results = world.together(
            [
                lambda id=payout.id: manual.payout_release(payout_id=id, **WHY),
                lambda id=payout.id: manual.payout_refuse(payout_id=id, **WHY),
            ]
        )
        wrong = [one for one in results if one is not None]
        assert len(wrong) <= 1 and all(isinstance(one, ServiceError) for one in wrong)
        payout.refresh_from_db()
        returned = Transfer.objects.filter(reference=f"payout-end:{payout.id.hex}").count()
        # Released first, it may still be refused: it isn't sent yet.
        assert returned == (payout.state == State.FAILED)
    assert invariants.invariants_check().holds


def test_what_was_sent_is_not_refused_as_if_it_was_not(rail: Rail) -> None:
    payout = with_a_person(rail)
    refused(lambda: manual.payout_refuse(payout_id=payout.id, **WHY), "not_now")
    refused(lambda: manual.payout_release(payout_id=payout.id, **WHY), "not_now")


# --- asking and sending again ---------------------------------------------------------------------


def test_a_query_by_hand_may_end_it(rail: Rail) -> None:
    payout = with_a_person(rail)
    manual.payout_query_now(payout_id=payout.id, **WHY)
    payout.refresh_from_db()
    assert payout.manual_reason == "too_long", "it stays in the queue until there is an answer"

    rail.says(PAID)
    assert sending.payout_step()

    payout.refresh_from_db()
    assert (payout.state, payout.manual_reason) == (State.PAID, "")
    assert audited(payout) == [("staff:fay", "payout.query_now"), ("system", "payout.paid")]


def test_a_query_that_learns_nothing_leaves_it_waiting_since_then(rail: Rail) -> None:
    payout = with_a_person(rail)
    manual.payout_query_now(payout_id=payout.id, **WHY)
    rail.says(UNKNOWN)
    assert sending.payout_step()
    again = Payout.objects.get(id=payout.id)
    assert (again.manual_reason, again.manual_at) == ("too_long", payout.manual_at)
    assert again.next_attempt_at is None


def test_an_answer_that_is_clear_again_takes_it_out_of_the_queue(rail: Rail) -> None:
    account = provider_account()
    payout = payout_of(account, amount_fen=500)
    other = ACCEPTED.__class__(ACCEPTED.kind, amount_fen=499)
    rail.says(other, ACCEPTED, PAID)
    assert step(payout).manual_reason == "amount_differs"
    manual.payout_query_now(payout_id=payout.id, **WHY)
    assert sending.payout_step()
    payout.refresh_from_db()
    assert (payout.manual_reason, payout.state) == ("", State.ACCEPTED)
    assert step(payout).state == State.PAID


def test_sent_again_only_after_the_provider_knows_no_such_number(rail: Rail) -> None:
    payout = with_a_person(rail)
    refused(lambda: manual.payout_send_again(payout_id=payout.id, **WHY), "not_found_first")

    manual.payout_query_now(payout_id=payout.id, **WHY)
    rail.says(NOT_FOUND)
    assert sending.payout_step()
    manual.payout_send_again(payout_id=payout.id, **WHY)
    rail.says(PAID)
    assert sending.payout_step()

    sends = [(number, request) for what, number, request in rail.asked if what == "submit"]
    assert len(sends) == 2 and sends[0] == sends[1], "the same bytes under the same number"
    assert Payout.objects.get(id=payout.id).state == State.PAID
    assert invariants.invariants_check().holds


def test_not_found_right_after_the_send_is_not_believed(rail: Rail) -> None:
    payout = payout_of(provider_account(not_found_grace_s=600))
    rail.says(UNKNOWN, NOT_FOUND)
    step(payout)
    assert step(payout).state == State.UNKNOWN
    refused(lambda: manual.payout_send_again(payout_id=payout.id, **WHY), "not_found_first")


def test_what_could_not_be_sent_is_tried_again(rail: Rail) -> None:
    rail.unsendable = "the payee's account has a wrong shape"
    payout = step(payout_of(provider_account()))
    assert (payout.manual_reason, payout.state) == ("not_sendable", State.CREATED)

    rail.unsendable = ""
    manual.payout_send_again(payout_id=payout.id, **WHY)
    rail.says(PAID)
    assert sending.payout_step()

    assert Payout.objects.get(id=payout.id).state == State.PAID
    refused(lambda: manual.payout_send_again(payout_id=payout.id, **WHY), "not_now")


# --- marking: two people --------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["paid", "failed"])
def test_one_asks_and_another_ends_it(rail: Rail, outcome: str) -> None:
    payout = with_a_person(rail)
    mark = ask(payout, outcome)
    assert Payout.objects.get(id=payout.id).state == State.UNKNOWN
    assert balances()["clearing"] == 500, "nothing moves before somebody else agrees"

    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))

    payout.refresh_from_db()
    assert (payout.state, payout.provider_ref) == (outcome, "r-7")
    [number] = payout.numbers.all()
    assert number.state == outcome
    assert balances()["clearing"] == 0
    assert balances()["wallet"] == (500 if outcome == "failed" else 0)
    assert audited(payout) == [
        ("staff:fay", "payout.mark_ask"),
        ("staff:bob", f"payout.{outcome}"),
        ("staff:bob", "payout.mark_approve"),
    ]
    assert audit_verify().broken is None
    assert invariants.invariants_check().holds


def test_a_mark_that_is_rewritten_in_the_log_is_found(rail: Rail, superuser_dsn: str) -> None:
    mark = ask(with_a_person(rail))
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    approved = AuditEvent.objects.get(action="payout.mark_approve")
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute(
            "UPDATE engine_auditevent SET actor = 'staff:eve' WHERE id = %s", [approved.pk]
        )
    broken = audit_verify().broken
    assert broken is not None and broken.event_id == approved.pk


def test_nobody_decides_on_what_they_asked_for(rail: Rail) -> None:
    payout = with_a_person(rail)
    mark = ask(payout, by="fay")
    refused(lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("fay")), "own_request")
    # Postgres says so too.
    with pytest.raises(IntegrityError, match="payoutmark_two_people"), transaction.atomic():
        PayoutMark.objects.filter(pk=mark.pk).update(state="approved", decided_by=staff("fay"))


def test_rejected_and_withdrawn_it_stays_where_it_is(rail: Rail) -> None:
    payout = with_a_person(rail)
    mark = ask(payout)
    refused(lambda: ask(payout), "pending")
    manual.payout_mark_reject(mark_id=mark.pk, by=staff("bob"), reason="that is another order")
    refused(
        lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("eve")), "transition_refused"
    )
    second = ask(payout)
    refused(lambda: manual.payout_mark_withdraw(mark_id=second.pk, by=staff("bob")), "not_yours")
    manual.payout_mark_withdraw(mark_id=second.pk, by=staff("fay"))
    payout.refresh_from_db()
    assert (payout.state, payout.manual_reason) == (State.UNKNOWN, "too_long")


def test_evidence_is_needed(rail: Rail) -> None:
    payout = with_a_person(rail)
    refused(lambda: ask(payout, "paid", ref=" "), "blank")
    refused(lambda: ask(payout, "cancelled"), "unknown")
    refused(lambda: manual.payout_query_now(payout_id=payout.id, actor="x", reason=" "), "blank")


def test_what_goes_on_by_itself_is_not_marked(rail: Rail) -> None:
    payout = payout_of(provider_account())
    refused(lambda: ask(payout), "not_now")
    rail.says(ACCEPTED)
    step(payout)
    refused(lambda: ask(payout), "not_now")


def test_the_provider_s_answer_comes_before_the_second_person(rail: Rail) -> None:
    payout = with_a_person(rail)
    mark = ask(payout, "failed")
    manual.payout_query_now(payout_id=payout.id, **WHY)
    rail.says(PAID)
    assert sending.payout_step()
    refused(lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob")), "not_now")
    assert balances()["wallet"] == 0
    manual.payout_mark_withdraw(mark_id=mark.pk, by=staff("fay"))
    assert invariants.invariants_check().holds


def test_nothing_is_marked_paid_without_a_number_that_may_be(rail: Rail) -> None:
    """Its number has died, and for two days it could not be sent under another."""
    payout = payout_of(provider_account())
    rail.says(Result(Kind.FAILED_FINAL, code="AGAIN", retry_new=True))
    step(payout)
    Payout.objects.filter(id=payout.id).update(
        manual_reason="too_long", manual_at=Now(), next_attempt_at=None
    )
    refused(lambda: ask(payout, "paid"), "no_number")
    mark = ask(payout, "failed")
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    assert balances()["wallet"] == 500
    assert invariants.invariants_check().holds


def sent_again_since(rail: Rail, payout: Payout) -> None:
    """Another person had it asked about and sent again; the provider has taken it."""
    manual.payout_query_now(payout_id=payout.id, **WHY)
    rail.says(NOT_FOUND, ACCEPTED)
    assert sending.payout_step()
    manual.payout_send_again(payout_id=payout.id, **WHY)
    assert sending.payout_step()
    assert Payout.objects.get(id=payout.id).manual_reason == "too_long"


def test_evidence_from_before_a_send_or_an_answer_ends_nothing(rail: Rail) -> None:
    """The money would be back in the wallet and at the payee."""
    payout = with_a_person(rail)
    mark = ask(payout, "failed")
    sent_again_since(rail, payout)
    staff("bob")
    refused(lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob")), "news")
    manual.payout_mark_reject(mark_id=mark.pk, by=staff("bob"), reason="it was sent again")

    # What was asked for after the news, and a question that learns nothing, are no hindrance.
    mark = ask(payout, "paid")
    manual.payout_query_now(payout_id=payout.id, **WHY)
    rail.says(UNKNOWN)
    assert sending.payout_step()
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    assert Payout.objects.get(id=payout.id).state == State.PAID
    assert invariants.invariants_check().holds


@pytest.mark.control
def test_without_looking_for_news_it_is_paid_and_returned(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = with_a_person(rail)
    mark = ask(payout, "failed")
    sent_again_since(rail, payout)
    monkeypatch.setattr(manual, "_require_no_news", lambda mark: None)
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    assert balances()["wallet"] == 500, "while the provider pays what it has accepted"


def test_a_callback_comes_before_the_second_person(rail: Rail) -> None:
    """The provider has called back: before it was asked what it means, nobody decides."""
    payout = with_a_person(rail)
    mark = ask(payout, "failed")
    callbacks.callback_receive(
        account=payout.account,
        headers={"signature": "good"},
        raw=number_of(payout).number.encode(),
    )
    staff("bob")
    refused(lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob")), "call_under_way")
    rail.says(PAID)
    assert sending.payout_step()
    assert balances()["wallet"] == 0
    assert Payout.objects.get(id=payout.id).state == State.PAID


def test_two_second_people_at_once_move_the_money_once(rail: Rail) -> None:
    bob, eve = staff("bob"), staff("eve")
    for outcome in ("paid", "failed"):
        payout = with_a_person(rail)
        mark = ask(payout, outcome)
        results = world.together(
            [
                lambda by=by, pk=mark.pk: manual.payout_mark_approve(mark_id=pk, by=by)
                for by in (bob, eve)
            ]
        )
        assert len([one for one in results if isinstance(one, ServiceError)]) == 1
        assert Transfer.objects.filter(reference=f"payout-end:{payout.id.hex}").count() == 1
    assert invariants.invariants_check().holds


# --- while a call is under way --------------------------------------------------------------------


def under_way(payout: Payout) -> None:
    """A worker has taken it and waits for the provider's answer."""
    Payout.objects.filter(id=payout.id).update(
        lease_until=Now() + dt.timedelta(seconds=60), fence=payout.fence + 1
    )


def every_act(payout: Payout, mark: PayoutMark) -> dict[str, Callable[[], Any]]:
    bob = staff("bob")
    return {
        "query": lambda: manual.payout_query_now(payout_id=payout.id, **WHY),
        "send": lambda: manual.payout_send_again(payout_id=payout.id, **WHY),
        "refuse": lambda: manual.payout_refuse(payout_id=payout.id, **WHY),
        "approve": lambda: manual.payout_mark_approve(mark_id=mark.pk, by=bob),
    }


def test_nothing_is_done_by_hand_while_a_call_is_under_way(rail: Rail) -> None:
    payout = with_a_person(rail)
    mark = ask(payout)
    staff("bob")
    under_way(payout)
    for act in every_act(payout, mark).values():
        refused(act, "call_under_way")


@pytest.mark.control
def test_without_the_lease_it_is_marked_under_the_call(
    rail: Rail, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout = with_a_person(rail)
    mark = ask(payout, "failed")
    under_way(payout)
    monkeypatch.setattr(manual, "FREE", Q())
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    assert Payout.objects.get(id=payout.id).state == State.FAILED


def test_an_answer_that_comes_after_the_mark_changes_only_its_own_row(rail: Rail) -> None:
    """A call outlived its lease, and two people have ended the payout meanwhile."""
    payout = with_a_person(rail)
    mark = ask(payout, "paid")
    manual.payout_query_now(payout_id=payout.id, **WHY)
    number = number_of(payout)

    taken = sending._take(ask_first=True)
    assert isinstance(taken, sending.Taken)
    Payout.objects.filter(id=payout.id).update(lease_until=Now() - dt.timedelta(seconds=1))
    refused(lambda: manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob")), "call_under_way")
    # What the books look like after a restore, or where nobody can ask.
    Payout.objects.filter(id=payout.id).update(next_attempt_at=None)
    manual.payout_mark_approve(mark_id=mark.pk, by=staff("bob"))
    sending._apply(taken, NOT_FOUND)

    payout.refresh_from_db()
    assert payout.state == State.PAID
    assert payout.calls.order_by("-id")[0].not_found
    assert PayoutNumber.objects.get(pk=number.pk).state == "paid"
    assert ledger.balance_fen(sending.clearing_account(payout.account).pk) == 0
    assert invariants.invariants_check().holds
