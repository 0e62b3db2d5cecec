"""What links and ways have led to, counted from the rows themselves."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from campaign.models import Vehicle
from referrals.models import Referral, Reward, ShareLink, Visit


def _number(rows: QuerySet[Any], what: Any) -> Coalesce:
    """An aggregate of these rows, which name the outer row; 0 where there are none."""
    grouped = rows.order_by().values("_one").annotate(_n=what).values("_n")
    return Coalesce(Subquery(grouped, output_field=IntegerField()), 0)


def _of_link(rows: QuerySet[Any], path: str) -> QuerySet[Any]:
    named: QuerySet[Any] = rows.filter(**{path: OuterRef("pk")}).annotate(_one=Value(1))
    return named


def with_numbers(links: QuerySet[ShareLink]) -> QuerySet[ShareLink]:
    """Each link with `visit_count`, `join_count`, `reward_count`, `reward_fen` and `refused_count`
    (rewards that were not granted: over the cap, or sold out). Rewards are the link's owner's."""
    rewards = Reward.objects.filter(side=Reward.Side.INVITER)
    granted = rewards.filter(state=Reward.State.GRANTED)
    refused = rewards.exclude(state=Reward.State.GRANTED)
    return links.annotate(
        visit_count=_number(_of_link(Visit.objects.all(), "link"), Count("pk")),
        join_count=_number(_of_link(Referral.objects.all(), "link"), Count("pk")),
        reward_count=_number(_of_link(granted, "referral__link"), Count("pk")),
        reward_fen=_number(_of_link(granted, "referral__link"), Sum("claim__amount_fen")),
        refused_count=_number(_of_link(refused, "referral__link"), Count("pk")),
    )


def links_of(participant: bytes) -> QuerySet[ShareLink]:
    """A person's links with their numbers, for the API."""
    mine = ShareLink.objects.filter(participant=participant).select_related("campaign")
    return with_numbers(mine)


@dataclass(frozen=True, slots=True)
class WayCounts:
    """Visits and joins of a campaign by (channel, vehicle), as they stand now. A join by a code
    that came with a claim is of no vehicle (""): a claim doesn't say what carried its code."""

    visits: Counter[tuple[str, str]]
    joins: Counter[tuple[str, str]]


_VISITS = """
SELECT link.channel, visit.vehicle, count(*)
  FROM referrals_visit AS visit JOIN referrals_sharelink AS link ON link.id = visit.link_id
 WHERE visit.campaign_id = %(campaign)s GROUP BY 1, 2
"""
# A click whose visit is gone (it is kept for a while) came by its link.
_JOINS = """
SELECT link.channel,
       CASE edge.source WHEN 'claim' THEN '' WHEN 'code' THEN %(text)s
                        ELSE COALESCE(visit.vehicle, %(link)s) END, count(*)
  FROM referrals_referral AS edge
  JOIN referrals_sharelink AS link ON link.id = edge.link_id
  LEFT JOIN referrals_visit AS visit ON visit.click_id = edge.click_id
 WHERE edge.campaign_id = %(campaign)s GROUP BY 1, 2
"""


def way_counts(campaign_id: uuid.UUID) -> WayCounts:
    """What came by each way."""
    names: dict[str, Any] = {
        "campaign": campaign_id,
        "text": Vehicle.TEXT.value,
        "link": Vehicle.LINK.value,
    }

    def counted(statement: str) -> Counter[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, names)
            return Counter({(channel, vehicle): n for channel, vehicle, n in cursor.fetchall()})

    return WayCounts(counted(_VISITS), counted(_JOINS))
