"""A statement against our payouts: what differs is found, named, once, and moves no money."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now

from engine.lib.errors import ServiceError, TransitionRefused
from engine.models import AuditEvent
from packets.models import (
    Difference,
    Payout,
    PayoutNumber,
    ProviderAccount,
    Statement,
    StatementLine,
    Transfer,
)
from packets.providers.base import LineState
from packets.reconciling.differences import difference_resolve
from packets.reconciling.matching import differences_close_agreeing, statement_match
from tests.packets.reconciling import stage
from tests.packets.reconciling.stage import DAY, account, compared, line, noon, payout

pytestmark = pytest.mark.django_db(transaction=True)

NEXT = DAY + dt.timedelta(days=1)


def found(state: str = "open") -> list[tuple[str, str, int | None, int | None]]:
    rows = Difference.objects.filter(state=state).order_by("kind", "key")
    return [(one.kind, one.out_number, one.ours_fen, one.theirs_fen) for one in rows]


def money() -> list[dict[str, Any]]:
    return list(Transfer.objects.order_by("id").values())


def test_a_day_on_which_both_sides_agree() -> None:
    rail = account()
    paid, failed = payout(rail, 1_000), payout(rail, 2_000, "failed")
    statement = compared(rail, line(paid), line(failed, 2_000, state=LineState.FAILED))

    assert (statement.state, statement.lines, statement.sum_fen) == ("matched", 2, 1_000)
    assert statement.done_lines == 2 and statement.matched_at is not None
    assert found() == []
    again = compared(rail, line(paid), line(failed, 2_000, state=LineState.FAILED))
    assert again.pk == statement.pk and Statement.objects.count() == 1
    assert list(AuditEvent.objects.order_by("id").values_list("action", flat=True))[-2:] == [
        "statement.uploaded",
        "statement.matched",
    ]


Tamper = Callable[[ProviderAccount, PayoutNumber, PayoutNumber], list[Any]]
TAMPERED: dict[str, tuple[Tamper, Callable[[PayoutNumber, PayoutNumber], list[Any]]]] = {
    "a line that we know nothing of": (
        lambda rail, a, b: [line(a), line(b, 2_000), line("STRANGE", 5)],
        lambda a, b: [("missing_here", "STRANGE", None, 5)],
    ),
    "a line that is lost": (
        lambda rail, a, b: [line(a)],
        lambda a, b: [("missing_there", b.number, 2_000, None)],
    ),
    "another amount": (
        lambda rail, a, b: [line(a, 999), line(b, 2_000)],
        lambda a, b: [("amount", a.number, 1_000, 999)],
    ),
    "another outcome": (
        lambda rail, a, b: [line(a, state=LineState.FAILED), line(b, 2_000)],
        lambda a, b: [("state", a.number, 1_000, 1_000)],
    ),
    "returned after it was paid": (
        lambda rail, a, b: [line(a), line(a, state=LineState.REFUNDED), line(b, 2_000)],
        lambda a, b: [("state", a.number, 1_000, 1_000)],
    ),
    "named twice": (
        lambda rail, a, b: [line(a), line(b, 2_000), line(a)],
        lambda a, b: [("duplicate", a.number, 1_000, 1_000)],
    ),
    "another amount and another outcome": (
        lambda rail, a, b: [line(a, 7, state=LineState.FAILED), line(b, 2_000)],
        lambda a, b: [("amount", a.number, 1_000, 7), ("state", a.number, 1_000, 7)],
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_tampered_line_is_found_and_named(how: str) -> None:
    rail = account()
    a, b = payout(rail, 1_000), payout(rail, 2_000)
    tamper, expected = TAMPERED[how]
    before = money()
    statement = compared(rail, *tamper(rail, a, b))

    assert found() == expected(a, b)
    assert {one.statement_id for one in Difference.objects.all()} == {statement.pk}
    for one in Difference.objects.all():
        assert one.day == DAY and one.account_id == rail.pk
        assert (one.payout_id is None) == (one.kind == "missing_here")
        assert (one.line_id is None) == (one.kind == "missing_there")
    # Again, and once more as a whole: the same ones.
    rows = list(Difference.objects.order_by("id").values())
    assert statement_match(statement_id=statement.pk) is False
    compared(rail, *tamper(rail, a, b))
    assert list(Difference.objects.order_by("id").values()) == rows
    assert money() == before


def test_the_other_account_s_payout_is_not_ours() -> None:
    rail, other = account(), account("other")
    theirs = payout(other)
    compared(rail, line(theirs))
    assert found() == [("missing_here", theirs.number, None, 1_000)]


def test_a_payout_around_midnight_may_stand_in_either_day() -> None:
    """Paid at 23:59 by our clock; the provider books it the day after."""
    rail = account()
    late = payout(rail, ended=noon(DAY, 23, 59), sent=noon(DAY, 23, 58))
    compared(rail)
    assert found() == []  # its line may still come with the next day
    compared(rail, line(late, at=noon(NEXT, 0, 1)), day=NEXT)
    assert found() == []


def test_a_payout_around_midnight_that_stands_in_neither_day() -> None:
    rail = account()
    late = payout(rail, ended=noon(DAY, 23, 59), sent=noon(DAY, 23, 58))
    compared(rail)
    compared(rail, day=NEXT)
    assert found() == [("missing_there", late.number, 1_000, None)]


def test_a_statement_taken_before_its_day_was_over_misses_nothing() -> None:
    rail = account()
    early = payout(rail)
    compared(rail)
    assert found() == [("missing_there", early.number, 1_000, None)]
    late = payout(rail, ended=noon(stage.TODAY, 0), sent=noon(stage.TODAY, 0))
    compared(rail, day=stage.TODAY)
    compared(rail, day=stage.TODAY - dt.timedelta(days=1))
    assert late.payout_id not in set(Difference.objects.values_list("payout_id", flat=True))


def test_an_outcome_that_we_learnt_days_later() -> None:
    """Sent and paid on Monday; we know only now. Monday's statement names it."""
    rail = account()
    unknown = payout(rail, state="unknown", sent=noon())
    compared(rail, line(unknown))
    assert found() == [("state", unknown.number, 1_000, 1_000)]
    stage.pay(unknown)

    assert differences_close_agreeing() == 1
    assert found() == [] and Difference.objects.get().resolution == "agrees"
    for days in (1, 2):
        compared(rail, day=DAY + dt.timedelta(days=days))
    assert found() == []


