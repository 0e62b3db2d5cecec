"""Everything at once: nobody is paid twice, nothing is lost, and both sides' books agree.

The controls see what they must: before a provider that doesn't recognise a number that is sent
again, somebody is paid twice; without leases, a payout has two calls in flight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from packets import invariants
from packets.models import Account, Payout, Transfer
from packets.providers.sandbox.faults import Fault
from tests.packets.payouts.storm import Plan, Report, Storm

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.fault,
    pytest.mark.timeout(600),
]


def weather(plan: Plan, folder: Path) -> Report:
    found = Storm(plan, folder).run()
    print(found.text())
    return found


def assert_survived(plan: Plan, found: Report) -> None:
    assert sum(found.outcomes.values()) == plan.payouts
    assert set(found.outcomes) <= {"paid", "failed", "with a person"}
    assert found.paid_twice == []
    assert found.differing == []
    assert found.overlapping == []
    waiting = Payout.objects.filter(ended_at=None)
    in_clearing = sum(waiting.values_list("amount_fen", flat=True))
    clearing = Account.objects.get(kind=Account.Kind.CLEARING)
    assert clearing.credits_fen - clearing.debits_fen == in_clearing
    paid = Transfer.objects.filter(kind=Transfer.Kind.PAID)
    assert sum(paid.values_list("amount_fen", flat=True)) == found.ours_paid_fen
    if not found.manual:
        assert found.ours_paid_fen == found.theirs_paid_fen
    broken = [check for check in invariants.invariants_check().checks if check.value]
    assert broken == []
    assert set(found.forged_answers) <= {401}
    # It was a storm.
    assert found.called_back > plan.payouts / 10
    assert sum(found.forged_answers.values()) > plan.payouts / 50
    assert found.kills >= 2
    assert found.flushes == plan.flushes
    assert found.redelivered > 0
    assert set(plan.rates) <= set(found.faults) | {"out_of_funds"}
    assert found.outcomes["failed"] > 0


def test_a_storm_pays_everybody_once_and_both_books_agree_to_the_fen(tmp_path: Path) -> None:
    plan = Plan(payouts=2_000)
    assert_survived(plan, weather(plan, tmp_path))


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_a_storm_of_twenty_thousand(tmp_path: Path) -> None:
    plan = Plan(payouts=20_000, seed=2, limit_s=3_000)
    assert_survived(plan, weather(plan, tmp_path))


def drizzle(fault: Fault, seconds: float, **changes: Any) -> Plan:
    """One fault and a few withdrawals: what a control needs to see its one thing."""
    return Plan(
        payouts=20,
        rates={str(fault): 0.5},
        seconds={str(fault): seconds},
        kill_every_s=0,
        flushes=0,
        clocks=False,
        beats=1,
        web=False,
        **changes,
    )


@pytest.mark.control
def test_without_the_provider_s_check_of_numbers_somebody_is_paid_twice(tmp_path: Path) -> None:
    # The provider says "not found" for longer than that is believed: each such order is sent again.
    found = weather(drizzle(Fault.NOT_FOUND_FIRST, 6.0, check_numbers=False), tmp_path)
    assert found.paid_twice
    assert found.theirs_paid_fen > found.ours_paid_fen


@pytest.mark.control
def test_without_leases_two_calls_are_in_flight_at_once(tmp_path: Path) -> None:
    # A lease that is over before the answer comes is none.
    found = weather(drizzle(Fault.SLOW_ANSWER, 3.0, lease_s=0.2, patience_s=5.0), tmp_path)
    assert found.overlapping
    assert found.paid_twice == [], "the number still protects"
