"""The verdict of a drill: what it counts, what it excuses, and that it can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest import judging, verdict
from loadtest.answers import Answer, Kind
from loadtest.verdict import Check, Fault, Slo

BEGINS_AT = 1_000.0
SLO = Slo(
    claims_p99_ms=200, errors_share=0.001, achieved_gap_share=0.05, recovery_s=5,
    settlement_lag_s=60,
)  # fmt: skip


def answer(
    at_s: float, *, latency_ms: float = 20.0, status: int = 200, result: str = "sold_out",
    user: str = "u", kind: Kind = Kind.FIRST, attempt: int = 1, late_ms: float = 0.0,
) -> Answer:  # fmt: skip
    return Answer(
        user, kind, BEGINS_AT + at_s + latency_ms / 1000, status, result, latency_ms,
        attempt=attempt, scheduled_at=BEGINS_AT + at_s, late_ms=late_ms,
    )  # fmt: skip


def night(seconds: int = 10, a_second: int = 100, **how: float) -> list[Answer]:
    return [
        answer(second + place / a_second, user=f"u{second}-{place}", **how)  # type: ignore[arg-type]
        for second in range(seconds)
        for place in range(a_second)
    ]


def breached(
    answers: list[Answer], faults: tuple[Fault, ...] = (), lag_s: float | None = 1.0
) -> set[str]:
    figures = verdict.count(answers, [100] * 10, BEGINS_AT, faults)
    return {check.name for check in verdict.judge(figures, SLO, lag_s) if not check.holds}


def test_a_quiet_night_holds() -> None:
    assert breached(night()) == set()


def test_slow_claims_are_a_breach_and_slow_views_are_not() -> None:
    slow = [replace(one, latency_ms=300.0) for one in night()[:20]]
    assert breached(slow + night()[20:]) == {"claims p99"}
    views = [replace(one, kind=Kind.VIEW, result="viewed") for one in slow]
    assert breached(views + night()[20:]) == set()


@pytest.mark.parametrize("status", [0, 500, 503])
def test_two_in_a_thousand_without_an_answer_are_too_many(status: int) -> None:
    failed = [replace(one, status=status, result="unavailable") for one in night()[:2]]
    assert breached(failed + night()[2:]) == {"errors"}
    assert breached(failed[:1] + night()[1:]) == set()


def test_arrivals_that_were_not_sent_or_too_late_are_missed() -> None:
    assert breached(night()[60:]) == {"arrivals that were not achieved"}
    late = [replace(one, late_ms=1_001.0) for one in night()[:60]]
    assert breached(late + night()[60:]) == {"arrivals that were not achieved"}


def test_who_asks_again_is_judged_by_the_first_answer() -> None:
    again = [replace(one, attempt=2, status=503, latency_ms=9_000.0) for one in night()]
    assert breached(night() + again) == set()


def test_a_settlement_that_does_not_catch_up_is_a_breach() -> None:
    assert breached(night(), lag_s=61.0) == breached(night(), lag_s=None)
    assert breached(night(), lag_s=61.0) == {"settlement caught up"}


def test_a_fault_excuses_its_window_and_has_a_limit_of_its_own() -> None:
    killed = Fault("kill_postgres", BEGINS_AT + 3, BEGINS_AT + 4)
    answers = [
        replace(one, status=503, result="unavailable") if 3 <= second < 5.5 else one
        for one in night()
        for second in [(one.scheduled_at or 0) - BEGINS_AT]
    ]
    assert breached(answers) == {"errors"}
    assert breached(answers, (killed,)) == set()
    figures = verdict.count(answers, [100] * 10, BEGINS_AT, (killed,))
    # 95 of the 100 of the second that begins 1.5 s after it is back are answered well.
    [recovery] = figures.recoveries
    assert recovery.after_s == pytest.approx(1.5, abs=0.11)
    never = Fault("kill_postgres", BEGINS_AT + 3, None)
    assert "recovery from kill_postgres" in breached(answers, (never,))
    late = Fault("kill_postgres", BEGINS_AT + 3, BEGINS_AT + 11)
    [recovery] = verdict.count(answers, [100] * 10, BEGINS_AT, (late,)).recoveries
    assert recovery.after_s is None and "nobody asked any more" in recovery.why


def test_slow_answers_are_no_recovery_and_two_faults_of_a_name_have_one_each() -> None:
    killed = [Fault("kill_web", BEGINS_AT + at, BEGINS_AT + at) for at in (2, 6)]
    answers = [
        replace(one, latency_ms=1_500.0) if (one.scheduled_at or 0) < BEGINS_AT + 4 else one
        for one in night()
    ]
    first, second = verdict.count(answers, [100] * 10, BEGINS_AT, killed).recoveries
    assert first.after_s == pytest.approx(2.0, abs=0.11)
    assert second.after_s == 0.0


def test_who_asks_again_shows_that_claims_are_well_again() -> None:
    killed = Fault("kill_postgres", BEGINS_AT + 3, BEGINS_AT + 12)
    again = [replace(answer(12 + n / 10), attempt=2) for n in range(20)]
    [recovery] = verdict.count(night() + again, [100] * 10, BEGINS_AT, (killed,)).recoveries
    assert recovery.after_s == 0.0


def test_a_fault_that_has_nothing_to_do_with_claims_excuses_none_of_them() -> None:
    outage = Fault("payout_outage", BEGINS_AT + 3, BEGINS_AT + 5, excuses=())
    slow = [replace(one, latency_ms=300.0) for one in night()]
    assert breached(slow, (outage,)) == {"claims p99"}
    assert breached(slow, (replace(outage, excuses=None),)) == {"claims p99"}
    within = [one for one in slow if 3 <= (one.scheduled_at or 0) - BEGINS_AT < 5]
    rest = [one for one in night() if not 3 <= (one.scheduled_at or 0) - BEGINS_AT < 5]
    assert breached(rest + within, (replace(outage, excuses=("view",)),)) == {"claims p99"}
    assert breached(rest + within, (replace(outage, excuses=("first",)),)) == set()


def test_people_who_gave_up_are_counted_by_their_last_answer() -> None:
    asked = [
        answer(0, user="patient", status=503, result="unavailable"),
        answer(1, user="patient", attempt=2),
        answer(0, user="tired"),
        answer(5, user="tired", status=503, result="unavailable"),
    ]
    assert verdict.unsettled(asked) == 1


@pytest.mark.parametrize(
    ("groups", "code"),
    [((), 0), (("slo",), 3), (("slo", "errors"), 1), (("slo", "errors", "money"), 4)],
)
def test_money_comes_before_errors_and_errors_before_slos(
    groups: tuple[str, ...], code: int
) -> None:
    checks = [Check(group, "a check", "", "", False) for group in groups]
    assert judging.exit_code([Check("money", "fine", "", "", True), *checks]) == code


def test_a_figure_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "slo.toml"
    file.write_text("[default]\nclaims_p90_ms = 1\n")
    with pytest.raises(ValueError, match="claims_p90_ms"):
        Slo.read("rain", file)
    file.write_text("[rain]\nclaims_p99_ms = 1\n")
    with pytest.raises(ValueError, match="errors_share"):
        Slo.read("rain", file)
    assert Slo.read("stampede").claims_p99_ms > Slo.read("rain").claims_p99_ms
