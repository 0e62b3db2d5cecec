"""Complaints: whoever is bothered says so, and a campaign that bothers many is slowed by itself.

The rate is complaints per 1,000 visits, over the newest `JUDGED_VISITS` visits of the last day.
Only complaints from networks that have looked at the link count, and each network once, however
many links it was sent: neither a crowd that never saw them nor a single person can stop a campaign.
Over the campaign's threshold people must pause between shares; over `STOP_FACTOR` times of it
nobody gets a link. Both end by themselves once people look without complaining.
"""

from __future__ import annotations

import datetime as dt
import enum
import threading
import time
import uuid
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models.functions import Now

from campaign.models import Campaign, CampaignGrowth, Notice
from campaign.services.notices import notices_send, people_who_may
from referrals.models import Complaint, ShareLink

JUDGED_VISITS = 2_000  # the newest; a bound on what is read
LOOK_BACK = dt.timedelta(days=1)
STOP_FACTOR = 3
SLOWED_COOLDOWN_S = 600  # between two shares of a person while sharing is slowed
LIFETIME_S = 2.0  # of what a process remembers
MAX_CAMPAIGNS = 1_000
RIGHT = "campaign.change_campaignchannel"  # who is told


class Mood(enum.StrEnum):
    OPEN = "open"
    SLOWED = "slowed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Rate:
    visits: int
    complaints: int

    @property
    def per_mille(self) -> float:
        return 1_000 * self.complaints / self.visits if self.visits else 0.0


def mood_of(growth: CampaignGrowth, rate: Rate) -> Mood:
    """What this rate means to this campaign; pure."""
    if rate.visits < growth.complaint_min_visits or not rate.complaints:
        return Mood.OPEN
    if rate.per_mille > STOP_FACTOR * growth.complaint_per_mille:
        return Mood.STOPPED
    return Mood.SLOWED if rate.per_mille > growth.complaint_per_mille else Mood.OPEN


_RATE = """
WITH judged AS (
    SELECT at FROM referrals_visit
     WHERE campaign_id = %(campaign)s AND at > now() - make_interval(secs => %(back)s)
     ORDER BY at DESC LIMIT %(most)s
), since AS (SELECT count(*) AS visits, min(at) AS at FROM judged)
SELECT since.visits,
       (SELECT count(DISTINCT complaint.network_hash) FROM referrals_complaint AS complaint
         WHERE complaint.campaign_id = %(campaign)s AND complaint.at >= since.at
           AND EXISTS (SELECT FROM referrals_visit AS seen
                        WHERE seen.link_id = complaint.link_id
                          AND seen.network_hash = complaint.network_hash))
  FROM since
"""


def rate_of(campaign_id: uuid.UUID) -> Rate:
    with connection.cursor() as cursor:
        cursor.execute(
            _RATE,
            {"campaign": campaign_id, "back": LOOK_BACK.total_seconds(), "most": JUDGED_VISITS},
        )
        visits, complaints = cursor.fetchone()
    return Rate(visits, complaints)


_known: dict[uuid.UUID, tuple[float, Rate]] = {}
_lock = threading.Lock()


def mood_now(growth: CampaignGrowth) -> Mood:
    """The mood as seen within the last seconds."""
    moment = time.monotonic()
    known = _known.get(growth.campaign_id)
    if known is None or moment >= known[0]:
        known = (moment + LIFETIME_S, rate_of(growth.campaign_id))
        with _lock:
            if len(_known) >= MAX_CAMPAIGNS:
                _known.clear()
            _known[growth.campaign_id] = known
    return mood_of(growth, known[1])


def forget() -> None:
    with _lock:
        _known.clear()


def complaint_record(*, link: ShareLink, growth: CampaignGrowth, network: str, reason: str) -> None:
    """Once per link and network; repeats change nothing. Staff hear of it when it has an effect."""
    with transaction.atomic():
        Complaint.objects.bulk_create(
            [
                Complaint(
                    link=link,
                    campaign_id=link.campaign_id,
                    network_hash=network,
                    reason=reason,
                )
            ],
            ignore_conflicts=True,
        )
        mood = mood_of(growth, rate_of(link.campaign_id))
        if mood is not Mood.OPEN:
            _tell(growth.campaign, mood)


def _tell(campaign: Campaign, mood: Mood) -> None:
    """Once a day for each mood; two at once may tell twice, which does no harm."""
    told = Notice.objects.filter(
        campaign=campaign,
        kind=Notice.Kind.COMPLAINTS,
        details__mood=mood.value,
        created_at__gt=Now() - LOOK_BACK,
    )
    if not told.exists():
        notices_send(
            people_who_may(RIGHT), campaign=campaign, kind=Notice.Kind.COMPLAINTS, mood=mood.value
        )
