"""What a campaign's growth must be like, and how a version writes it down. None of it writes.

A reward packet is one of the campaign's own, needs a ticket and asks for nothing else: so every
reward obeys its budget, and nobody who has earned one is refused at the door.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.utils.translation import gettext_lazy as _

from campaign import destinations
from campaign.models import MAX_REWARD_DEPTH, WAYS, Campaign, CampaignGrowth
from campaign.models.growth import DAY_S, TEXT_MAX_CHARS
from engine.lib.errors import ServiceError
from packets.models import Packet

# An event's kind as apps report it: ours (joined, active, mission_done) or a word of the app's.
EVENT_KIND = re.compile(r"[a-z](?:[a-z_]{0,30}[a-z])?\Z")
MAX_HOSTS = 10  # the share page's button leads to one; the others are for changing it
# Least and most of each number, and why no more.
BOUNDS: dict[str, tuple[int, int]] = {
    "window_s": (60, 90 * DAY_S),  # the table's own: an invitation isn't for ever
    "depth": (1, MAX_REWARD_DEPTH),
    "inviter_cap": (1, 100_000),  # who invites more is a business and no friend
    "shared_friends": (0, 500),  # the portions of a packet among people
    "share_cooldown_s": (0, DAY_S),
    "visits_per_link_hour": (1, 1_000_000),  # counted one by one, in Postgres
    "complaint_per_mille": (1, 1_000),
    "complaint_min_visits": (1, 1_000_000),
}
TEXTS = ("title_zh", "title_en", "text_zh", "text_en")
REWARDS = ("inviter_packet", "invitee_packet")
PLAIN = (
    "is_on", "attribution", "window_s", "new_only", "qualifying", "qualifying_event", "depth",
    "inviter_cap", "shared_friends", "share_cooldown_s", "visits_per_link_hour",
    "complaint_per_mille", "complaint_min_visits", "destination", "destination_hosts", *TEXTS,
    "image_url", "ways",
)  # fmt: skip
FIELDS = (*PLAIN, *REWARDS)


def growth_of(campaign: Campaign) -> CampaignGrowth | None:
    return (
        CampaignGrowth.objects.filter(campaign=campaign)
        .select_related("campaign", *REWARDS)
        .first()
    )


def growth_document(campaign: Campaign) -> dict[str, Any] | None:
    """The version's section `growth`: the fields as they are, reward packets by their ids."""
    growth = growth_of(campaign)
    if growth is None:
        return None
    packets = {name: getattr(growth, name) for name in REWARDS}
    return {
        **{name: getattr(growth, name) for name in PLAIN},
        **{name: packet.public_id if packet else None for name, packet in packets.items()},
    }


def ways_of(growth: CampaignGrowth) -> frozenset[tuple[str, str]]:
    """The (channel, vehicle) that belong to the campaign, whatever is switched off just now."""
    named = WAYS if growth.ways is None else growth.ways
    return frozenset((way.split("/")[0], way.split("/")[1]) for way in named)


# --- refusing -------------------------------------------------------------------------------------


def check_growth(growth: CampaignGrowth) -> None:
    """Refuses, naming the field, what can't be approved or wouldn't work."""
    for name, (least, most) in BOUNDS.items():
        if name != "depth" and not least <= getattr(growth, name) <= most:
            raise ServiceError(
                name,
                "out_of_range",
                _("Between %(least)s and %(most)s."),
                least=f"{least:,}",
                most=f"{most:,}",
            )
    if not 1 <= growth.depth <= MAX_REWARD_DEPTH:
        raise ServiceError(
            "depth",
            "out_of_range",
            _("A reward reaches %(most)s people up at most: the law knows pyramid selling."),
            most=MAX_REWARD_DEPTH,
        )
    for name, values in (
        ("attribution", CampaignGrowth.Attribution.values),
        ("qualifying", CampaignGrowth.Qualifying.values),
    ):
        if getattr(growth, name) not in values:
            raise ServiceError(name, "unknown", _("There is no such choice."))
    _check_event(growth)
    for name in REWARDS:
        packet = getattr(growth, name)
        if packet is not None:
            check_reward(growth.campaign, packet, name)
    if growth.ways is not None and not set(growth.ways) <= set(WAYS):
        raise ServiceError("ways", "unknown", _("There is no such channel."))
    _check_page(growth)


