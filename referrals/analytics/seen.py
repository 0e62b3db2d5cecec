"""Who was seen again: on day 1, 7 and 30 after joining, and lately in each chat group.

A person is seen on a day of the campaign's calendar on which the app reported them `active` or a
mission done, or on which they claimed something themselves (of any packet; rewards are claimed for
them). "On day k" means on that day, not by it. Only people whose day k is over are counted, so a
young campaign has no D30 yet, rather than a low one.
"""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from django.db import connection

from campaign.models import Campaign
from referrals.analytics import reading
from referrals.analytics.crowd import Bools, Crowd, Ints, rewards_of
from referrals.analytics.spread import DAY_S, day_of

DAYS = (1, 7, 30)
# People of each side who are looked up; of more, those with the lowest digests, a fair sample.
PEOPLE_MAX = 100_000
PEOPLE_A_LOOKUP = 1_000  # some tens of milliseconds: three index ranges each
REPORTS_LOOKED_AT = 10_000  # the newest of all apps
# A group is silent when nobody of it was seen for so many days.
SILENT_DAYS = 7
GROUP_PACKETS_MAX = 2_000  # the newest
GROUP_PEOPLE_MAX = 50_000
GROUPS_SHOWN = 100

_SEEN = """
    SELECT DISTINCT who.n::int4, seen.k::int4
      FROM unnest(%(people)s::bytea[], %(days)s::date[]) WITH ORDINALITY AS who(id, day, n)
     CROSS JOIN LATERAL (
           SELECT (event.at AT TIME ZONE %(zone)s)::date - who.day AS k
             FROM referrals_serverevent AS event
            WHERE event.participant = who.id AND event.kind IN ('active', 'mission_done')
              AND event.at >= (who.day + 1)::timestamp AT TIME ZONE %(zone)s
              AND event.at < (who.day + 31)::timestamp AT TIME ZONE %(zone)s
           UNION ALL
           SELECT (claim.committed_at AT TIME ZONE %(zone)s)::date - who.day
             FROM packets_claim AS claim
            WHERE claim.participant = who.id
              AND claim.committed_at >= (who.day + 1)::timestamp AT TIME ZONE %(zone)s
              AND claim.committed_at < (who.day + 31)::timestamp AT TIME ZONE %(zone)s
              AND NOT EXISTS (SELECT FROM referrals_reward AS reward
                               WHERE reward.claim_id = claim.id)
           ) AS seen
     WHERE seen.k = ANY(%(ks)s)
"""
_LATELY = """
    SELECT who.n::int4
      FROM unnest(%(people)s::bytea[]) WITH ORDINALITY AS who(id, n)
     WHERE EXISTS (SELECT FROM referrals_serverevent AS event
                    WHERE event.participant = who.id AND event.kind IN ('active', 'mission_done')
                      AND event.at >= %(since)s AND event.at < %(until)s)
        OR EXISTS (SELECT FROM packets_claim AS claim
                    WHERE claim.participant = who.id
                      AND claim.committed_at >= %(since)s AND claim.committed_at < %(until)s
                      AND NOT EXISTS (SELECT FROM referrals_reward AS reward
                                       WHERE reward.claim_id = claim.id))
"""
_REPORTS = """
    SELECT EXISTS (SELECT FROM (SELECT client_app_id FROM referrals_serverevent
                                 WHERE kind = 'active' AND at < %(until)s
                                 ORDER BY at DESC LIMIT %(most)s) AS newest
                    WHERE client_app_id = ANY(%(apps)s))
"""


def retention(
    campaign: Campaign, crowd: Crowd, zone: ZoneInfo, until: dt.datetime
) -> dict[str, Any]:
    """Friends beside people who came by themselves, and both by the day they joined."""
    joined = day_of(crowd.joined_s, zone)
    today = int(day_of(np.array([until.timestamp()]), zone)[0])
    sides: dict[str, Any] = {}
    for name, side in (("invited", crowd.invited), ("cold", ~crowd.invited)):
        rows = np.flatnonzero(side & crowd.looked)[:PEOPLE_MAX]
        seen = seen_on(crowd.digests(rows), joined[rows], zone)
        sides[name] = [
            {
                "day": k,
                "people": int(over.sum()),
                "seen": int((seen[:, place] & over).sum()),
                "young": int((~over).sum()),
            }
            for place, k in enumerate(DAYS)
            for over in [joined[rows] + k < today]
        ]
        sides[f"{name}_all"] = int(side.sum()) if name == "invited" else crowd.scaled(side)
    return {**sides, "reports": _reports(campaign, until)}


def seen_on(people: list[bytes], joined: Ints, zone: ZoneInfo) -> Bools:
    """(people, DAYS): whether they were seen on that day after the day they joined."""
    found = np.zeros((len(people), len(DAYS)), np.bool_)
    for start in range(0, len(people), PEOPLE_A_LOOKUP):
        part = slice(start, start + PEOPLE_A_LOOKUP)
        names: dict[str, Any] = {
            "people": people[part],
            "days": [dt.date(1970, 1, 1) + dt.timedelta(int(day)) for day in joined[part]],
            "zone": str(zone),
            "ks": list(DAYS),
        }
        with connection.cursor() as cursor:
            cursor.execute(_SEEN, names)
            for number, k in cursor.fetchall():
                found[start + number - 1, DAYS.index(k)] = True
    return found


