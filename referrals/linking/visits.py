"""One opening of a link by a person becomes a Visit, and the click that it hands out.

Invariants: the same visitor counts once in `SAME_VISIT_S`; a link has at most the campaign's cap of
visits an hour. Both hold under concurrency: the visits of one link are written one after the other.
"""

from __future__ import annotations

import datetime as dt
import uuid

from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from referrals.linking.places import Place
from referrals.models import Referral, ShareLink, Visit

SAME_VISIT_S = 30 * 60  # looking again within half an hour is the same visit
HOUR = dt.timedelta(hours=1)


def visit_record(
    *, link: ShareLink, vehicle: str, place: Place, agent: str, most_per_hour: int
) -> Visit | None:
    """The visit that this opening is; None where the link has had enough of them."""
    with transaction.atomic():
        # guard:visit begin
        _one_after_the_other(link)
        # guard:visit end
        visits = Visit.objects.filter(link=link)
        same = visits.filter(
            visitor_hash=place.visitor, at__gt=Now() - dt.timedelta(seconds=SAME_VISIT_S)
        )
        # A click that was used belongs to whoever used it: this is somebody else at that address.
        used = Referral.objects.filter(click_id=OuterRef("click_id"))
        known = same.exclude(Exists(used)).order_by("-at").first()
        if known is not None:
            return known
        if visits.filter(at__gt=Now() - HOUR)[:most_per_hour].count() >= most_per_hour:
            return None
        return Visit.objects.create(
            link=link,
            campaign_id=link.campaign_id,
            vehicle=vehicle,
            click_id=uuid.uuid4(),
            network_hash=place.network,
            visitor_hash=place.visitor,
            agent=agent,
        )


def _one_after_the_other(link: ShareLink) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"visit:{link.pk}"]
        )
