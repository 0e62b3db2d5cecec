"""Nobody gains by being early, late, patient or observant: the statistics of splitting.

Keys are fixed, so these tests give the same numbers each time. Bounds are a few standard errors,
computed from the samples. Each guard has a control that shows the harm it prevents.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from packets import splitting
from packets.splitting import Rules, Strategy, Tier

LUCKY = Strategy.LUCKY
PACKETS = 20_000
# Four standard errors: one comparison in 16,000 would exceed it by chance, and keys are fixed.
SIGMAS = 4.0

Sample = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def sample(rules: Rules, packets: int = PACKETS, name: str = "packet") -> Sample:
    """Amounts, one row for each packet, one column for each position."""
    quantities = [tier.quantity for tier in rules.tiers]
    found = np.empty((packets, rules.count))
    for number in range(packets):
        cut = splitting.portions(
            rules, f"{name}:{number}", rules.total_fen, rules.count, quantities
        )
        found[number] = [p.amount_fen for p in cut]
    assert (found.sum(axis=1) == rules.total_fen).all()
    return found


def standard_errors(column: np.ndarray) -> tuple[float, float]:
    """Standard errors of the mean and of the standard deviation (delta method)."""
    sd = float(column.std(ddof=1))
    fourth = float(stats.kurtosis(column, fisher=False))
    return sd / math.sqrt(len(column)), sd * math.sqrt(max(fourth - 1.0, 0.0) / 4 / len(column))


def assert_same_at_every_position(found: Sample, mean_fen: float) -> None:
    """Every mean is the packet's mean; every deviation agrees with that of the first position."""
    first_sd = found[:, 0].std(ddof=1)
    _, first_error = standard_errors(found[:, 0])
    for position in range(found.shape[1]):
        column = found[:, position]
        mean_error, sd_error = standard_errors(column)
        assert abs(column.mean() - mean_fen) < SIGMAS * mean_error, position
        assert abs(column.std(ddof=1) - first_sd) < SIGMAS * math.hypot(sd_error, first_error)


# --- the same chances at every position -----------------------------------------------------------


@pytest.mark.parametrize("evenness", [1, 2, 4])
def test_lucky_treats_first_middle_and_last_alike(evenness: int) -> None:
    found = sample(Rules(LUCKY, 1_000, 10, evenness=evenness))
    assert_same_at_every_position(found, 100.0)
    # sd = mean of the surplus * sqrt((n-1)/(n*k+1)): 99 fen a head lie above the minimum.
    expected = 99.0 * math.sqrt(9 / (10 * evenness + 1))
    for position in (0, 5, 9):
        assert found[:, position].std() == pytest.approx(expected, rel=0.03)


def test_lucky_gives_every_pair_of_positions_the_same_correlation() -> None:
    """Exchangeable means more than equal margins: any two share the correlation -1/(n-1)."""
    matrix = np.asarray(np.corrcoef(sample(Rules(LUCKY, 10_000, 6)), rowvar=False))
    off_diagonal = matrix[~np.eye(6, dtype=bool)]
    assert np.abs(off_diagonal + 1 / 5).max() < SIGMAS / math.sqrt(PACKETS)


@pytest.mark.parametrize(
    "remainder", [Strategy.LUCKY, Strategy.FIXED], ids=["rest lucky", "rest fixed"]
)
def test_tiers_treat_first_middle_and_last_alike(remainder: Strategy) -> None:
    tiers = (Tier(3_000, 1), Tier(500, 3))
    rules = Rules(Strategy.TIERS, 10_000, 10, tiers=tiers, remainder=remainder)
    found = sample(rules)
    assert_same_at_every_position(found, 1_000.0)
    grand = (found == 3_000.0).sum(axis=0)
    if remainder is Strategy.FIXED:  # Here only the grand prize has that amount.
        assert grand.sum() == PACKETS
        assert stats.chisquare(grand).pvalue > 0.001


def test_double_mean_spreads_late_positions_wider_which_is_why_it_is_not_the_default() -> None:
    found = sample(Rules(Strategy.DOUBLE_MEAN, 1_000, 10))
    for position in range(10):
        mean_error, _ = standard_errors(found[:, position])
        # Rounding 2*mean down costs a fraction of a fen, so allow half of one.
        assert abs(found[:, position].mean() - 100.0) < SIGMAS * mean_error + 0.5
    # Exact law of uniform on [0, 2S/m]: E x^2 = 4/3 (S/m)^2, and the rest is what is left of S.
    deviations, square_left = [], 990.0**2
    for m in range(10, 0, -1):
        square = square_left / m**2 * (4 / 3 if m > 1 else 1)
        deviations.append(math.sqrt(square - 99.0**2))
        square_left *= 1 - 2 / m + 4 / (3 * m**2)
    assert [round(deviations[position], 1) for position in (0, 4, 9)] == [57.2, 60.0, 76.0]
    for position in range(10):
        _, sd_error = standard_errors(found[:, position])
        assert abs(found[:, position].std() - deviations[position]) < SIGMAS * sd_error + 0.3
    assert found[:, 9].std() > 1.3 * found[:, 0].std()


def test_tiny_packets_keep_the_mean_and_lose_a_little_of_the_rest() -> None:
    """Below about five fen of surplus a head, whole fen show: 20 fen for 10 people."""
    found = sample(Rules(LUCKY, 20, 10))
    for position in range(10):
        mean_error, _ = standard_errors(found[:, position])
        assert abs(found[:, position].mean() - 2.0) < SIGMAS * mean_error
    assert found[:, 0].std() == pytest.approx(0.777, abs=0.03)
    assert found[:, 9].std() == pytest.approx(0.849, abs=0.03)


