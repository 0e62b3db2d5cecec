"""What a campaign and its packets must be like, said in words before the database says it.

Each check raises `ServiceError` naming the field, a code and the reason; none writes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from django.core.exceptions import ValidationError

from campaign import selectors
from campaign.models import SLUG_MAX_CHARS, Campaign, slug_is_valid, validate_timezone
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN, yuan


def check_campaign(
    *,
    slug: str,
    name_zh: str,
    budget_fen: int,
    starts_at: dt.datetime,
    ends_at: dt.datetime,
    timezone_name: str,
    client_apps: Sequence[int],
) -> None:
    """All that a new campaign must meet."""
    if not slug_is_valid(slug):
        raise ServiceError(
            "slug",
            "invalid",
            f"small letters, digits and single hyphens, up to {SLUG_MAX_CHARS} characters",
        )
    if not name_zh.strip():
        raise ServiceError("name_zh", "blank", "a campaign needs a name")
    check_budget(budget_fen)
    check_window(starts_at, ends_at)
    try:
        validate_timezone(timezone_name)
    except ValidationError:
        raise ServiceError("timezone", "unknown", f"{timezone_name} is not a time zone") from None
    if not client_apps:
        raise ServiceError("client_apps", "blank", "at least one client app must carry it")
    if Campaign.objects.filter(slug=slug).exists():
        raise ServiceError("slug", "taken", f"there is a campaign {slug} already")


def check_budget(budget_fen: int) -> None:
    if not 0 < budget_fen <= MAX_FEN:
        raise ServiceError(
            "budget_fen", "out_of_range", f"the budget must be 1 to {MAX_FEN} fen, not {budget_fen}"
        )


def check_window(starts_at: dt.datetime, ends_at: dt.datetime) -> None:
    if ends_at <= starts_at:
        raise ServiceError(
            "ends_at", "ends_before_start", "the campaign would end before it starts"
        )


def check_sum(campaign: Campaign, *, extra_fen: int) -> None:
    needed_fen = selectors.campaign_committed_fen(campaign) + extra_fen
    if needed_fen > campaign.budget_fen:
        raise ServiceError(
            "budget_fen",
            "budget_below_packets",
            f"the budget of {yuan(campaign.budget_fen)} is below the packets' sum of "
            f"{yuan(needed_fen)}",
        )
