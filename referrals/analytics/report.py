"""All figures of one campaign at one moment."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection

from campaign.models import Campaign
from referrals.analytics import money, seen, spread
from referrals.analytics.crowd import crowd_of
from referrals.models import GrowthSnapshot

Kind = GrowthSnapshot.Kind


def database_now() -> dt.datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
        return moment


def report(campaign: Campaign, until: dt.datetime) -> dict[str, dict[str, Any]]:
    """By kind. Each part's own module says what it counts."""
    zone = ZoneInfo(campaign.timezone)
    crowd = crowd_of(campaign, until)
    kept = seen.retention(campaign, crowd, zone, until)
    found = {
        Kind.FUNNEL: spread.funnel(crowd, spread.visits_of(campaign, until)),
        Kind.SPREAD: spread.spread(crowd, zone, until.timestamp()),
        Kind.RETENTION: kept,
        Kind.GROUPS: seen.groups(campaign, zone, until),
        Kind.COST: money.cost(campaign, crowd, kept),
        Kind.BURN: money.burn(campaign),
    }
    return {kind.value: data for kind, data in found.items()}
