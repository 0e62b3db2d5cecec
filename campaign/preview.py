"""What a packet's splitting will look like, by the functions that will really cut it.

Pure: rules come in, numbers come out. A packet of few portions is cut whole, several times over; of
a large one the first portions of its first lane are cut, which is a fair sample because every
position has the same distribution. Numbers are fen.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from packets import services as packet_services
from packets import splitting

# Portions cut for one preview: some 30 ms, so that it can follow the typing.
SAMPLE_PORTIONS = 4_000
SHOWN_PORTIONS = 24
RUNS_MAX = 40
BINS = 24


@dataclass(frozen=True, slots=True)
class Prize:
    """One line of the prize table and how likely a portion is to be it, in parts of a million."""

    amount_fen: int
    quantity: int
    per_million: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Portions of at least `low_fen` and at most `high_fen`, in thousandths of those cut."""

    low_fen: int
    high_fen: int
    per_mille: int


@dataclass(frozen=True, slots=True)
class Preview:
    """Everything the screen shows of one packet."""

    count: int
    total_fen: int
    lanes: int
    mean_fen: int
    median_fen: int
    low_tenth_fen: int
    high_tenth_fen: int
    least_fen: int  # the smallest and the largest that were cut
    most_fen: int
    floor_fen: int  # what no portion can be below or above, whatever the draws are
    ceiling_fen: int
    whole: bool  # whether whole packets were cut, or a sample of a large one
    runs: int
    luckiest_fen: int | None  # what the luckiest of a whole packet gets, on average
    evenness_asked: int
    evenness: int
    bins: tuple[Bin, ...]
    sample: tuple[tuple[int, int], ...]  # (fen, tier)
    prizes: tuple[Prize, ...]


def preview(
    *,
    total_fen: int,
    count: int,
    strategy: str,
    min_fen: int = 1,
    max_fen: int | None = None,
    evenness: int = 2,
    tiers: Sequence[tuple[int, int]] = (),
    remainder: str = "lucky",
    key: str = "preview",
) -> Preview:
    """Raises ServiceError where the rules can't be honoured, as creating the packet would."""
    rules, lane_count = packet_services.packet_check(
        total_fen=total_fen,
        count=count,
        strategy=strategy,
        min_fen=min_fen,
        max_fen=max_fen,
        evenness=evenness,
        tiers=tiers,
        remainder=remainder,
    )
    share = splitting.lanes(rules, lane_count)[0]
    whole = lane_count == 1 and share.count <= SAMPLE_PORTIONS
    runs = max(1, min(RUNS_MAX, SAMPLE_PORTIONS // share.count)) if whole else 1
    cut = [
        list(
            islice(
                splitting.portions(
                    rules, f"{key}:{run}", share.total_fen, share.count, share.tiers
                ),
                SAMPLE_PORTIONS,
            )
        )
        for run in range(runs)
    ]
    amounts = sorted(portion.amount_fen for run in cut for portion in run)
    floor_fen, ceiling_fen = limits(rules)
    return Preview(
        count=rules.count,
        total_fen=rules.total_fen,
        lanes=lane_count,
        mean_fen=rules.total_fen // rules.count,
        median_fen=int(statistics.median_low(amounts)),
        low_tenth_fen=amounts[len(amounts) // 10],
        high_tenth_fen=amounts[len(amounts) * 9 // 10],
        least_fen=amounts[0],
        most_fen=amounts[-1],
        floor_fen=floor_fen,
        ceiling_fen=ceiling_fen,
        whole=whole,
        runs=runs,
        luckiest_fen=sum(max(p.amount_fen for p in run) for run in cut) // runs if whole else None,
        evenness_asked=evenness,
        evenness=rules.evenness,
        bins=_bins(amounts),
        sample=tuple((p.amount_fen, p.tier) for p in cut[0][:SHOWN_PORTIONS]),
        prizes=tuple(
            Prize(tier.amount_fen, tier.quantity, tier.quantity * 1_000_000 // rules.count)
            for tier in rules.tiers
        ),
    )


def limits(rules: splitting.Rules) -> tuple[int, int]:
    """The least and the most that any portion can be under these rules."""
    if rules.strategy is splitting.Strategy.FIXED:
        return rules.total_fen // rules.count, -(-rules.total_fen // rules.count)
    prizes, prizes_fen = splitting.tiers_sum(rules.tiers, [t.quantity for t in rules.tiers])
    rest_fen, rest_count = rules.total_fen - prizes_fen, rules.count - prizes
    ends = [tier.amount_fen for tier in rules.tiers]
    if rest_count:
        if (
            rules.strategy is splitting.Strategy.TIERS
            and rules.remainder is splitting.Strategy.FIXED
        ):
            ends += [rest_fen // rest_count, -(-rest_fen // rest_count)]
        else:
            most = rest_fen - (rest_count - 1) * rules.min_fen
            ends += [rules.min_fen, min(most, rules.max_fen or most)]
            if rest_count == 1:
                ends[-2] = rest_fen
    return min(ends), max(ends)


def _bins(amounts: Sequence[int]) -> tuple[Bin, ...]:
    """A histogram of equal steps up to the 99th hundredth; what lies above is the last bar.

    A few jackpots would otherwise squeeze everybody else into the first bar.
    """
    low, high = amounts[0], amounts[min(len(amounts) - 1, len(amounts) * 99 // 100)]
    step = max(1, -(-(high - low + 1) // BINS))
    counts = Counter(min((amount - low) // step, BINS) for amount in amounts)
    found = []
    for number in range(max(counts) + 1):
        first = low + number * step
        last = amounts[-1] if number == BINS else first + step - 1
        found.append(Bin(first, last, counts[number] * 1000 // len(amounts)))
    return tuple(found)
