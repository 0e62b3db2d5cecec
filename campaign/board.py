"""What the live board shows: how fast money goes, to where, and what needs somebody's eye.

Wins are read from committed claims, refusals from the counters of the claim doors. Everything is
bounded: the last minute by an index, the rest from lanes and from samples that the clock takes, so
a board that refreshes every few seconds costs the same on New Year's Eve.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.models import Q

from campaign.models import BurnSample, Campaign, CampaignPacket
from engine.lib import counters
from engine.lib.clock import now

State = Campaign.State
RUNNING = (State.LIVE, State.PAUSED)
# Counting is done when a second is over and its counters are flushed: the newest two are left out.
WINDOW_S = 60
SETTLING_S = 2
# Samples closer than this are skipped, so that two clocks at once take one.
SAMPLE_S = 10
CHART_POINTS = 240
# The forecast goes by the speed of this much of the recent past.
FORECAST_S = 600
LAGGING_LANES = 32
SHOWN_CAMPAIGNS = 50
REFUSALS = ("sold_out", "not_eligible", "paused", "busy", "ended", "not_started")


@dataclass(frozen=True, slots=True)
class Standing:
    """One running campaign's money and claims."""

    id: uuid.UUID
    slug: str
    name: str
    name_en: str
    state: str
    timezone: str
    ends_at: dt.datetime
    budget_fen: int
    bound_fen: int  # what its packets may give in all
    claimed_fen: int
    claimed_count: int
    portions: int
    unsettled: int

    @property
    def percent(self) -> int:
        """Of what its packets hold."""
        return self.claimed_fen * 100 // self.bound_fen if self.bound_fen else 0


