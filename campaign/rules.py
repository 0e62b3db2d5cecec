"""What a campaign and its packets must be like, said in words before the database says it.

Each check raises `ServiceError` naming the field, a code and the reason; none writes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from campaign import channel_rules, growth_rules, selectors
from campaign.models import (
    SLUG_MAX_CHARS,
    Campaign,
    TargetUpload,
    slug_is_valid,
    validate_timezone,
)
from engine.lib.clock import now
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN, yuan
from engine.models import ClientApp
from packets.models import Packet

# What chance may give one person: the ceiling for prizes in lotteries that promote sales, in the
# Interim Provisions on Regulating Promotional Activities (SAMR order 32 of 2020, article 17).
PRIZE_CAP_FEN = 50_000_00
# The rules of cutting that `packet_check` knows; the others say for whom the packet is.
_CUT = (
    "strategy", "min_fen", "max_fen", "evenness", "tiers", "remainder", "lane_count",
)  # fmt: skip


def check_campaign(
    *,
    slug: str,
    name_zh: str,
    budget_fen: int,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
    timezone_name: str,
    client_apps: Sequence[int],
    own_slug: str = "",
) -> None:
    """All that a campaign must meet, new or changed; `own_slug` is what it is called so far."""
    check_slug(slug)
    if not name_zh.strip():
        raise ServiceError("name_zh", "blank", _("A campaign needs a name."))
    check_budget(budget_fen)
    check_window(starts_at, ends_at)
    try:
        validate_timezone(timezone_name)
    except ValidationError:
        raise ServiceError(
            "timezone", "unknown", _("%(name)s is not a time zone."), name=timezone_name
        ) from None
    if not client_apps:
        raise ServiceError("client_apps", "blank", _("At least one client app must carry it."))
    check_drill(slug, client_apps, own_slug)
    if slug != own_slug and Campaign.objects.filter(slug=slug).exists():
        raise ServiceError("slug", "taken", _("There is a campaign %(slug)s already."), slug=slug)


def check_drill(slug: str, client_apps: Sequence[int], own_slug: str) -> None:
    """A drill's app carries one campaign, and that campaign no other app: nobody real is in it."""
    if not ClientApp.objects.filter(pk__in=client_apps, is_drill=True).exists():
        return
    others = Campaign.objects.filter(client_apps__in=client_apps).exclude(slug=own_slug or slug)
    if len(client_apps) > 1 or others.exists():
        raise ServiceError(
            "client_apps",
            "of_a_drill",
            _("The app of a drill carries that drill's campaign alone."),
        )


def check_slug(slug: str) -> None:
    if not slug_is_valid(slug):
        raise ServiceError(
            "slug",
            "invalid",
            _("Small letters, digits and single hyphens, up to %(most)s characters."),
            most=SLUG_MAX_CHARS,
        )


def check_budget(budget_fen: int, field: str = "budget_fen") -> None:
    if not 0 < budget_fen <= MAX_FEN:
        raise ServiceError(
            field,
            "out_of_range",
            _("The budget must lie between %(least)s and %(most)s."),
            least=yuan(1),
            most=yuan(MAX_FEN),
        )


def check_window(starts_at: dt.datetime, ends_at: dt.datetime) -> None:
    if ends_at <= starts_at:
        raise ServiceError(
            "ends_at", "ends_before_start", _("The campaign would end before it starts.")
        )


def check_packet_window(campaign: Campaign, opens_at: dt.datetime, closes_at: dt.datetime) -> None:
    if closes_at <= opens_at:
        raise ServiceError(
            "closes_at", "ends_before_start", _("The packet would close before it opens.")
        )
    if opens_at < campaign.starts_at or closes_at > campaign.ends_at:
        raise ServiceError(
            "closes_at" if closes_at > campaign.ends_at else "opens_at",
            "outside_campaign",
            _("The packet's window must lie within the campaign's."),
        )