def test_the_days_of_an_outcome_learnt_late_must_all_be_here_before_it_is_missed() -> None:
    rail = account()
    slow = payout(rail, sent=noon(), ended=noon(DAY + dt.timedelta(days=2)))
    compared(rail, day=DAY + dt.timedelta(days=2))
    compared(rail, day=NEXT)
    assert found() == []
    compared(rail)
    assert found() == [("missing_there", slow.number, 1_000, None)]


def test_a_line_that_comes_twice_on_two_days() -> None:
    rail = account()
    paid = payout(rail)
    compared(rail, line(paid))
    compared(rail, line(paid, at=noon(NEXT)), day=NEXT)
    assert found() == [("duplicate", paid.number, 1_000, 1_000)]
    assert Difference.objects.get().day == NEXT


@pytest.mark.parametrize("waits", ["a query", "a person"])
def test_a_line_that_knows_more_than_we_do_makes_us_ask(waits: str) -> None:
    rail = account()
    waiting: dict[str, Any] = {"next_attempt_at": Now() + dt.timedelta(hours=5)}
    if waits == "a person":
        waiting = {"next_attempt_at": None, "manual_reason": "too_long", "manual_at": Now()}
    unknown = payout(rail, state="unknown", **waiting)
    asked_before = payout(rail, state="unknown", **waiting)
    before = money()
    compared(rail, line(unknown))

    due = Payout.objects.filter(step="query", next_attempt_at__lte=Now())
    assert [one.pk for one in due] == [unknown.payout_id]
    assert Payout.objects.get(pk=unknown.payout_id).state == "unknown"
    assert asked_before.payout_id not in {one.pk for one in due}
    assert money() == before and found() == [("state", unknown.number, 1_000, 1_000)]


