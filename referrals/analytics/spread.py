"""Funnel, K, cycle times and cascades: counted from a crowd, with no database but for visits."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from django.db import connection

from campaign.models import Campaign
from referrals.analytics import reading
from referrals.analytics.crowd import CHANNELS, NOBODY, Bools, Crowd, Floats, Ints
from referrals.growing.metrics import forest_of, summary_of

HOUR_S, DAY_S = 3_600, 86_400
# A campaign of one evening would have no closed cohort of a day for days: young ones are counted by
# the hour. For each length of a cohort, the windows within which its people's friends count.
YOUNG_S = 3 * DAY_S
WINDOWS_S = {HOUR_S: (HOUR_S, DAY_S), DAY_S: (DAY_S, 7 * DAY_S)}
COHORTS_SHOWN = 60  # the newest; K is counted from all
SIZES = (2, 3, 6, 11, 31, 101, 301, 1_001)  # where each group of cascade sizes begins
DEPTHS_SHOWN = 20  # deeper people are counted with those of the last one
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ZERO = dt.timedelta()

_BOUNDARY = """
    SELECT at FROM referrals_visit
     WHERE campaign_id = %(campaign)s AND at >= %(start)s AND at < %(until)s
     ORDER BY at OFFSET %(rows)s LIMIT 1
"""
_VISITS = """
    SELECT link.channel, visit.vehicle, count(*)
      FROM referrals_visit AS visit JOIN referrals_sharelink AS link ON link.id = visit.link_id
     WHERE visit.campaign_id = %(campaign)s AND visit.at >= %(start)s AND visit.at < %(end)s
     GROUP BY 1, 2
"""


def visits_of(campaign: Campaign, until: dt.datetime) -> dict[str, dict[str, int]]:
    """Visits by channel and vehicle, counted in short statements."""
    found: dict[str, dict[str, int]] = {}
    names: dict[str, Any] = {"campaign": campaign.pk}
    for start, end in reading.by_time(_BOUNDARY, names, EPOCH, until):
        with connection.cursor() as cursor:
            cursor.execute(_VISITS, {**names, "start": start, "end": end})
            for channel, vehicle, number in cursor.fetchall():
                ways = found.setdefault(channel, {})
                ways[vehicle] = ways.get(vehicle, 0) + number
    return found


def funnel(crowd: Crowd, visits: dict[str, dict[str, int]]) -> dict[str, Any]:
    """By the channel of the link that friends came by. Each step but the visits counts people, and
    those of the step before: friends who joined, who then claimed, shared, brought somebody."""
    brings = np.zeros(crowd.size, np.bool_)
    brings[crowd.inviter[crowd.invited]] = True
    rows = []
    for number, channel in enumerate(CHANNELS):
        came = crowd.channel == number
        row = {
            "channel": channel,
            "links": crowd.links[number],
            "visits": sum(visits.get(channel, {}).values()),
            "vehicles": visits.get(channel, {}),
            "joined": int(came.sum()),
            "claimed": crowd.scaled(came & crowd.claimed),
            "shared": int((came & crowd.sharing).sum()),
            "brought": int((came & brings).sum()),
        }
        if row["links"] or row["visits"] or row["joined"]:
            rows.append(row)
    cold = ~crowd.invited
    return {
        "channels": rows,
        "people": crowd.scaled(np.ones(crowd.size, np.bool_)),
        "invited": int(crowd.invited.sum()),
        "cold_claimed": crowd.scaled(cold & crowd.claimed),
        "cold_shared": int((cold & crowd.sharing).sum()),
        "one_in": crowd.one_in,
    }


def spread(crowd: Crowd, zone: ZoneInfo, until_s: float) -> dict[str, Any]:
    friends = np.flatnonzero(crowd.invited)
    of_looked = friends[crowd.looked[crowd.inviter[friends]]]
    took_s = crowd.bound_s[of_looked] - crowd.joined_s[crowd.inviter[of_looked]]
    median, late = np.percentile(took_s, (50, 90)) if took_s.size else (None, None)
    return {
        **_cohorts(crowd, of_looked, took_s, zone, until_s),
        "cycle": {
            "friends": int(took_s.size),
            "median_s": None if median is None else round(float(median), 3),
            "p90_s": None if late is None else round(float(late), 3),
        },
        "suspects": int((crowd.suspect & crowd.invited).sum()),
        **_cascades(crowd),
    }


# --- K --------------------------------------------------------------------------------------------


def local_s(at_s: Floats, zone: ZoneInfo) -> Floats:
    """Wall-clock seconds of the zone; clocks are put forward and back at quarters of an hour."""
    quarters, where = np.unique(np.floor(at_s / 900), return_inverse=True)
    offsets = [
        (dt.datetime.fromtimestamp(float(one) * 900, zone).utcoffset() or _ZERO).total_seconds()
        for one in quarters
    ]
    moved: Floats = at_s + np.array(offsets, np.float64)[where]
    return moved


def day_of(at_s: Floats, zone: ZoneInfo) -> Ints:
    """Days since 1970 on the zone's calendar."""
    return np.floor(local_s(at_s, zone) / DAY_S).astype(np.int64)


