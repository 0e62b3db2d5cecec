"""One packet in words: how it is cut, what a portion can be, and how likely each prize is.

Pure but for the active language. Quantities and odds are exact: they come from the rules that the
version holds (`packets/splitting_rules.py` made them effective), not from a sample.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.utils.translation import gettext as _

from campaign.preview import limits
from engine.lib.money import yuan
from packets.splitting import Rules, Strategy, Tier, tiers_sum

DIGITS = 4  # significant ones, of a percentage
EXTRA_PLACES = 2  # below a fen, of an average that isn't whole


def rules_of(packet: dict[str, Any]) -> Rules:
    """The rules of a version's packet."""
    return Rules(
        strategy=Strategy(packet["strategy"]),
        total_fen=packet["total_fen"],
        count=packet["count"],
        min_fen=packet["min_fen"],
        max_fen=packet["max_fen"],
        evenness=packet["evenness"],
        tiers=tuple(Tier(amount_fen, quantity) for amount_fen, quantity in packet["tiers"]),
        remainder=Strategy(packet["remainder"]),
    )


def rest_of(rules: Rules) -> Rules:
    """What is left for those who draw no prize, as a packet of its own."""
    prizes, prizes_fen = tiers_sum(rules.tiers, [tier.quantity for tier in rules.tiers])
    return Rules(
        strategy=rules.remainder,
        total_fen=rules.total_fen - prizes_fen,
        count=rules.count - prizes,
        min_fen=rules.min_fen,
        max_fen=rules.max_fen,
        evenness=rules.evenness,
    )


def method_words(rules: Rules) -> str:
    """How portions are cut, for people who want to know what chance decides."""
    if rules.strategy is Strategy.FIXED:
        return _("Everybody gets the same; where it doesn't divide, the difference is ¥0.01.")
    if rules.strategy is Strategy.LUCKY:
        return _(
            "By chance. Each portion gets the smallest amount; what is above it is cut at random, "
            "portion by portion, so that early and late people have equal chances at every amount "
            "(a symmetric Dirichlet distribution, evenness %(evenness)s)."
        ) % {"evenness": rules.evenness}
    if rules.strategy is Strategy.DOUBLE_MEAN:
        return _(
            "By chance. Each portion is drawn evenly between the smallest amount and about twice "
            "the average of what is left, so everybody's average is the same and late portions "
            "vary more."
        )
    return _(
        "By lot. Each portion is drawn from all that are left, without putting any back: every "
        "portion, the first or the last, has the same chance at each prize."
    )


def range_words(rules: Rules) -> str:
    least_fen, most_fen = limits(rules)
    if least_fen == most_fen:
        return yuan(least_fen)
    return _("%(least)s at least, %(most)s at most") % {
        "least": yuan(least_fen),
        "most": yuan(most_fen),
    }


def average_words(rules: Rules) -> str:
    """The expected amount of a portion: exact, or to a hundredth of a fen."""
    whole, over = divmod(rules.total_fen, rules.count)
    if not over:
        return yuan(whole)
    parts = rules.total_fen * 10**EXTRA_PLACES // rules.count
    return f"≈ ¥{Decimal(parts).scaleb(-2 - EXTRA_PLACES):,.{2 + EXTRA_PLACES}f}"


def chance_words(quantity: int, count: int) -> str:
    """`5 in 1,000 (0.5%)`, exact in the first part."""
    return _("%(quantity)s in %(count)s (%(percent)s%%)") % {
        "quantity": f"{quantity:,}",
        "count": f"{count:,}",
        "percent": percent(quantity, count),
    }


def percent(quantity: int, count: int) -> str:
    """To four significant digits, never as an exponent."""
    value = Decimal(quantity) * 100 / Decimal(count)
    places = max(0, DIGITS - 1 - value.adjusted())
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
