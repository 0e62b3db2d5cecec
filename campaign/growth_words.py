"""A version's growth in words: label and value of each field, and sentences that sum it up.

All of it is read from a version's document (`versions.campaign_document`), so that words about what
was approved stay about that.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from campaign.models import CampaignGrowth, Channel, Vehicle
from campaign.models.growth import DAY_S
from engine.lib.money import yuan
from packets.models import Packet

HOUR_S, MINUTE_S = 3600, 60
LABELS: dict[str, Any] = {  # what Django takes as a label
    "is_on": gettext_lazy("People may share"),
    "attribution": gettext_lazy("Who counts as the inviter"),
    "window_s": gettext_lazy("A visit counts for"),
    "new_only": gettext_lazy("Only new people can be invited"),
    "qualifying": gettext_lazy("A reward is earned by"),
    "qualifying_event": gettext_lazy("The event's kind"),
    "inviter_packet": gettext_lazy("Reward of the inviter"),
    "invitee_packet": gettext_lazy("Reward of the friend"),
    "depth": gettext_lazy("Reward depth"),
    "inviter_cap": gettext_lazy("Rewards an inviter can earn"),
    "shared_friends": gettext_lazy("Friends per shared packet"),
    "ways": gettext_lazy("Channels"),
    "share_cooldown_s": gettext_lazy("Pause between two shares"),
    "visits_per_link_hour": gettext_lazy("Visits a link and hour"),
    "complaint_per_mille": gettext_lazy("Complaints per 1,000 visits that slow sharing"),
    "complaint_min_visits": gettext_lazy("Complaints are judged from so many visits"),
    "destination": gettext_lazy("Where the button leads"),
    "destination_hosts": gettext_lazy("Allowed hosts"),
    "title_zh": gettext_lazy("Title (Chinese)"),
    "title_en": gettext_lazy("Title (English)"),
    "text_zh": gettext_lazy("Text (Chinese)"),
    "text_en": gettext_lazy("Text (English)"),
    "image_url": gettext_lazy("Picture"),
}


def label_words(field: str) -> str:
    return _("Growth: %(field)s") % {"field": LABELS.get(field, field)}


def value_words(field: str, value: Any, packets: dict[str, dict[str, Any]]) -> str:
    """One value; `packets`: those of the documents, by id."""
    if field == "ways":
        return ways_words(value)
    if field == "destination_hosts":
        return ", ".join(value or ()) or "–"
    if value is None or value == "":
        return "–"
    if field == "attribution":
        return str(CampaignGrowth.Attribution(value).label)
    if field == "qualifying":
        return str(CampaignGrowth.Qualifying(value).label)
    if field in ("inviter_packet", "invitee_packet"):
        return packet_words(packets[value]) if value in packets else str(value)
    if field.endswith("_s"):
        return duration(value)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return f"{value:,}" if isinstance(value, int) else str(value)


def sheet(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and value of what the version says about its growth; empty where it doesn't spread."""
    growth = document.get("growth")
    if not growth:
        return []
    packets = packets_of(document)
    return [
        (str(LABELS[name]), value_words(name, growth[name], packets))
        for name in LABELS
        if name in growth and growth[name] not in ("", [])
    ]


def packets_of(*documents: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    return {
        packet["id"]: packet
        for document in documents
        if document is not None
        for packet in document.get("packets", ())
    }


def packet_words(packet: dict[str, Any]) -> str:
    """`Reward for inviting: ¥1.00 × 2,000`."""
    name = packet["name"] or _("Packet %(number)s") % {"number": packet["order"]}
    return f"{name}: {portion_words(packet)} × {packet['count']:,}"


def portion_words(packet: dict[str, Any]) -> str:
    """What one portion is, exactly or on average."""
    mean = yuan(packet["total_fen"] // packet["count"])
    if packet["strategy"] == Packet.Strategy.FIXED:
        return mean
    return _("%(amount)s on average") % {"amount": mean}


def duration(seconds: int) -> str:
    """`7 days`, `90 minutes`: in the largest unit that says it exactly."""
    if not seconds:
        return _("none")
    if seconds % DAY_S == 0:
        n = seconds // DAY_S
        return ngettext("%(n)s day", "%(n)s days", n) % {"n": n}
    if seconds % HOUR_S == 0:
        n = seconds // HOUR_S
        return ngettext("%(n)s hour", "%(n)s hours", n) % {"n": n}
    if seconds % MINUTE_S == 0:
        n = seconds // MINUTE_S
        return ngettext("%(n)s minute", "%(n)s minutes", n) % {"n": n}
    return ngettext("%(n)s second", "%(n)s seconds", seconds) % {"n": seconds}


def ways_words(ways: list[str] | None) -> str:
    """`WeChat chat (link, QR code); QQ (link)`."""
    if ways is None:
        return _("all")
    named: dict[str, list[str]] = {}
    for way in ways:
        channel, vehicle = way.split("/")
        named.setdefault(channel, []).append(str(Vehicle(vehicle).label))
    words = [f"{Channel(channel).label} ({', '.join(names)})" for channel, names in named.items()]
    return "; ".join(words) or "–"


# --- in sentences ---------------------------------------------------------------------------------


def sentences(document: dict[str, Any]) -> list[str]:
    """What happens when people share this version of the campaign."""
    growth = document.get("growth")
    if not growth or not growth["is_on"]:
        return [_("People can't share this campaign.")]
    packets = packets_of(document)
    inviters = packets.get(growth["inviter_packet"] or "")
    friends = packets.get(growth["invitee_packet"] or "")
    found = [_reward(growth, inviters, friends)]
    if inviters is not None:
        found.append(
            _("An inviter gets a reward at most %(cap)s times.")
            % {"cap": f"{growth['inviter_cap']:,}"}
        )
        if growth["depth"] > 1:
            found.append(
                _("Whoever invited the inviter gets the same once more, and nobody further up.")
            )
    paying = {packet["id"]: packet["total_fen"] for packet in (inviters, friends) if packet}
    if paying:
        found.append(
            _("All rewards together are at most %(most)s.") % {"most": yuan(sum(paying.values()))}
        )
    return [*found, *_who_counts(growth)]


def _reward(
    growth: dict[str, Any], inviters: dict[str, Any] | None, friends: dict[str, Any] | None
) -> str:
    if inviters is None and friends is None:
        return _("People share without a reward.")
    event = growth["qualifying_event"]
    who = (
        _("Each friend who joins and does “%(event)s”") % {"event": event}
        if growth["qualifying"] == CampaignGrowth.Qualifying.EVENT
        else _("Each friend who joins and opens a packet")
    )
    if inviters is None or friends is None:
        one = inviters or friends
        assert one is not None
        said = (
            _("%(who)s brings %(amount)s to the inviter.")
            if inviters is not None
            else _("%(who)s gets %(amount)s; the inviter gets nothing.")
        )
        return said % {"who": who, "amount": portion_words(one)}
    return _("%(who)s brings %(inviter)s to the inviter and %(friend)s to the friend.") % {
        "who": who,
        "inviter": portion_words(inviters),
        "friend": portion_words(friends),
    }


def _who_counts(growth: dict[str, Any]) -> tuple[str, str]:
    within = {"window": duration(growth["window_s"])}
    said = (
        _("Whoever invited the friend first within %(window)s counts as the inviter.")
        if growth["attribution"] == CampaignGrowth.Attribution.FIRST
        else _("Whoever invited the friend last within %(window)s counts as the inviter.")
    ) % within
    return said, (
        _("Only new people can be invited.") if growth["new_only"] else _("Anybody can be invited.")
    )