def _end_s(cohort: int, unit_s: int, zone: ZoneInfo) -> float:
    """When the cohort's hour or day is over."""
    wall = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=(cohort + 1) * unit_s)  # noqa: DTZ001
    return wall.replace(tzinfo=zone).timestamp()


def _cohorts(
    crowd: Crowd, friends: Ints, took_s: Floats, zone: ZoneInfo, until_s: float
) -> dict[str, Any]:
    """Cohorts are people who joined in the same hour or day. A cohort's K is the friends who were
    bound within the window of their inviter's joining, for each of its people, whether they shared
    or not. Until the window of the last of them is over, it is open: its K can only grow."""
    rows = np.flatnonzero(crowd.looked)
    age_s = until_s - float(crowd.joined_s[rows].min()) if rows.size else 0.0
    unit_s = HOUR_S if age_s < YOUNG_S else DAY_S
    found: dict[str, Any] = {"unit_s": unit_s, "windows_s": list(WINDOWS_S[unit_s])}
    if not rows.size:
        return {**found, "k": [None, None], "k_unsuspected": [None, None], "cohorts": []}
    number = np.floor(local_s(crowd.joined_s, zone) / unit_s).astype(np.int64)
    names, place = np.unique(number[rows], return_inverse=True)
    of = np.full(crowd.size, NOBODY)
    of[rows] = place
    ends = np.array([_end_s(int(name), unit_s, zone) for name in names])
    cohorts: list[dict[str, Any]] = [
        {
            "start": _label(int(name), unit_s),
            "people": int(people) * crowd.one_in,
            "friends": [],
            "closed": [],
        }
        for name, people in zip(names, np.bincount(place), strict=True)
    ]
    k, unsuspected = [], []
    for window_s in WINDOWS_S[unit_s]:
        closed = ends + window_s <= until_s
        in_time = friends[took_s <= window_s]
        counts = np.bincount(of[crowd.inviter[in_time]], minlength=names.size)
        for cohort, count, is_closed in zip(cohorts, counts, closed, strict=True):
            cohort["friends"].append(int(count) * crowd.one_in)
            cohort["closed"].append(bool(is_closed))
        k.append(_k(crowd, in_time, of, closed, np.ones(crowd.size, np.bool_)))
        unsuspected.append(_k(crowd, in_time, of, closed, ~crowd.suspect))
    return {**found, "k": k, "k_unsuspected": unsuspected, "cohorts": cohorts[-COHORTS_SHOWN:]}


def _k(crowd: Crowd, friends: Ints, of: Ints, closed: Bools, among: Bools) -> float | None:
    """Over closed cohorts; None while there is none. `among`: friends and people who count."""
    counted = np.zeros(crowd.size, np.bool_)
    counted[of != NOBODY] = closed[of[of != NOBODY]]
    counted &= among
    people = int(counted.sum())
    brought = int((counted[crowd.inviter[friends]] & among[friends]).sum())
    return round(brought / people, 4) if people else None


def _label(cohort: int, unit_s: int) -> str:
    wall = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=cohort * unit_s)  # noqa: DTZ001
    return f"{wall:%Y-%m-%d}" if unit_s == DAY_S else f"{wall:%Y-%m-%d %H:00}"


# --- cascades -------------------------------------------------------------------------------------


def _cascades(crowd: Crowd) -> dict[str, Any]:
    """Of the trees of two or more: people who came alone and invited nobody are in none."""
    inside = crowd.invited.copy()
    inside[crowd.inviter[crowd.invited]] = True
    place = np.cumsum(inside) - 1
    up = crowd.inviter[inside]
    forest = forest_of(np.where(up == NOBODY, NOBODY, place[up]).astype(np.int64))
    summary = summary_of(forest)
    group = np.searchsorted(np.array(SIZES), forest.people, side="right") - 1
    depths = list(summary.by_depth)
    deep = depths[DEPTHS_SHOWN:]
    return {
        "trees": summary.cascades,
        "in_trees": summary.people,
        "invited": summary.invited,
        "largest": summary.largest,
        "deepest": summary.deepest,
        "broadest": summary.broadest,
        "virality": round(summary.virality, 4),
        "virality_of_largest": round(summary.virality_of_largest, 4),
        "beyond_first": round(sum(depths[2:]) / summary.invited, 4) if summary.invited else None,
        "by_depth": depths[:DEPTHS_SHOWN] + ([sum(deep)] if deep else []),
        "sizes": [
            [low, int(number)]
            for low, number in zip(SIZES, np.bincount(group, minlength=len(SIZES)), strict=True)
        ],
    }
