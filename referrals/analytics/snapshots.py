"""Snapshots: made by the sweep, read by the pages.

A campaign is counted again after `EVERY_S`, or twenty times as long as counting took, so that
however large it is, counting takes one worker a twentieth of its time. Whoever counts has the
campaign until its next time has come (Postgres's clock): a worker that dies delays it, no more.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from campaign.models import Campaign
from referrals.models import GrowthSnapshot

# Of what is stored: pages show nothing of another format rather than something wrong.
FORMAT = 1
EVERY_S = 300
REST_TIMES = 20
LEASE_S = 180  # longer than the task may run
# The last day on which anything can change: day 30 of whoever came last, and a late report.
LAST_DAYS = 40
KEPT = 100  # of each kind and campaign; the rows are history, never read by a page

_ENROL = """
    INSERT INTO referrals_snapshotdue (campaign_id)
    SELECT growth.campaign_id
      FROM campaign_campaigngrowth AS growth
      JOIN campaign_campaign AS campaign ON campaign.id = growth.campaign_id
     WHERE campaign.state NOT IN ('draft', 'review', 'scheduled')
       AND NOT EXISTS (SELECT FROM referrals_snapshotdue AS due
                        WHERE due.campaign_id = growth.campaign_id)
    ON CONFLICT DO NOTHING
"""
_TAKE = """
    UPDATE referrals_snapshotdue AS due
       SET due_at = clock_timestamp() + make_interval(secs => %(lease)s)
     WHERE due.campaign_id = (SELECT campaign_id FROM referrals_snapshotdue
                               WHERE due_at <= clock_timestamp()
                               ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING due.campaign_id
"""
_AGAIN = """
    UPDATE referrals_snapshotdue AS due
       SET due_at = CASE WHEN campaign.ends_at + make_interval(days => %(last)s) > %(until)s
                         THEN clock_timestamp() + make_interval(secs => %(rest)s) END
      FROM campaign_campaign AS campaign
     WHERE campaign.id = due.campaign_id AND due.campaign_id = %(campaign)s
"""
_PRUNE = """
    DELETE FROM referrals_growthsnapshot AS snapshot
     WHERE snapshot.campaign_id = %(campaign)s AND snapshot.kind = %(kind)s
       AND snapshot.id <= (SELECT id FROM referrals_growthsnapshot AS newer
                            WHERE newer.campaign_id = %(campaign)s AND newer.kind = %(kind)s
                            ORDER BY id DESC OFFSET %(kept)s LIMIT 1)
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """The newest snapshot: by kind what was counted; empty parts where nothing was counted yet."""

    until: dt.datetime | None
    parts: dict[str, dict[str, Any]]


def snapshot_take_due() -> uuid.UUID | None:
    """Count the campaign that has waited longest, if any is due; which one it was."""
    with connection.cursor() as cursor:
        cursor.execute(_ENROL)
        cursor.execute(_TAKE, {"lease": LEASE_S})
        row = cursor.fetchone()
    if row is None:
        return None
    campaign_id: uuid.UUID = row[0]
    snapshot_take(campaign_id=campaign_id)
    return campaign_id


def snapshot_take(*, campaign_id: uuid.UUID) -> None:
    """Count now, keep it, forget what is too old, and say when next."""
    from referrals.analytics.report import database_now, report

    campaign = Campaign.objects.get(pk=campaign_id)
    until, started = database_now(), time.monotonic()
    parts = report(campaign, until)
    rest_s = max(EVERY_S, REST_TIMES * (time.monotonic() - started))
    start = campaign.launched_at or campaign.starts_at
    with transaction.atomic(), connection.cursor() as cursor:
        GrowthSnapshot.objects.bulk_create(
            GrowthSnapshot(
                campaign=campaign,
                kind=kind,
                from_at=min(start, until),
                until_at=until,
                data={**data, "format": FORMAT},
            )
            for kind, data in parts.items()
        )
        for kind in parts:
            cursor.execute(_PRUNE, {"campaign": campaign_id, "kind": kind, "kept": KEPT})
        cursor.execute(
            _AGAIN, {"last": LAST_DAYS, "until": until, "rest": rest_s, "campaign": campaign_id}
        )


def figures(campaign_id: uuid.UUID, kinds: tuple[str, ...] = ()) -> Figures:
    """The newest of each kind (or of these)."""
    rows = [
        GrowthSnapshot.objects.filter(campaign=campaign_id, kind=kind).order_by("-id").first()
        for kind in kinds or tuple(GrowthSnapshot.Kind.values)
    ]
    found = [row for row in rows if row is not None and row.data.get("format") == FORMAT]
    return Figures(
        min((row.until_at for row in found), default=None), {row.kind: row.data for row in found}
    )
