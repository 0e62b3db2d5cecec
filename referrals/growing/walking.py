"""A made-up world walks through the real services: shares, visits, joins, reports, claims.

Everything is what a person's own calls would make, so rules, limits and rewards treat these people
as any others. It all happens now: the services take no times from outside, hence a grown campaign
has the world's tree, devices, networks and order, but not its weeks of waiting nor its retention.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable

import numpy as np

from campaign.models import CampaignGrowth, Vehicle
from engine.lib import clock
from packets.claiming import sync
from packets.claiming.effects import ClaimRequest
from referrals.events.receiving import Event, events_receive
from referrals.forest.joining import Lead, friend_join
from referrals.growing.cast import AGENT, Cast
from referrals.growing.shape import NOBODY
from referrals.linking import clicks
from referrals.linking.links import link_share
from referrals.linking.places import Place
from referrals.linking.visits import visit_record
from referrals.models import ShareLink, Visit
from referrals.risk.noting import sightings_keep

# People; about fifteen milliseconds each.
MAX_PEOPLE = 5_000
EVENTS_AT_ONCE = 500


class Walk:
    """One world in one campaign. `per_second` bounds the people who join in a second."""

    def __init__(
        self, cast: Cast, growth: CampaignGrowth, packet: uuid.UUID | None, per_second: float
    ) -> None:
        if cast.world.size > MAX_PEOPLE:
            raise ValueError(f"at most {MAX_PEOPLE:,} people walk through the services")
        self.cast, self.world, self.growth = cast, cast.world, growth
        self.packet, self.pause_s = packet, 1 / per_second
        self.sharing = cast.sharing
        self.links: dict[int, ShareLink] = {}
        self.outcomes: Counter[str] = Counter()

    def run(self, sleep: Callable[[float], None] = time.sleep) -> Counter[str]:
        """Everybody comes, in order; how often each thing happened."""
        started = time.monotonic()
        for row in range(self.world.size):
            self._come(row)
            ahead = started + (row + 1) * self.pause_s - time.monotonic()
            if ahead > 0:
                sleep(ahead)
        for invitee, inviter in self.world.refused.tolist():
            self._join(invitee, inviter)
        self._idle_opens()
        self._report()
        return self.outcomes

    def _come(self, row: int) -> None:
        inviter = int(self.world.inviter[row])
        if inviter != NOBODY:
            self._join(row, inviter)
        if self.sharing[row]:
            self._link(row)
        if self.packet is not None and not np.isnan(self.world.claimed_s[row]):
            self.outcomes[claimed(self.cast, self.packet, row)] += 1

    def _join(self, row: int, inviter: int) -> None:
        link = self._link(inviter)
        visit = self._open(link, self.cast.place(row))
        if visit is None:
            self.outcomes["visit: too many"] += 1
            lead = Lead(code=link.code)
        else:
            click = clicks.Click(visit.click_id, int(visit.at.timestamp()))
            lead = Lead(click_token=clicks.sign(click))
        friend = self.cast.caller(row)
        result = friend_join(campaign=self.growth.campaign, friend=friend, lead=lead)
        self.outcomes[f"join: {result}"] += 1

    def _open(self, link: ShareLink, place: Place) -> Visit | None:
        return visit_record(
            link=link,
            vehicle=Vehicle.LINK,
            place=place,
            agent=AGENT,
            most_per_hour=self.growth.visits_per_link_hour,
        )

    def _link(self, row: int) -> ShareLink:
        if row not in self.links:
            self.links[row] = link_share(
                campaign=self.growth.campaign,
                caller=self.cast.caller(row),
                channel=self.cast.channel(row),
            ).link
        return self.links[row]

    def _idle_opens(self) -> None:
        """Whoever opened a link and went away again."""
        rows = self.world.inviter[self.world.inviter != NOBODY]
        children = np.bincount(rows, minlength=self.world.size)
        for row, link in self.links.items():
            for number in range(self.cast.idle_opens(row, int(children[row]))):
                self._open(link, self.cast.passer_by(row, number))
                self.outcomes["visit: idle"] += 1

    def _report(self) -> None:
        """The app's back end tells who joined; the doors have seen their phones and networks."""
        now = clock.now()
        events = [
            Event(
                key=f"{self.cast.name}:joined:{row}",
                user=self.cast.subject(row),
                kind="joined",
                at=now,
                campaign=self.growth.campaign.slug,
            )
            for row in range(self.world.size)
        ]
        for start in range(0, len(events), EVENTS_AT_ONCE):
            chunk = events[start : start + EVENTS_AT_ONCE]
            for answer in events_receive(client_app_id=self.cast.app, events=chunk):
                self.outcomes[f"event: {answer.result}"] += 1
        sightings_keep([self.cast.sighting(row) for row in range(self.world.size)])


def claimed(cast: Cast, packet: uuid.UUID, row: int) -> str:
    """This person claims the packet as at any door; how that ended."""
    answer = sync.claim(packet, cast.caller(row), ClaimRequest())
    return "claim: " + ("no packet" if answer is None else answer[0].result)
