"""Figures of a crowd: exact percentiles, and every answer counted once and in the right place."""

from __future__ import annotations

import pytest

from loadtest import summary
from loadtest.answers import Answer, Kind


def won(
    user: str,
    claim: str,
    amount_fen: int,
    *,
    kind: Kind = Kind.FIRST,
    replayed: bool = False,
    at: float = 10.0,
    latency_ms: float = 5.0,
) -> Answer:
    return Answer(user, kind, at, 200, "won", latency_ms, claim, amount_fen, replayed)


def heard(user: str, status: int, result: str, kind: Kind = Kind.FIRST) -> Answer:
    return Answer(user, kind, 10.0, status, result, 5.0)


@pytest.mark.parametrize(
    ("percent", "value"), [(50, 500), (90, 900), (99, 990), (99.9, 999), (100, 1000), (0.1, 1)]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(percent: float, value: int) -> None:
    assert summary.percentile(range(1, 1001), percent) == value


def test_percentiles_of_few_values_are_values_that_were_measured() -> None:
    assert summary.percentile([7.0], 50) == 7.0
    assert summary.percentile([7.0], 99) == 7.0
    assert summary.percentile([1.0, 9.0], 50) == 1.0
    assert summary.percentile([1.0, 9.0], 51) == 9.0


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_its_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        summary.percentile([1.0], percent)


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summary.percentile([], 50)


def test_alice_wins_and_hears_the_same_again_while_bob_loses() -> None:
    totals = summary.tally(
        [
            heard("alice", 200, "viewed", Kind.VIEW),
            won("alice", "c1", 124),
            heard("bob", 200, "sold_out"),
            won("alice", "c1", 124, kind=Kind.AGAIN, replayed=True),
        ]
    )
    assert totals.results == {"won": 2, "sold_out": 1}
    assert totals.won == {"alice": ("c1", 124)}
    assert totals.won_fen == 124
    assert (totals.replays, totals.replays_changed, totals.replays_unmarked) == (1, 0, 0)
    assert totals.answers == 4
    assert len(totals.asked) == 2
    assert not totals.failed


def test_a_win_that_changes_when_heard_again_fails_the_run() -> None:
    totals = summary.tally([won("alice", "c1", 124), won("alice", "c1", 125, replayed=True)])
    assert totals.replays_changed == 1
    assert totals.failed


def test_a_win_heard_again_as_if_it_were_new_fails_the_run() -> None:
    totals = summary.tally([won("alice", "c1", 124), won("alice", "c1", 124)])
    assert totals.replays_unmarked == 1
    assert totals.failed


def test_503_then_an_answer_is_no_error_but_silence_for_good_is() -> None:
    totals = summary.tally([heard("alice", 503, "unavailable"), won("alice", "c1", 1)])
    assert (totals.asked_again, totals.errors, totals.unanswered) == (1, 0, 0)
    assert not totals.failed
    totals = summary.tally([heard("bob", 0, "no_answer"), heard("bob", 200, "busy")])
    assert (totals.asked_again, totals.errors, totals.unanswered) == (2, 0, 1)
    assert totals.failed


@pytest.mark.parametrize("status", [401, 404, 422, 500])
def test_any_other_status_is_an_error(status: int) -> None:
    totals = summary.tally([heard("alice", status, "some_code")])
    assert totals.errors == 1
    assert totals.failed
    assert totals.error_examples == [f"first alice: {status} some_code"]


def test_silence_has_no_latency() -> None:
    totals = summary.tally([heard("alice", 0, "no_answer")])
    assert summary.Latency.of(totals.latencies_ms) is None
    assert summary.as_json(totals)["latency_ms"] is None


def test_the_rate_counts_from_the_first_request_to_the_last_answer() -> None:
    totals = summary.tally(
        [
            won("alice", "c1", 1, at=100.0, latency_ms=500.0),
            won("bob", "c2", 1, at=101.5, latency_ms=100.0),
        ]
    )
    assert totals.seconds == 2.0
    assert summary.as_json(totals)["requests_per_s"] == 1.0
    assert summary.as_json(totals)["latency_ms"] == {"p50": 100, "p90": 500, "p99": 500, "max": 500}


def test_the_table_names_every_result() -> None:
    totals = summary.tally([won("alice", "c1", 124), heard("bob", 200, "sold_out")])
    told = dict(summary.rows(totals))
    assert told["answered won"] == "1"
    assert told["answered sold_out"] == "1"
    assert told["people who won"] == "1 (124 fen)"
    assert told["wins heard again"] == "0, all the same"
