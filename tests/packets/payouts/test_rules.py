"""What an answer means: every combination, and what must never follow."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from packets.models import Payout
from packets.payouts.rules import Decision, ManualReason, Standing, Timing, decide
from packets.providers.base import Kind, Result

State, Step = Payout.State, Payout.Step
TIMING = Timing()
HOUR = 3_600.0

standings = st.builds(
    Standing,
    state=st.sampled_from([State.SUBMITTING, State.ACCEPTED, State.USER_ACTION, State.UNKNOWN]),
    made=st.sampled_from([Step.SUBMIT, Step.QUERY, Step.CANCEL]),
    queries=st.integers(0, 60),
    numbers=st.integers(1, 4),
    amount_fen=st.just(500),
    cancel_asked=st.booleans(),
    since_submit_s=st.floats(0, 100 * HOUR),
    since_first_s=st.floats(0, 100 * HOUR),
    grace_s=st.floats(0, 2 * HOUR),
)
results = st.builds(
    Result,
    kind=st.sampled_from(list(Kind)),
    amount_fen=st.sampled_from([None, 500, 501]),
    retry_after_s=st.none() | st.floats(0, 100),
    not_found=st.booleans(),
    retry_new=st.booleans(),
)
FRESH = Standing(
    state=State.SUBMITTING,
    made=Step.SUBMIT,
    queries=0,
    numbers=1,
    amount_fen=500,
    cancel_asked=False,
    since_submit_s=1,
    since_first_s=1,
    grace_s=600,
)


def said(standing: Standing, result: Result) -> Decision:
    return decide(standing, result, TIMING, 0.0)


@given(standings, results, st.floats(0, 0.999))
def test_only_the_providers_word_ends_a_payout(
    standing: Standing, result: Result, jitter: float
) -> None:
    decision = decide(standing, result, TIMING, jitter)

    if decision.ends:
        assert result.kind in (Kind.PAID, Kind.FAILED_FINAL)
        assert result.amount_fen in (None, standing.amount_fen)
        assert (decision.state == State.PAID) == (result.kind is Kind.PAID)
        assert decision.number == ("paid" if decision.state == State.PAID else "failed")
    else:
        # Due some time, or somebody's: never forgotten.
        assert (decision.after_s is None) == (decision.manual is not None)
        assert decision.after_s is None or decision.after_s >= 0


@given(standings, results, st.floats(0, 0.999))
def test_nothing_is_sent_again_that_the_provider_may_have(
    standing: Standing, result: Result, jitter: float
) -> None:
    decision = decide(standing, result, TIMING, jitter)

    if decision.step == Step.SUBMIT and decision.number == "live":
        refused = result.kind is Kind.RETRY_SAME and standing.made == Step.SUBMIT
        missing = (
            result.kind is Kind.UNKNOWN
            and result.not_found
            and standing.since_submit_s >= standing.grace_s
        )
        assert refused or missing
    if decision.step == Step.SUBMIT and decision.number != "live":
        assert result.kind is Kind.FAILED_FINAL


@given(standings, results, st.floats(0, 0.999))
def test_nobody_waits_for_longer_than_two_days_without_a_person(
    standing: Standing, result: Result, jitter: float
) -> None:
    decision = decide(replace(standing, since_first_s=49 * HOUR), result, TIMING, jitter)

    assert decision.ends or decision.manual or decision.number == "failed"


def test_the_questions_follow_the_schedule() -> None:
    waits = []
    for asked in range(9):
        decision = said(
            replace(FRESH, state=State.UNKNOWN, made=Step.QUERY, queries=asked),
            Result(Kind.UNKNOWN, code="timeout"),
        )
        waits.append(decision.after_s)
    assert waits == [5, 30, 120, 600, HOUR, 6 * HOUR, HOUR, HOUR, HOUR]


def test_not_found_is_not_believed_before_its_time() -> None:
    missing = Result(Kind.UNKNOWN, not_found=True)
    asked = replace(FRESH, state=State.UNKNOWN, made=Step.QUERY, queries=4, since_submit_s=590)

    early = said(asked, missing)
    late = said(replace(asked, since_submit_s=600), missing)

    assert (early.step, early.after_s) == (Step.QUERY, 10)
    assert (late.step, late.after_s) == (Step.SUBMIT, 0)


def test_a_failed_question_does_not_forget_an_acceptance() -> None:
    asked = replace(FRESH, state=State.ACCEPTED, made=Step.QUERY)

    assert said(asked, Result(Kind.UNKNOWN, code="timeout")).state == State.ACCEPTED
    assert said(asked, Result(Kind.UNKNOWN, not_found=True)).state == State.UNKNOWN


def test_another_amount_goes_to_a_person_even_when_it_says_paid() -> None:
    decision = said(FRESH, Result(Kind.PAID, amount_fen=501))

    assert decision.manual is ManualReason.AMOUNT_DIFFERS
    assert decision.state == State.UNKNOWN


def test_a_dead_number_is_followed_by_a_new_one_three_times() -> None:
    dead = Result(Kind.FAILED_FINAL, retry_new=True)

    assert said(FRESH, dead).step == Step.SUBMIT
    assert said(replace(FRESH, numbers=3), dead).state == State.FAILED


def test_what_its_owner_has_cancelled_is_cancelled_when_nobody_calls() -> None:
    waits = Result(Kind.USER_ACTION)
    asked = replace(FRESH, state=State.USER_ACTION, made=Step.QUERY, cancel_asked=True)

    assert said(asked, waits).step == Step.CANCEL
    assert said(replace(asked, made=Step.CANCEL), waits).step == Step.QUERY
    assert said(asked, Result(Kind.FAILED_FINAL)).state == State.CANCELLED
    assert said(asked, Result(Kind.PAID)).state == State.PAID
