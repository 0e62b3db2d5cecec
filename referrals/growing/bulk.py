"""A made-up world as rows, by COPY: for a hundred thousand people, with the world's own times.

What the services would have written stands here in one place, and a test compares both ways row by
row: people, links, visits, referrals (the trigger adds what watches for their rewards), events,
phones and networks. Two things differ on purpose. The times are the world's, so the newest person
joined an hour ago and the first one weeks before; and people were seen again (`active`), as the
world says. No money is written: whoever is to have some claims it afterwards, by the same call as
any door (`claims_make`), now.

A few hundred people are one transaction. A run that dies leaves the people written so far, whole.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from django.db import connection, transaction

from campaign.models import CampaignGrowth, Vehicle
from referrals.growing.cast import AGENT, Cast
from referrals.growing.shape import DAY_S, NOBODY, Ints
from referrals.growing.walking import claimed
from referrals.linking import codes
from referrals.linking.places import Place
from referrals.models import Referral
from referrals.risk.noting import rows_of

Say = Callable[[str], object]
Row = tuple[object, ...]

MAX_PEOPLE = 1_000_000
PEOPLE_AT_ONCE = 500  # of one transaction: some thousand rows, some hundred milliseconds
SAY_EVERY_S = 2.0
SINCE_THE_NEWEST = dt.timedelta(hours=1)
SHARES_AFTER_S = 60.0  # from joining to one's own link, at most; and from opening to joining
SEEN_DAYS = (1, 7, 30)  # as World.active says

COLUMNS = {
    "packets_participant": "digest, client_app_id, subject, created_at",
    "referrals_sharelink": "id, campaign_id, participant, client_app_id, channel, code, created_at,"
    " shared_at, revoke_reason",
    "referrals_visit": "link_id, campaign_id, vehicle, click_id, network_hash, visitor_hash, agent,"
    " at",
    "referrals_referral": "id, campaign_id, client_app_id, invitee, inviter, link_id, parent_id,"
    " root, depth, source, click_id, bound_at",
    "referrals_serverevent": "client_app_id, key, participant, kind, campaign_id, mission, at",
    "referrals_identity": "participant, kind, digest, key_id, first_seen, last_seen",
}


def world_write(*, cast: Cast, growth: CampaignGrowth, say: Say) -> Counter[str]:
    """Write everybody of the world into the campaign; how many rows of each table."""
    bulk = _Bulk(cast, growth)
    written: Counter[str] = Counter()
    for rows in _steps(cast.world.size, PEOPLE_AT_ONCE, "people written", say):
        with transaction.atomic(), connection.cursor() as cursor:
            for table, found in bulk.rows(cursor, rows):
                written[table] += _copy(cursor, table, list(found))
    return written


def claims_make(*, cast: Cast, packet: uuid.UUID, say: Say, honest_one_in: int = 1) -> Counter[str]:
    """Whoever claims in the world claims this packet, now; how often each answer was given.

    `honest_one_in`: where some of the honest people are enough, one in so many claims."""
    outcomes: Counter[str] = Counter()
    chosen = cast.world.is_farmer | (np.arange(cast.world.size) % honest_one_in == 0)
    people = np.flatnonzero(~np.isnan(cast.world.claimed_s) & chosen)
    for places in _steps(people.size, PEOPLE_AT_ONCE, "claims made", say):
        outcomes.update(claimed(cast, packet, int(people[place])) for place in places)
    return outcomes


def _steps(size: int, most: int, what: str, say: Say) -> Iterator[range]:
    """Ranges of so many; now and then it is said how far that is."""
    said_at = time.monotonic()
    for start in range(0, size, most):
        yield range(start, min(start + most, size))
        if time.monotonic() - said_at >= SAY_EVERY_S:
            said_at = time.monotonic()
            say(f"{what}: {min(start + most, size):,} of {size:,}")


def _copy(cursor: Any, table: str, rows: list[Row]) -> int:
    with cursor.copy(f"COPY {table} ({COLUMNS[table]}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    return len(rows)


def _ids(cursor: Any, table: str, count: int) -> list[int]:
    """So many free ids, in order: an inviter's is lower than the invitee's."""
    cursor.execute(
        "SELECT nextval(pg_get_serial_sequence(%s, 'id')) FROM generate_series(1, %s)",
        [table, count],
    )
    return sorted(row[0] for row in cursor.fetchall())


class _Bulk:
    """What is known of people already written, by their row; asked in the order of joining."""

    def __init__(self, cast: Cast, growth: CampaignGrowth) -> None:
        self.cast, self.world, self.campaign = cast, cast.world, growth.campaign_id
        size = self.world.size
        invited = self.world.inviter != NOBODY
        self.children = np.bincount(self.world.inviter[invited], minlength=size)
        # The first friend of each: whose link is older than that.
        self.first_s = np.full(size, np.inf)
        np.minimum.at(self.first_s, self.world.inviter[invited], self.world.joined_s[invited])
        self.sharing = cast.sharing
        # Whoever tried to close a circle opened a link for it, once both were there.
        self.refused = {max(pair): pair for pair in self.world.refused.tolist()}
        self.link: Ints = np.zeros(size, np.int64)
        self.referral: Ints = np.zeros(size, np.int64)
        self.depth: Ints = np.zeros(size, np.int64)
        self.root: Ints = np.arange(size)
        self.rng = np.random.default_rng(size)
        self.now = _now()
        newest_s = float(self.world.joined_s.max())
        self.begun = self.now - SINCE_THE_NEWEST - dt.timedelta(seconds=newest_s)

    def at(self, seconds: float) -> dt.datetime:
        return self.begun + dt.timedelta(seconds=seconds)

    def shared_s(self, row: int) -> float:
        """When this person made their link: after joining, before the first friend."""
        joined_s = float(self.world.joined_s[row])
        return joined_s + min(SHARES_AFTER_S, (float(self.first_s[row]) - joined_s) / 3)

    def rows(self, cursor: Any, rows: range) -> Iterator[tuple[str, Iterable[Row]]]:
        yield "packets_participant", map(self._person, rows)
        yield "referrals_sharelink", self._links(cursor, rows)
        joins = [row for row in rows if self.world.inviter[row] != NOBODY]
        clicked = {row: uuid.uuid4() for row in joins}
        yield "referrals_visit", self._visits(rows, clicked)
        yield "referrals_referral", self._referrals(cursor, clicked)
        yield "referrals_serverevent", self._events(rows)
        yield "referrals_identity", self._identities(rows)

    def _person(self, row: int) -> Row:
        cast = self.cast
        return cast.digest(row), cast.app, cast.subject(row), self.at(self.world.joined_s[row])

    def _links(self, cursor: Any, rows: range) -> Iterator[Row]:
        sharing = [row for row in rows if self.sharing[row]]
        self.link[sharing] = _ids(cursor, "referrals_sharelink", len(sharing))
        for row in sharing:
            at = self.at(self.shared_s(row))
            channel, digest = self.cast.channel(row), self.cast.digest(row)
            yield (
                int(self.link[row]), self.campaign, digest, self.cast.app, channel.value,
                codes.draw(), at, at, "",
            )  # fmt: skip

    def _visits(self, rows: range, clicked: dict[int, uuid.UUID]) -> Iterator[Row]:
        """Of those who join, of those who try to close a circle, and of those who go away again."""
        for row, click in clicked.items():
            inviter = int(self.world.inviter[row])
            joined_s, shared_s = float(self.world.joined_s[row]), self.shared_s(inviter)
            opened_s = max(joined_s - SHARES_AFTER_S, (joined_s + shared_s) / 2)
            yield self._visit(inviter, click, self.cast.place(row), self.at(opened_s))
        for row in rows:
            if row in self.refused:
                invitee, inviter = self.refused[row]
                at = self.at(self.shared_s(row) + SHARES_AFTER_S)
                yield self._visit(inviter, uuid.uuid4(), self.cast.place(invitee), at)
            for number in range(self.cast.idle_opens(row, int(self.children[row]))):
                at = self.at(self.shared_s(row) + self.rng.exponential(DAY_S))
                yield self._visit(row, uuid.uuid4(), self.cast.passer_by(row, number), at)

    def _visit(self, owner: int, click: uuid.UUID, place: Place, at: dt.datetime) -> Row:
        return (
            int(self.link[owner]), self.campaign, Vehicle.LINK.value, click, place.network,
            place.visitor, AGENT, min(at, self.now),
        )  # fmt: skip

    def _referrals(self, cursor: Any, clicked: dict[int, uuid.UUID]) -> Iterator[Row]:
        ids = _ids(cursor, "referrals_referral", len(clicked))
        for (row, click), number in zip(clicked.items(), ids, strict=True):
            inviter = int(self.world.inviter[row])
            self.referral[row] = number
            self.depth[row], self.root[row] = self.depth[inviter] + 1, self.root[inviter]
            yield (
                number, self.campaign, self.cast.app, self.cast.digest(row),
                self.cast.digest(inviter), int(self.link[inviter]),
                int(self.referral[inviter]) or None, self.cast.digest(int(self.root[row])),
                int(self.depth[row]), Referral.Source.CLICK.value, click,
                self.at(self.world.joined_s[row]),
            )  # fmt: skip

    def _events(self, rows: range) -> Iterator[Row]:
        name, app = self.cast.name, self.cast.app
        for row in rows:
            joined, digest = self.at(self.world.joined_s[row]), self.cast.digest(row)
            yield app, f"{name}:joined:{row}", digest, "joined", self.campaign, "", joined
            for day, was_seen in zip(SEEN_DAYS, self.world.active[row], strict=True):
                at = joined + dt.timedelta(days=day)
                if was_seen and at < self.now:
                    key = f"{name}:active-{day}:{row}"
                    yield app, key, digest, "active", self.campaign, "", at

    def _identities(self, rows: range) -> Iterator[Row]:
        for row in rows:
            day = self.at(self.world.joined_s[row]).date()
            for participant, kind, digest, key_id in rows_of(self.cast.sighting(row)):
                yield participant, kind, digest, key_id, day, day


def _now() -> dt.datetime:
    """Postgres's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: dt.datetime = cursor.fetchone()[0]
    return now