@dataclass(frozen=True, slots=True)
class Speed:
    """Claims of each of the last seconds, by what they were answered, oldest first."""

    seconds: tuple[int, ...]
    won: tuple[int, ...]
    refused: dict[str, tuple[int, ...]]

    @property
    def won_per_s(self) -> float:
        return sum(self.won[-10:]) / min(10, len(self.won) or 1)

    @property
    def refused_per_s(self) -> float:
        recent = sum(sum(line[-10:]) for line in self.refused.values())
        return recent / min(10, len(self.seconds) or 1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where it goes at the speed of the last minutes."""

    fen_per_minute: int
    empty_at: dt.datetime | None  # when the packets are empty; None: not before the end
    left_at_end_fen: int


# Drills run beside the campaigns of real people, and are shown on their own pages only.
_OF_DRILL = """
    EXISTS (SELECT FROM campaign_campaign_client_apps AS carried
              JOIN engine_clientapp AS app ON app.id = carried.clientapp_id
             WHERE carried.campaign_id = {campaign} AND app.is_drill)
"""
_STANDINGS = """
    SELECT c.id, c.slug, c.name_zh, c.name_en, c.state, c.timezone, c.ends_at, c.budget_fen,
           -- A packet closed early gave its remainder back to the running campaign; of one that is
           -- over people look for the share of all that was to be had.
           COALESCE(sum(CASE WHEN l.state = 'closed' AND c.state IN ('live', 'paused')
                             THEN l.claimed_fen ELSE l.total_fen END), 0),
           COALESCE(sum(l.claimed_fen), 0), COALESCE(sum(l.claimed_count), 0),
           COALESCE(sum(l.count), 0),
           COALESCE(sum(l.claimed_count - COALESCE(cursor.settled_count, 0)), 0)
      FROM campaign_campaign AS c
      LEFT JOIN campaign_campaignpacket AS link ON link.campaign_id = c.id
      LEFT JOIN packets_lane AS l ON l.packet_id = link.packet_id
      LEFT JOIN packets_lanecursor AS cursor ON cursor.lane_id = l.id
     WHERE {where}
     GROUP BY c.id
     ORDER BY c.ends_at, c.id
     LIMIT %s
"""


def standings(campaign_id: uuid.UUID | None = None) -> list[Standing]:
    """The running campaigns, the one that ends first in front; or just this one, in any state."""
    running = f"c.state IN ('live', 'paused') AND NOT {_OF_DRILL.format(campaign='c.id')}"
    where = "c.id = %s" if campaign_id else running
    with connection.cursor() as cursor:
        cursor.execute(
            _STANDINGS.format(where=where),
            [*([campaign_id] if campaign_id else []), SHOWN_CAMPAIGNS],
        )
        return [
            Standing(*row[:7], *(int(number) for number in row[7:])) for row in cursor.fetchall()
        ]


_WON = """
    SELECT floor(extract(epoch FROM claim.committed_at))::bigint AS second, count(*)
      FROM packets_claim AS claim
     WHERE claim.committed_at >= to_timestamp(%(first)s)
       AND claim.committed_at < to_timestamp(%(after)s)
       AND (%(packets)s::uuid[] IS NULL OR claim.packet_id = ANY(%(packets)s::uuid[]))
       AND claim.packet_id <> ALL(%(without)s::uuid[])
     GROUP BY 1
"""
_DRILLED = f"""
    SELECT link.packet_id FROM campaign_campaignpacket AS link
     WHERE {_OF_DRILL.format(campaign="link.campaign_id")}
"""


def speed(packets: list[uuid.UUID] | None = None) -> Speed:
    """The last minute; of these packets, or of all but those of drills."""
    last = int(now().timestamp()) - SETTLING_S
    seconds = tuple(range(last - WINDOW_S + 1, last + 1))
    with connection.cursor() as cursor:
        drilled: list[uuid.UUID] = []
        if packets is None:
            cursor.execute(_DRILLED)
            drilled = [row[0] for row in cursor.fetchall()]
        cursor.execute(
            _WON,
            {"first": seconds[0], "after": last + 1, "packets": packets, "without": drilled},
        )
        won = {int(second): int(number) for second, number in cursor.fetchall()}
    wanted = None if packets is None else {packet.hex for packet in packets}
    unwanted = {packet.hex for packet in drilled}
    counted = counters.read(WINDOW_S, until=last)
    refused: dict[str, list[int]] = {}
    for at, second in enumerate(seconds):
        for name, number in counted.get(second, {}).items():
            packet, _, result = name.partition(":")
            if result == "won" or packet in unwanted or not (wanted is None or packet in wanted):
                continue
            kind = result if result in REFUSALS else "other"
            refused.setdefault(kind, [0] * len(seconds))[at] += number
    return Speed(
        seconds,
        tuple(won.get(second, 0) for second in seconds),
        {kind: tuple(line) for kind, line in sorted(refused.items())},
    )


_LAG = """
    SELECT min(claim.committed_at)
      FROM (SELECT lane.id, cursor.settled_count
              FROM packets_lane AS lane
              JOIN packets_lanecursor AS cursor ON cursor.lane_id = lane.id
              {join}
             WHERE lane.claimed_count > cursor.settled_count {where}
             LIMIT %s) AS lagging
      JOIN packets_claim AS claim
        ON claim.lane_id = lagging.id AND claim.position = lagging.settled_count + 1
"""


def settlement_lag_s(campaign_id: uuid.UUID | None = None) -> int:
    """Seconds for which the oldest unsettled claim has been waiting; of running campaigns."""
    join = "JOIN campaign_campaignpacket AS link ON link.packet_id = lane.packet_id"
    if campaign_id is None:
        join += " JOIN campaign_campaign AS c ON c.id = link.campaign_id"
    running = f"AND c.state IN ('live', 'paused') AND NOT {_OF_DRILL.format(campaign='c.id')}"
    where = "AND link.campaign_id = %s" if campaign_id else running
    with connection.cursor() as cursor:
        cursor.execute(
            _LAG.format(join=join, where=where),
            [*([campaign_id] if campaign_id else []), LAGGING_LANES],
        )
        (oldest,) = cursor.fetchone()
    return max(0, int((now() - oldest).total_seconds())) if oldest else 0


def packets_of(campaign_id: uuid.UUID) -> list[uuid.UUID]:
    links = CampaignPacket.objects.filter(campaign=campaign_id)
    return list(links.values_list("packet_id", flat=True))


# --- over time ------------------------------------------------------------------------------------


def samples_take() -> int:
    """Write down how far each running campaign is; the clock calls it. How many were written."""
    moment = now()
    taken = []
    with transaction.atomic():
        recent = set(
            BurnSample.objects.filter(at__gt=moment - dt.timedelta(seconds=SAMPLE_S)).values_list(
                "campaign_id", flat=True
            )
        )
        for standing in standings():
            if standing.id in recent:
                continue
            last = BurnSample.objects.filter(campaign=standing.id).order_by("-at").first()
            same = last is not None and last.claimed_count == standing.claimed_count
            # An idle campaign is written down once a minute, not for ever every few seconds.
            if same and last is not None and moment - last.at < dt.timedelta(minutes=1):
                continue
            taken.append(
                BurnSample(
                    campaign_id=standing.id,
                    at=moment,
                    claimed_fen=standing.claimed_fen,
                    claimed_count=standing.claimed_count,
                )
            )
        BurnSample.objects.bulk_create(taken, ignore_conflicts=True)
    return len(taken)


_BURN = """
    SELECT max(at), max(claimed_fen) FROM campaign_burnsample
     WHERE campaign_id = %s
     GROUP BY floor(extract(epoch FROM at) / %s)
     ORDER BY 1
"""


def burn(campaign: Campaign, standing: Standing) -> list[tuple[dt.datetime, int]]:
    """(moment, fen claimed so far), from the start until now, some two hundred points."""
    start = campaign.launched_at or campaign.starts_at
    first = BurnSample.objects.filter(campaign=campaign).order_by("at").first()
    if first is None:
        return [(start, 0), (now(), standing.claimed_fen)]
    step_s = max(SAMPLE_S, int((now() - first.at).total_seconds()) // CHART_POINTS)
    with connection.cursor() as cursor:
        cursor.execute(_BURN, [campaign.pk, step_s])
        points = [(at, int(fen)) for at, fen in cursor.fetchall()]
    points = [(start, 0), *((at, fen) for at, fen in points if at > start)]
    if campaign.state in RUNNING:
        points.append((now(), standing.claimed_fen))
    return points


def forecast(campaign: Campaign, standing: Standing) -> Forecast:
    """By the speed of the last minutes: when the packets are empty, what is left at the end."""
    moment = now()
    before = (
        BurnSample.objects.filter(
            Q(campaign=campaign) & Q(at__gte=moment - dt.timedelta(seconds=FORECAST_S))
        )
        .order_by("at")
        .first()
    )
    left = standing.bound_fen - standing.claimed_fen
    if before is None or campaign.state != State.LIVE:
        return Forecast(0, None, left)
    passed_s = max(1.0, (moment - before.at).total_seconds())
    # Whole fen a minute: the forecast is a guess, but money is never a float.
    per_minute = (standing.claimed_fen - before.claimed_fen) * 60 // max(1, int(passed_s))
    minutes_left = max(0, int((campaign.ends_at - moment).total_seconds()) // 60)
    if per_minute <= 0:
        return Forecast(0, None, left)
    minutes_to_empty = left // per_minute
    empty_at = moment + dt.timedelta(minutes=minutes_to_empty)
    return Forecast(
        per_minute,
        empty_at if empty_at < campaign.ends_at else None,
        max(0, left - per_minute * minutes_left),
    )
