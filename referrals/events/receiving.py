"""Receiving events: each once per (client app, id), and with it all that it sets going.

One transaction writes the people, the events, the qualifications that they wake and the ticket
occasions that they make; so an event that was answered `ok` is never half done, and repeating a
whole body changes nothing. Every statement is set-based and writes in key order: two bodies with
the same events wait for each other, never in a circle.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection, transaction

from campaign.growth_rules import EVENT_KIND
from campaign.models import Campaign
from engine.lib.ids import participant_digest, subject_is_valid
from referrals.events import dues
from referrals.models.rewarding import MISSION_MAX_CHARS
from referrals.rewarding import qualifying
from referrals.risk import standing

MISSION_DONE = "mission_done"
KEY_MAX_CHARS = 128
# Clocks of apps run ahead of Postgres's by less than this.
MAX_AHEAD = dt.timedelta(minutes=10)
# Whoever sends later than that has lost more than a queue.
MAX_AGE = dt.timedelta(days=90)


class EventResult(enum.StrEnum):
    OK = "ok"
    DUPLICATE = "duplicate"
    INVALID = "invalid"


class EventFault(enum.StrEnum):
    """Why an event is invalid; it was not stored."""

    ID = "id"
    ID_REUSED = "id_reused"
    USER = "user"
    KIND = "kind"
    MISSION = "mission"
    MISSION_REQUIRED = "mission_required"
    UNKNOWN_CAMPAIGN = "unknown_campaign"
    IN_THE_FUTURE = "in_the_future"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it was sent. `at` carries its zone."""

    key: str
    user: str
    kind: str
    at: dt.datetime
    campaign: str = ""
    mission: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    result: EventResult
    fault: EventFault | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    participant: bytes
    subject: str
    kind: str
    campaign_id: uuid.UUID | None
    mission: str
    at: dt.datetime

    @property
    def content(self) -> tuple[object, ...]:
        return (self.participant, self.kind, self.campaign_id, self.mission, self.at)


_INSERT = """
INSERT INTO referrals_serverevent
       (client_app_id, key, participant, kind, campaign_id, mission, at)
SELECT %(app)s, sent.* FROM unnest(
       %(keys)s::text[], %(people)s::bytea[], %(kinds)s::text[], %(campaigns)s::uuid[],
       %(missions)s::text[], %(ats)s::timestamptz[])
       AS sent (key, participant, kind, campaign_id, mission, at)
 ORDER BY sent.key
    ON CONFLICT (client_app_id, key) DO NOTHING
RETURNING id, key
"""
_STORED = """
SELECT key, participant, kind, campaign_id, mission, at FROM referrals_serverevent
 WHERE client_app_id = %(app)s AND key = ANY (%(keys)s)
"""
_PEOPLE = """
INSERT INTO packets_participant (digest, client_app_id, subject)
SELECT sent.digest, %(app)s, sent.subject
  FROM unnest(%(digests)s::bytea[], %(subjects)s::text[]) AS sent (digest, subject)
 ORDER BY sent.digest
    ON CONFLICT (digest) DO NOTHING
"""


def events_receive(*, client_app_id: int, events: Sequence[Event]) -> list[Answer]:
    """Store what is good, and say of each event in its order what became of it."""
    with transaction.atomic(), connection.cursor() as cursor:
        qualifying.events_coming(cursor)
        now, campaigns = _known(client_app_id, events)
        rows = [_judge(client_app_id, event, now, campaigns) for event in events]
        good: dict[str, _Row] = {}
        for row in rows:
            if isinstance(row, _Row):
                good.setdefault(row.key, row)
        fresh = _store(client_app_id, list(good.values()))
        stored = _stored(client_app_id, list(good))
    return [_answer(row, fresh, stored) for row in rows]


def _known(client_app_id: int, events: Sequence[Event]) -> tuple[dt.datetime, dict[str, uuid.UUID]]:
    """Postgres's time, and those of the campaigns named that are this app's."""
    slugs = sorted({event.campaign for event in events if event.campaign})
    campaigns = dict(
        Campaign.objects.filter(slug__in=slugs, client_apps=client_app_id)
        .exclude(state__in=[Campaign.State.DRAFT, Campaign.State.REVIEW])
        .values_list("slug", "pk")
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0], campaigns


def _judge(
    client_app_id: int, event: Event, now: dt.datetime, campaigns: dict[str, uuid.UUID]
) -> _Row | EventFault:
    if not 0 < len(event.key) <= KEY_MAX_CHARS or not event.key.isprintable():
        return EventFault.ID
    if not subject_is_valid(event.user):
        return EventFault.USER
    if not EVENT_KIND.match(event.kind):
        return EventFault.KIND
    if len(event.mission) > MISSION_MAX_CHARS or not event.mission.isprintable():
        return EventFault.MISSION
    if event.kind == MISSION_DONE and not event.mission:
        return EventFault.MISSION_REQUIRED
    if event.campaign and event.campaign not in campaigns:
        return EventFault.UNKNOWN_CAMPAIGN
    if event.at > now + MAX_AHEAD:
        return EventFault.IN_THE_FUTURE
    if event.at < now - MAX_AGE:
        return EventFault.TOO_OLD
    return _Row(
        key=event.key,
        participant=participant_digest(client_app_id, event.user),
        subject=event.user,
        kind=event.kind,
        campaign_id=campaigns.get(event.campaign),
        mission=event.mission,
        at=event.at,
    )


def _store(client_app_id: int, rows: list[_Row]) -> set[str]:
    """The keys of those that nobody had sent before, with all that they set going."""
    if not rows:
        return set()
    people = {row.participant: row.subject for row in rows}
    with connection.cursor() as cursor:
        cursor.execute(
            _PEOPLE,
            {"app": client_app_id, "digests": list(people), "subjects": list(people.values())},
        )
        cursor.execute(
            _INSERT,
            {
                "app": client_app_id,
                "keys": [row.key for row in rows],
                "people": [row.participant for row in rows],
                "kinds": [row.kind for row in rows],
                "campaigns": [row.campaign_id for row in rows],
                "missions": [row.mission for row in rows],
                "ats": [row.at for row in rows],
            },
        )
        made = cursor.fetchall()
        ids = [row_id for row_id, _key in made]
        if ids:
            qualifying.by_events(cursor, ids)
            dues.of_events(cursor, ids)
            standing.challenges_passed(cursor, ids)
    return {key for _id, key in made}


def _stored(client_app_id: int, keys: list[str]) -> dict[str, tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(_STORED, {"app": client_app_id, "keys": keys})
        return {
            key: (bytes(participant), kind, campaign, mission, at)
            for key, participant, kind, campaign, mission, at in cursor.fetchall()
        }


def _answer(
    row: _Row | EventFault, fresh: set[str], stored: dict[str, tuple[object, ...]]
) -> Answer:
    """Of two with one id in a body the first is `ok`; one with another content is refused."""
    if isinstance(row, EventFault):
        return Answer(EventResult.INVALID, row)
    if stored[row.key] != row.content:
        return Answer(EventResult.INVALID, EventFault.ID_REUSED)
    if row.key in fresh:
        fresh.remove(row.key)
        return Answer(EventResult.OK)
    return Answer(EventResult.DUPLICATE)
