"""How a campaign spreads now, as a process remembers it for two seconds: its growth row, whether it
is live, and which ways are switched off.

A way is a channel with a vehicle. It is on where the campaign's version has it and no row switches
it off. Staff's switches act in every process within `LIFETIME_S`; nothing has to be told.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass

from campaign.growth_rules import ways_of
from campaign.models import Campaign, CampaignChannel, CampaignGrowth, Vehicle

LIFETIME_S = 2.0
MAX_CAMPAIGNS = 1_000  # kept by one process


@dataclass(frozen=True, slots=True)
class Spread:
    campaign: Campaign
    growth: CampaignGrowth
    approved: frozenset[tuple[str, str]]
    off: frozenset[tuple[str, str]]

    @property
    def is_open(self) -> bool:
        return self.growth.is_on and self.campaign.state == Campaign.State.LIVE

    def is_on(self, channel: str, vehicle: str) -> bool:
        way = (channel, vehicle)
        return way in self.approved and way not in self.off

    def ways(self, channel: str) -> list[str]:
        """The vehicles that are on in this channel, in the models' order."""
        return [vehicle for vehicle in Vehicle.values if self.is_on(channel, vehicle)]


_known: OrderedDict[uuid.UUID, tuple[float, Spread | None]] = OrderedDict()
_lock = threading.Lock()


def spread_of(campaign_id: uuid.UUID) -> Spread | None:
    """How the campaign spreads; None where it doesn't."""
    moment = time.monotonic()
    with _lock:
        known = _known.get(campaign_id)
    if known is not None and moment < known[0]:
        return known[1]
    spread = read(campaign_id)
    with _lock:
        _known[campaign_id] = (moment + LIFETIME_S, spread)
        _known.move_to_end(campaign_id)
        while len(_known) > MAX_CAMPAIGNS:
            _known.popitem(last=False)
    return spread


def read(campaign_id: uuid.UUID) -> Spread | None:
    growth = CampaignGrowth.objects.filter(campaign=campaign_id).select_related("campaign").first()
    if growth is None:
        return None
    off = CampaignChannel.objects.filter(campaign=campaign_id, is_on=False)
    return Spread(
        growth.campaign,
        growth,
        approved=ways_of(growth),
        off=frozenset(off.values_list("channel", "vehicle")),
    )


def forget() -> None:
    """Read everything again at the next use."""
    with _lock:
        _known.clear()
