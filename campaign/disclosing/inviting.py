"""How a version spreads, in words: what inviters and friends get, for what, and how far that goes.

Pure but for the active language. The section `growth` of a version's document is
`campaign/growth_rules.py`'s.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from campaign.disclosing import odds
from campaign.disclosing.sections import Row, Section, row, section
from campaign.growth_words import duration
from campaign.models import CampaignGrowth


def inviting_words(document: dict[str, Any]) -> list[Section]:
    """One section, where people may share; none, where they may not."""
    growth = document.get("growth")
    if not growth or not growth["is_on"]:
        return []
    packets = {packet["id"]: packet for packet in document["packets"]}
    rewards = [
        *_reward("inviter", _("Who invites gets"), packets.get(growth["inviter_packet"])),
        *_reward("invitee", _("The friend gets"), packets.get(growth["invitee_packet"])),
    ]
    return [section("inviting", _("Inviting friends"), [*rewards, *_terms(growth, bool(rewards))])]


def _reward(key: str, label: str, packet: dict[str, Any] | None) -> list[Row]:
    if packet is None:
        return []
    rules = odds.rules_of(packet)
    value = _("%(amount)s for each friend, from packet %(number)s, %(count)s times in all") % {
        "amount": odds.range_words(rules),
        "number": packet["order"],
        "count": f"{rules.count:,}",
    }
    return [row(key, label, value)]


def _terms(growth: dict[str, Any], pays: bool) -> list[Row]:
    rows = [
        row("attribution", _("Who counts as the inviter"), _inviter(growth)),
        row(
            "friends",
            _("Who can be invited"),
            _("new people") if growth["new_only"] else _("everybody"),
        ),
    ]
    if growth["shared_friends"]:
        value = _("up to %(most)s friends") % {"most": f"{growth['shared_friends']:,}"}
        rows.append(row("shared", _("A shared packet opens for"), value))
    if not pays:
        return rows
    return [
        *rows,
        row("earned", _("Earned by"), _earned(growth)),
        row(
            "cap",
            _("At most, for one inviter"),
            _("%(most)s rewards") % {"most": f"{growth['inviter_cap']:,}"},
        ),
        row("depth", _("How far it goes"), _depth(growth["depth"])),
    ]


def _inviter(growth: dict[str, Any]) -> str:
    return _("%(who)s, of those whose link was opened or code typed within %(window)s") % {
        "who": CampaignGrowth.Attribution(growth["attribution"]).label,
        "window": duration(growth["window_s"]),
    }


def _earned(growth: dict[str, Any]) -> str:
    label = str(CampaignGrowth.Qualifying(growth["qualifying"]).label)
    return f"{label} ({growth['qualifying_event']})" if growth["qualifying_event"] else label


def _depth(depth: int) -> str:
    """Pay that grows with indirect recruits is forbidden; what is paid is said."""
    if depth == 1:
        return _(
            "Only who invited the friend is rewarded; nobody gets anything for friends of friends."
        )
    return _(
        "Who invited the friend is rewarded, and the one who invited them; nobody beyond, however "
        "many people follow."
    )
