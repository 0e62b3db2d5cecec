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

from campaign.models import CampaignGrowth, Channel, Vehicle
from engine.lib import clock
from engine.lib.auth import Caller
from engine.lib.ids import participant_digest
from packets.claiming import sync
from packets.claiming.effects import ClaimRequest
from referrals.events.receiving import Event, events_receive
from referrals.forest.joining import Lead, friend_join
from referrals.growing.shape import KINDS, NOBODY, World
from referrals.linking import clicks
from referrals.linking.links import link_share
from referrals.linking.places import Place, place_of
from referrals.linking.visits import visit_record
from referrals.models import ShareLink

# People; about fifteen milliseconds each. Their networks are those of 10.0.0.0/8: 65,536.
MAX_PEOPLE = 5_000
IDLE_OPENS_MAX = 20  # openings of one link that lead to nothing; more would only take time
EVENTS_AT_ONCE = 500
CHANNELS = (Channel.WECHAT, Channel.WECHAT, Channel.MOMENTS, Channel.QQ, Channel.SMS)


class Walk:
    """One world in one campaign. `per_second` bounds the people who join in a second."""

    def __init__(
        self,
        world: World,
        growth: CampaignGrowth,
        client_app_id: int,
        name: str,
        packet: uuid.UUID | None,
        per_second: float,
    ) -> None:
        if world.size > MAX_PEOPLE:
            raise ValueError(f"at most {MAX_PEOPLE:,} people walk through the services")
        self.world, self.growth, self.app, self.name = world, growth, client_app_id, name
        self.packet, self.pause_s = packet, 1 / per_second
        self.links: dict[int, ShareLink] = {}
        self.outcomes: Counter[str] = Counter()

    def subject(self, row: int) -> str:
        return f"{self.name}-{row:06}"

    def caller(self, row: int) -> Caller:
        subject = self.subject(row)
        return Caller(
            client_app_id=self.app,
            subject=subject,
            participant=participant_digest(self.app, subject),
            device=f"{self.name}-phone-{self.world.device[row]}",
            is_new=True,
        )

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
        if self.packet is not None and not np.isnan(self.world.claimed_s[row]):
            answer = sync.claim(self.packet, self.caller(row), ClaimRequest())
            self.outcomes["claim: " + ("no packet" if answer is None else answer[0].result)] += 1

    def _join(self, row: int, inviter: int) -> None:
        link = self._link(inviter)
        visit = visit_record(
            link=link,
            vehicle=Vehicle.LINK,
            place=self._place(row),
            agent="grown",
            most_per_hour=self.growth.visits_per_link_hour,
        )
        if visit is None:
            self.outcomes["visit: too many"] += 1
            lead = Lead(code=link.code)
        else:
            click = clicks.Click(visit.click_id, int(visit.at.timestamp()))
            lead = Lead(click_token=clicks.sign(click))
        result = friend_join(campaign=self.growth.campaign, friend=self.caller(row), lead=lead)
        self.outcomes[f"join: {result}"] += 1

    def _link(self, row: int) -> ShareLink:
        if row not in self.links:
            channel = CHANNELS[row % len(CHANNELS)]
            shared = link_share(
                campaign=self.growth.campaign, caller=self.caller(row), channel=channel
            )
            self.links[row] = shared.link
        return self.links[row]

    def _place(self, row: int) -> Place:
        network, device = int(self.world.network[row]), int(self.world.device[row])
        address = f"10.{network >> 8 & 255}.{network & 255}.{1 + device % 250}"
        return place_of(address, f"grown {device}")

    def _idle_opens(self) -> None:
        """Whoever opened a link and went away again."""
        rows = self.world.inviter[self.world.inviter != NOBODY]
        children = np.bincount(rows, minlength=self.world.size)
        for row, link in self.links.items():
            idle = min(int(self.world.opened[row] - children[row]), IDLE_OPENS_MAX)
            for number in range(idle):
                visit_record(
                    link=link,
                    vehicle=Vehicle.LINK,
                    place=place_of(f"10.{row >> 8 & 255}.{row & 255}.{number}", "grown passer-by"),
                    agent="grown",
                    most_per_hour=self.growth.visits_per_link_hour,
                )
                self.outcomes["visit: idle"] += 1

    def _report(self) -> None:
        """The app's back end tells who joined."""
        now = clock.now()
        events = [
            Event(
                key=f"{self.name}:joined:{row}",
                user=self.subject(row),
                kind="joined",
                at=now,
                campaign=self.growth.campaign.slug,
            )
            for row in range(self.world.size)
        ]
        for start in range(0, len(events), EVENTS_AT_ONCE):
            chunk = events[start : start + EVENTS_AT_ONCE]
            for answer in events_receive(client_app_id=self.app, events=chunk):
                self.outcomes[f"event: {answer.result}"] += 1

    def truth(self) -> list[dict[str, object]]:
        """Who is a farmer, of which kind and farm; whoever isn't named is honest."""
        return [
            {
                "user": self.subject(row),
                "kind": KINDS[self.world.kind[row]].value,
                "farm": int(self.world.farm[row]),
            }
            for row in np.flatnonzero(self.world.is_farmer).tolist()
        ]
