"""Who the people of a made-up world are to the services: their names, phones, networks, channels.

Both ways of growing a campaign (`walking.py`, `bulk.py`) take them from here, so that both leave
the same people behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from campaign.models import Channel
from engine.lib.auth import Caller
from engine.lib.ids import participant_digest
from packets.sightings import Sighting
from referrals.growing.shape import KINDS, Bools, World
from referrals.linking.places import Place, place_of

AGENT = "grown"  # the kind of browser of all of them
IDLE_OPENS_MAX = 20  # openings of one link that lead to nothing; more would only take time
CHANNELS = (Channel.WECHAT, Channel.WECHAT, Channel.MOMENTS, Channel.QQ, Channel.SMS)


@dataclass(frozen=True, slots=True)
class Cast:
    """The people of one world as users of one app; `name` begins all their names."""

    world: World
    app: int
    name: str

    def subject(self, row: int) -> str:
        return f"{self.name}-{row:06}"

    def digest(self, row: int) -> bytes:
        return participant_digest(self.app, self.subject(row))

    def phone(self, row: int) -> str:
        return f"{self.name}-phone-{self.world.device[row]}"

    def caller(self, row: int) -> Caller:
        return Caller(
            client_app_id=self.app,
            subject=self.subject(row),
            participant=self.digest(row),
            device=self.phone(row),
            is_new=True,
        )

    def address(self, row: int) -> str:
        """One of 10.0.0.0/8: 65,536 networks."""
        network, device = int(self.world.network[row]), int(self.world.device[row])
        return f"10.{network >> 8 & 255}.{network & 255}.{1 + device % 250}"

    def place(self, row: int) -> Place:
        return place_of(self.address(row), f"{AGENT} {self.world.device[row]}")

    def passer_by(self, row: int, number: int) -> Place:
        """Somebody who opens this person's link and goes away again."""
        return place_of(f"10.{row >> 8 & 255}.{row & 255}.{number}", f"{AGENT} passer-by {row}")

    def sighting(self, row: int) -> Sighting:
        """What a door sees of them when they join."""
        return Sighting(None, self.digest(row), self.app, self.phone(row), self.address(row), "")

    def channel(self, row: int) -> Channel:
        return CHANNELS[row % len(CHANNELS)]

    @property
    def sharing(self) -> Bools:
        """Who has a link: whose link was opened, also by somebody who then couldn't join."""
        found: Bools = self.world.opened > 0
        found[self.world.refused[:, 1]] = True
        return found

    def idle_opens(self, row: int, children: int) -> int:
        return min(int(self.world.opened[row]) - children, IDLE_OPENS_MAX)

    def truth(self) -> list[dict[str, object]]:
        """Who is a farmer, of which kind and farm; whoever isn't named is honest."""
        return [
            {
                "user": self.subject(row),
                "kind": KINDS[self.world.kind[row]].value,
                "farm": int(self.world.farm[row]),
            }
            for row in self.world.is_farmer.nonzero()[0].tolist()
        ]