def test_a_payout_that_is_being_asked_about_is_left_alone() -> None:
    rail = account()
    busy = payout(rail, state="unknown", lease_until=Now() + dt.timedelta(minutes=1))
    before = Payout.objects.filter(pk=busy.payout_id).values().get()
    compared(rail, line(busy))
    assert Payout.objects.filter(pk=busy.payout_id).values().get() == before


def test_a_newer_version_of_a_day_replaces_the_one_before() -> None:
    """The provider adds a late line: what was missing agrees, and opens again if it goes away."""
    rail = account()
    a, b = payout(rail, 1_000), payout(rail, 2_000)
    first = compared(rail, line(a))
    assert found() == [("missing_there", b.number, 2_000, None)]

    second = compared(rail, line(a), line(b, 2_000))
    assert found() == [] and second.state == "matched"
    first.refresh_from_db()
    assert first.state == "replaced"
    closed = Difference.objects.get()
    assert (closed.resolution, closed.resolved_by) == ("agrees", "system")

    third = compared(rail, line(b, 2_000), line(a))
    assert third.pk not in (first.pk, second.pk) and found() == []
    compared(rail, line(a), line(a))
    assert found() == [
        ("duplicate", a.number, 1_000, 1_000),
        ("missing_there", b.number, 2_000, None),
    ]


def test_what_two_days_said_together_is_judged_anew_when_one_is_replaced() -> None:
    """Paid on Monday, returned on Tuesday: agreed. Tuesday's newer version forgets the return."""
    rail = account()
    back = payout(rail, state="failed")
    compared(rail, line(back))
    assert found() == [("state", back.number, 1_000, 1_000)]
    compared(rail, line(back, state=LineState.REFUNDED, at=noon(NEXT)), day=NEXT)
    assert found() == []
    compared(rail, day=NEXT)
    assert found() == [("state", back.number, 1_000, 1_000)]


def test_a_person_resolves_a_difference_and_it_stays_resolved() -> None:
    rail = account()
    a = payout(rail)
    compared(rail, line(a), line("STRANGE", 5))
    one = Difference.objects.get()
    for wrong in (
        {"resolution": "agrees", "reason": "x"},
        {"resolution": "nonsense", "reason": "x"},
        {"resolution": "not_ours", "reason": "  "},
        {"resolution": "not_ours", "reason": "x" * 301},
    ):
        with pytest.raises(ServiceError):
            difference_resolve(difference_id=one.pk, actor="staff:fin", **wrong)
    assert found() == [("missing_here", "STRANGE", None, 5)]

    difference_resolve(
        difference_id=one.pk, resolution="not_ours", reason="the shop's till", actor="staff:fin"
    )
    event = AuditEvent.objects.order_by("-id")[0]
    assert (event.action, event.actor, event.reason) == (
        "difference.resolve",
        "staff:fin",
        "the shop's till",
    )
    with pytest.raises(TransitionRefused):
        difference_resolve(
            difference_id=one.pk, resolution="written_off", reason="again", actor="staff:bob"
        )
    compared(rail, line("STRANGE", 5), line(a))
    assert found() == [] and Difference.objects.get().reason == "the shop's till"


def test_lines_and_findings_cannot_be_rewritten() -> None:
    from django.db import DatabaseError, connection

    compared(account(), line("STRANGE", 5))
    for statement in (
        "UPDATE packets_statementline SET amount_fen = 6",
        "DELETE FROM packets_statementline",
        "UPDATE packets_difference SET theirs_fen = 6",
        "DELETE FROM packets_difference",
        "DELETE FROM packets_statement",
    ):
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute(statement)
    assert StatementLine.objects.get().amount_fen == 5
