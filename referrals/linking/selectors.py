"""What links have led to, counted from the rows themselves."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

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