def _lately(people: list[bytes], until: dt.datetime) -> Bools:
    found = np.zeros(len(people), np.bool_)
    span: dict[str, Any] = {"since": until - dt.timedelta(days=SILENT_DAYS), "until": until}
    for start in range(0, len(people), PEOPLE_A_LOOKUP):
        part = people[start : start + PEOPLE_A_LOOKUP]
        with connection.cursor() as cursor:
            cursor.execute(_LATELY, {"people": part, **span})
            for (number,) in cursor.fetchall():
                found[start + number - 1] = True
    return found


def _reports(campaign: Campaign, until: dt.datetime) -> bool:
    """Whether the campaign's apps are among those that report who is active."""
    names: dict[str, Any] = {
        "apps": list(campaign.client_apps.values_list("pk", flat=True)),
        "most": REPORTS_LOOKED_AT,
        "until": until,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REPORTS, names)
        return bool(cursor.fetchone()[0])


# --- chat groups ----------------------------------------------------------------------------------

_GROUP_PACKETS = """
    SELECT packet.id, packet."group"
      FROM campaign_campaignpacket AS link
      JOIN packets_packet AS packet ON packet.id = link.packet_id
     WHERE link.campaign_id = %(campaign)s AND packet."group" <> ''
    UNION ALL
    (SELECT packet.id, packet."group"
       FROM packets_peoplepacket AS sent JOIN packets_packet AS packet ON packet.id = sent.packet_id
      WHERE sent.created_at >= %(since)s AND sent.created_at < %(until)s
        AND packet."group" <> '' AND packet.client_apps && %(apps)s::bigint[]
      ORDER BY sent.created_at DESC LIMIT %(most)s)
    LIMIT %(most)s
"""
_GROUP_CLAIMS = """
    SELECT participant, extract(epoch FROM min(committed_at))
      FROM packets_claim
     WHERE lane_id IN (SELECT id FROM packets_lane WHERE packet_id = %(packet)s)
       AND committed_at < %(until)s
     GROUP BY participant LIMIT %(most)s
"""


def groups(campaign: Campaign, zone: ZoneInfo, until: dt.datetime) -> dict[str, Any]:
    """The chat groups that packets were limited to: the campaign's, and those that people sent from
    their wallets while it ran. An app's tokens name groups too, but only with a claim, and what a
    claim's token said isn't kept; so a group without a packet of its own isn't known here.

    A person belongs to each group in which they claimed, from the day of their first claim there.
    """
    names: dict[str, Any] = {
        "campaign": campaign.pk,
        "since": campaign.created_at,
        "until": until,
        "apps": list(campaign.client_apps.values_list("pk", flat=True)),
        "most": GROUP_PACKETS_MAX,
    }
    with connection.cursor() as cursor:
        cursor.execute(_GROUP_PACKETS, names)
        packets = cursor.fetchall()
    first: dict[str, dict[bytes, float]] = {}
    room = GROUP_PEOPLE_MAX
    rewards = rewards_of(campaign)
    for packet, group in packets:
        if packet in rewards or room <= 0:
            continue
        rows = reading.table(
            _GROUP_CLAIMS,
            {"packet": packet, "until": until, "most": room},
            {"who": reading.DIGEST, "at": reading.FLOAT},
        )
        people = first.setdefault(group, {})
        before = len(people)
        for who, at in zip(rows["who"], rows["at"].tolist(), strict=True):
            digest = who.tobytes()
            people[digest] = min(at, people.get(digest, at))
        room -= len(people) - before
    found = [_group(name, people, zone, until) for name, people in first.items()]
    found.sort(key=lambda one: (-one["people"], one["group"]))
    return {
        "groups": found[:GROUPS_SHOWN],
        "known": len(found),
        "silent": sum(one["silent"] for one in found),
        "complete": room > 0 and len(packets) < GROUP_PACKETS_MAX,
    }


def _group(
    name: str, people: dict[bytes, float], zone: ZoneInfo, until: dt.datetime
) -> dict[str, Any]:
    digests = list(people)
    joined = day_of(np.array(list(people.values()), np.float64), zone)
    today = int(day_of(np.array([until.timestamp()]), zone)[0])
    seen = seen_on(digests, joined, zone)
    recent = int(_lately(digests, until).sum())
    old = bool(digests) and min(people.values()) < until.timestamp() - SILENT_DAYS * DAY_S
    return {
        "group": name,
        "people": len(digests),
        "recent": recent,
        "silent": old and recent == 0,
        "days": [
            {"day": k, "people": int(over.sum()), "seen": int((seen[:, place] & over).sum())}
            for place, k in enumerate(DAYS)
            for over in [joined + k < today]
        ],
    }