def check_ready(campaign: Campaign) -> None:
    """Before a second person looks: whatever has changed around the growth meanwhile."""
    growth = growth_of(campaign)
    if growth is None:
        return
    check_growth(growth)
    if growth.is_on and growth.ways == []:
        raise ServiceError("ways", "blank", _("Choose a channel at least, or nobody can share."))


def check_reward(campaign: Campaign, packet: Packet, field: str) -> None:
    """A packet that rewards could be paid from; its times may be any."""
    link = campaign.links.filter(packet=packet).first()
    if link is None:
        raise ServiceError(field, "not_found", _("The campaign has no such packet."))
    if not packet.needs_ticket:
        raise ServiceError(
            field,
            "needs_ticket",
            _("Rewards come from a packet that needs a ticket, or anybody could take them."),
        )
    asks_more = (
        packet.targeted
        or packet.new_only
        or packet.group
        or packet.min_account_age_days
        or packet.password_hash
    )
    if asks_more or link.rain_id is not None:
        raise ServiceError(
            field,
            "asks_more",
            _("Rewards come from a packet that asks for the ticket and nothing else."),
        )


def require_no_reward(packet: Packet) -> None:
    """A packet that rewards are paid from can't be taken out of its campaign."""
    if _pays_rewards(packet.pk):
        raise ServiceError(
            "packet",
            "is_reward",
            _("Rewards are paid from the packet %(name)s; choose another for them first."),
            name=str(packet),
        )


def require_still_reward(campaign: Campaign, packet: Packet) -> None:
    """A packet that rewards are paid from stays one that they can be paid from."""
    if _pays_rewards(packet.pk):
        check_reward(campaign, packet, "needs_ticket")


def _pays_rewards(packet_id: uuid.UUID) -> bool:
    return any(CampaignGrowth.objects.filter(**{name: packet_id}).exists() for name in REWARDS)


def _check_event(growth: CampaignGrowth) -> None:
    named = growth.qualifying_event
    if (growth.qualifying == CampaignGrowth.Qualifying.EVENT) != bool(named):
        raise ServiceError(
            "qualifying_event",
            "not_used" if named else "blank",
            _("Name the event where an event earns the reward, and only there."),
        )
    if named and not EVENT_KIND.match(named):
        raise ServiceError(
            "qualifying_event", "format", _("Small letters and underscores, as the app reports it.")
        )


def _check_page(growth: CampaignGrowth) -> None:
    for name in TEXTS:
        text = getattr(growth, name)
        if len(text) > TEXT_MAX_CHARS or not (text == "" or text.isprintable()):
            raise ServiceError(
                name,
                "format",
                _("One line of at most %(most)s characters."),
                most=TEXT_MAX_CHARS,
            )
    hosts = growth.destination_hosts
    if len(hosts) > MAX_HOSTS:
        raise ServiceError(
            "destination_hosts", "too_many", _("At most %(most)s hosts."), most=MAX_HOSTS
        )
    for host in hosts:
        if not destinations.is_host(host):
            raise ServiceError(
                "destination_hosts",
                "format",
                _("%(host)s is no plain host name, such as app.example.com."),
                host=host,
            )
    for name in ("destination", "image_url"):
        address = getattr(growth, name)
        if address and not destinations.host_of(address):
            raise ServiceError(name, "format", _("This must be a whole https address."))
    if growth.destination and not destinations.allowed(growth.destination, hosts):
        raise ServiceError(
            "destination",
            "host",
            _("%(host)s isn't among the allowed hosts."),
            host=destinations.host_of(growth.destination),
        )