def check_sum(campaign: Campaign, *, extra_fen: int) -> None:
    needed_fen = selectors.campaign_committed_fen(campaign) + extra_fen
    if needed_fen > campaign.budget_fen:
        raise ServiceError(
            "budget_fen",
            "budget_below_packets",
            _("The budget of %(budget)s is below the packets' sum of %(needed)s."),
            budget=yuan(campaign.budget_fen),
            needed=yuan(needed_fen),
        )


def cut_only(cut: dict[str, Any]) -> dict[str, Any]:
    """Of a packet's rules those that decide how it is cut."""
    return {name: cut[name] for name in _CUT if name in cut}


def check_prizes(
    *,
    total_fen: int,
    count: int,
    strategy: str = "lucky",
    min_fen: int = 1,
    max_fen: int | None = None,
    tiers: Sequence[tuple[int, int]] = (),
    remainder: str = "lucky",
    **_rest: Any,
) -> None:
    """Nothing that chance gives exceeds the legal ceiling, not even in the unlikeliest draw."""
    for amount_fen, _quantity in tiers:
        if amount_fen > PRIZE_CAP_FEN:
            raise ServiceError(
                "tiers",
                "prize_above_cap",
                _("A prize of %(amount)s is above the legal ceiling of %(cap)s."),
                amount=yuan(amount_fen),
                cap=yuan(PRIZE_CAP_FEN),
            )
    rest_fen = total_fen - sum(amount * quantity for amount, quantity in tiers)
    rest_count = count - sum(quantity for _amount, quantity in tiers)
    # Where prizes are drawn, equal portions are what most people draw: a prize by chance as well.
    if strategy == "fixed" or rest_count < 1:
        return
    if strategy == "tiers" and remainder == "fixed":
        largest = -(-rest_fen // rest_count)
    else:
        largest = rest_fen - (rest_count - 1) * min_fen
    if max_fen is not None:
        largest = min(largest, max_fen)
    if largest > PRIZE_CAP_FEN:
        raise ServiceError(
            "max_fen",
            "prize_above_cap",
            _(
                "One portion could be %(amount)s; by chance nobody may get more than %(cap)s. "
                "Set the largest portion."
            ),
            amount=yuan(largest),
            cap=yuan(PRIZE_CAP_FEN),
        )


def check_ready(campaign: Campaign) -> None:
    """Everything that must be there before a second person looks at the campaign."""
    packets = list(Packet.objects.filter(campaign_link__campaign=campaign))
    if not packets:
        raise ServiceError("packets", "blank", _("A campaign needs at least one packet."))
    if not campaign.rules_zh.strip():
        raise ServiceError("rules_zh", "blank", _("The rules that people read are missing."))
    drawn = [packet for packet in packets if packet.strategy == Packet.Strategy.TIERS]
    if drawn and not campaign.odds_zh.strip():
        raise ServiceError(
            "odds_zh", "blank", _("Where prizes are drawn, their odds must be written down.")
        )
    check_sum(campaign, extra_fen=0)
    growth_rules.check_ready(campaign)
    channel_rules.check_acknowledged(campaign)
    if campaign.ends_at <= now():
        raise ServiceError("ends_at", "in_the_past", _("The end of the campaign has passed."))
    for packet in packets:
        if packet.closes_at <= now():
            raise ServiceError("closes_at", "in_the_past", _("The end of a packet has passed."))
        check_prizes(
            total_fen=packet.total_fen,
            count=packet.count,
            strategy=packet.strategy,
            min_fen=packet.min_fen,
            max_fen=packet.max_fen,
            tiers=packet.tiers,
            remainder=packet.remainder,
        )
        if packet.targeted:
            _check_list(packet)


def _check_list(packet: Packet) -> None:
    States = TargetUpload.State
    if packet.uploads.filter(state__in=(States.RECEIVED, States.RUNNING)).exists():
        raise ServiceError(
            "targets", "still_reading", _("A list of people is still being read; wait for it.")
        )
    if not packet.targets.exists():
        raise ServiceError(
            "targets", "blank", _("A targeted packet needs a list of people, or nobody can claim.")
        )