# --- the law --------------------------------------------------------------------------------------


def test_lucky_with_evenness_one_is_beta_1_n_minus_1_at_every_position() -> None:
    count, surplus_fen = 10, 10**9
    found = sample(Rules(LUCKY, surplus_fen + count, count, evenness=1))
    for position in (0, 4, 9):
        shares = (found[:, position] - 1) / surplus_fen
        assert stats.kstest(shares, stats.beta(1, count - 1).cdf).pvalue > 0.001, position


@pytest.mark.parametrize("evenness", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("count", [2, 3, 1_000])
def test_the_first_cut_is_beta_k_k_m_minus_1(evenness: int, count: int) -> None:
    surplus_fen = 10**12
    rules = Rules(LUCKY, surplus_fen + count, count, evenness=evenness)
    state = splitting.start(rules, rules.total_fen, count, ())
    shares = [
        (splitting.portion(rules, state, f"first:{number}")[0].amount_fen - 1) / surplus_fen
        for number in range(PACKETS // 4)
    ]
    assert stats.kstest(shares, stats.beta(evenness, evenness * (count - 1)).cdf).pvalue > 0.001


# --- lanes do not betray each other ---------------------------------------------------------------


def _lane(rules: Rules, key: str) -> np.ndarray:
    cut = splitting.portions(rules, key, rules.total_fen, rules.count, ())
    return np.array([p.amount_fen for p in cut], dtype=float)


def test_lanes_and_epochs_draw_unrelated_portions_and_a_shared_key_would_not() -> None:
    """Two lanes of 100,000 fen in 1,000 portions, as a watcher of the leading lane sees them."""
    rules = Rules(LUCKY, 100_000, 1_000)

    def key(lane: int, epoch: int) -> str:
        return hashlib.sha256(f"{lane}:{epoch}".encode()).hexdigest()

    seen = _lane(rules, key(0, 1))
    for other in (key(1, 1), key(2, 1), key(0, 2)):
        unseen = _lane(rules, other)
        assert (seen != unseen).any()
        assert abs(np.corrcoef(seen, unseen)[0, 1]) < SIGMAS / math.sqrt(1_000)

    # Control: one key for two lanes makes the second an open book, even where totals differ.
    assert (seen == _lane(rules, key(0, 1))).all()
    slightly_more = _lane(Rules(LUCKY, 100_017, 1_000), key(0, 1))
    assert (slightly_more == seen).mean() > 0.9
    assert np.abs(slightly_more - seen).max() <= 2
    larger = _lane(Rules(LUCKY, 103_000, 1_000), key(0, 1))
    assert np.corrcoef(seen, larger)[0, 1] > 0.999


def test_grand_prizes_of_two_lanes_lie_at_unrelated_indexes_and_a_shared_key_would_not() -> None:
    rules = Rules(Strategy.TIERS, 10_000, 100, tiers=(Tier(5_000, 1),), remainder=Strategy.FIXED)

    def where(key: str) -> int:
        cut = splitting.portions(rules, key, 10_000, 100, (1,))
        return [p.tier for p in cut].index(1)

    together = sum(where(f"{n}:0") == where(f"{n}:1") for n in range(1_000))
    assert together < 30  # One in a hundred is expected.
    assert all(where(f"{n}:0") == where(f"{n}:0") for n in range(50))


# --- caps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "cap_fen", "packets"),
    [(10, 1_100, PACKETS), (50, 1_150, 4_000), (10, 1_650, PACKETS)],
)
def test_waiting_does_not_pay_under_a_tight_cap(count: int, cap_fen: int, packets: int) -> None:
    rules = splitting.effective(Rules(LUCKY, 1_000 * count, count, max_fen=cap_fen))
    found = sample(rules, packets)
    assert found.max() <= cap_fen
    assert_same_at_every_position(found, 1_000.0)


def test_without_the_complement_waiting_pays_under_a_tight_cap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: even the highest evenness leaves the late ones several percent more."""
    monkeypatch.setattr(splitting, "cuts_complement", lambda *_: False)
    found = sample(Rules(LUCKY, 10_000, 10, max_fen=1_100, evenness=32), 5_000)
    mean_error, _ = standard_errors(found[:, 9])
    assert found[:, 9].mean() > 1_020.0
    assert found[:, 0].mean() < 1_000.0 - 10 * mean_error
    assert found[:, 9].mean() > 1_000.0 + 10 * mean_error


def test_a_cap_hardly_ever_binds_after_evenness_was_raised_and_often_does_before() -> None:
    asked = Rules(LUCKY, 1_000, 10, max_fen=300, evenness=1)
    raised = splitting.effective(asked)
    assert raised.evenness > 1

    def binds(rules: Rules) -> float:
        return float((sample(rules)[:, 0] >= 300).mean())

    assert binds(raised) < 0.002
    assert binds(asked) > 0.02


def test_a_patient_watcher_gains_nothing() -> None:
    """Stopping rules on a 20-portion packet: claim when what is left looks rich, poor, or late."""
    found = sample(Rules(LUCKY, 20_000, 20))
    left = 20_000 - np.cumsum(found, axis=1)
    mean_left = left[:, :-1] / np.arange(19, 0, -1)  # Before positions 1..19.
    for rich_enough in (1.05, 1.2, 1.5):
        wait = mean_left >= 1_000 * rich_enough
        position = np.where(wait.any(axis=1), wait.argmax(axis=1) + 1, 19)
        won = found[np.arange(len(found)), position]
        mean_error, _ = standard_errors(won)
        assert abs(won.mean() - 1_000.0) < SIGMAS * mean_error
