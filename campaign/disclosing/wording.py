"""A version's document as sections of words, in the language that is active.

    {"title", "sections": [{"key", "title", "rows": [{"key", "label", "value"}], "text"}]}

Everything that decides who gets how much, when and how likely is here; keys stay the same from
version to version, so that two of them can be compared row by row. Pure but for the language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from campaign.disclosing import odds
from campaign.disclosing.inviting import inviting_words
from campaign.disclosing.sections import Row, Section, Words, own_text, row, section
from engine.lib.adminkit import moment
from engine.lib.money import yuan
from packets.splitting import Rules, Strategy


@dataclass(frozen=True)
class Difference:
    """One thing that a reader was told otherwise before; "" where nothing was said."""

    label: str
    before: str
    after: str


def version_words(document: dict[str, Any], app_names: Sequence[str]) -> Words:
    """The whole text of this version."""
    return {
        "title": own_text(document, "name"),
        "sections": [
            _basics(document, app_names),
            section("rules", _("Rules"), text=own_text(document, "rules")),
            *_packets(document),
            *_own_odds(document),
            *inviting_words(document),
            _fairness(),
            _complaints(document),
            _promises(),
        ],
    }


def differences(before: Words, after: Words) -> list[Difference]:
    """Row by row, in the order of the newer text; what was taken away comes last."""
    old, new = _flat(before), _flat(after)
    found = [
        Difference(label, old.get(key, ("", ""))[1], value)
        for key, (label, value) in new.items()
        if old.get(key, ("", ""))[1] != value
    ]
    gone = [Difference(label, value, "") for key, (label, value) in old.items() if key not in new]
    return found + gone


def _flat(words: Words) -> dict[str, tuple[str, str]]:
    found = {"title": (_("Name"), words["title"])}
    for part in words["sections"]:
        for line in part["rows"]:
            label = f"{part['title']} · {line['label']}"
            found[f"{part['key']}/{line['key']}"] = (label, line["value"])
        if part["text"]:
            found[f"{part['key']}/"] = (part["title"], part["text"])
    return found


def _moment(document: dict[str, Any], text: str, *, seconds: bool = False) -> str:
    return moment(parse_datetime(text), document["timezone"], seconds=seconds)


def _basics(document: dict[str, Any], app_names: Sequence[str]) -> Section:
    apps = ", ".join(app_names)
    return section(
        "campaign",
        _("The campaign"),
        [
            row("organiser", _("Organiser"), own_text(document, "organiser") or apps),
            row("apps", _("Where to take part"), apps),
            row("starts", _("Starts at"), _moment(document, document["starts_at"])),
            row("ends", _("Ends at"), _moment(document, document["ends_at"])),
            row("budget", _("Given away at most"), yuan(document["budget_fen"])),
        ],
    )


# --- packets --------------------------------------------------------------------------------------


def _packets(document: dict[str, Any]) -> list[Section]:
    """A section a packet; the rounds of a rain share one."""
    found: list[Section] = []
    rains: dict[tuple[str, str], Section] = {}
    for packet in document["packets"]:
        rain = packet.get("rain")
        if rain is None:
            found.append(_packet(document, packet))
            continue
        name = (rain[0], rain[1])
        if name not in rains:
            rains[name] = _rain(document, packet)
            found.append(rains[name])
        rains[name]["rows"].append(_round(document, packet))
    return found


def _packet(document: dict[str, Any], packet: dict[str, Any]) -> Section:
    title = _("Packet %(number)s") % {"number": packet["order"]}
    if packet["name"]:
        title = f"{title}: {packet['name']}"
    window = ("opens_at", "closes_at")
    own_time = any(
        packet[name] != document[whole]
        for name, whole in zip(window, ("starts_at", "ends_at"), strict=True)
    )
    rows = _portions(packet)
    if own_time:
        times = " – ".join(_moment(document, packet[name]) for name in window)
        rows.append(row("window", _("Open"), times))
    rows.append(row("commitment", _("Commitment to the draws"), packet["commitment"]))
    return section(f"packet.{packet['id']}", title, rows)


def _rain(document: dict[str, Any], packet: dict[str, Any]) -> Section:
    """What all rounds have in common; their times follow, a row each."""
    zh, en = packet["rain"][:2]
    name = own_text({"name_zh": zh, "name_en": en}, "name")
    title = _("Red-packet rain: %(name)s") % {"name": name}
    return section(f"rain.{zh}", title, _portions(packet))


def _round(document: dict[str, Any], packet: dict[str, Any]) -> Row:
    number = packet["rain"][2]
    times = " – ".join(
        _moment(document, packet[name], seconds=True) for name in ("opens_at", "closes_at")
    )
    value = _("%(times)s; %(total)s in %(count)s portions; commitment %(commitment)s") % {
        "times": times,
        "total": yuan(packet["total_fen"]),
        "count": f"{packet['count']:,}",
        "commitment": packet["commitment"],
    }
    return row(f"round.{number}", _("Round %(number)s") % {"number": number}, value)


def _portions(packet: dict[str, Any]) -> list[Row]:
    rules = odds.rules_of(packet)
    return [
        row("count", _("Portions"), f"{rules.count:,}"),
        row("total", _("Amount in all"), yuan(rules.total_fen)),
        row("method", _("How a portion is decided"), odds.method_words(rules)),
        *_amounts(rules),
        row("who", _("Who may claim"), _audience(packet)),
        row(
            "times",
            _("How often"),
            _("once with each ticket that a person holds")
            if packet.get("needs_ticket")
            else _("once each person"),
        ),
    ]


def _amounts(rules: Rules) -> list[Row]:
    average = row("average", _("Average of a portion"), odds.average_words(rules))
    if rules.strategy is not Strategy.TIERS:
        return [row("range", _("Amount of a portion"), odds.range_words(rules)), average]
    rows = [
        row(
            f"prize.{number}",
            _("Prize %(number)s: %(amount)s") % {"number": number, "amount": yuan(tier.amount_fen)},
            _prize(tier.quantity, rules.count),
        )
        for number, tier in enumerate(rules.tiers, start=1)
    ]
    rest = odds.rest_of(rules)
    if rest.count:
        value = _("%(chance)s; %(range)s; %(average)s on average. %(method)s") % {
            "chance": _prize(rest.count, rules.count),
            "range": odds.range_words(rest),
            "average": odds.average_words(rest),
            "method": odds.method_words(rest),
        }
        rows.append(row("rest", _("No prize"), value))
    return [*rows, average]


def _prize(quantity: int, count: int) -> str:
    return _("%(quantity)s of them; chance of a portion: %(chance)s") % {
        "quantity": f"{quantity:,}",
        "chance": odds.chance_words(quantity, count),
    }


def _audience(packet: dict[str, Any]) -> str:
    who = []
    if packet["targeted"]:
        who.append(_("people on the organiser's list"))
    if packet["new_only"]:
        who.append(_("new people"))
    if packet["group"]:
        who.append(_("members of one chat group"))
    if packet["min_account_age_days"]:
        who.append(
            _("accounts of %(days)s days or more") % {"days": packet["min_account_age_days"]}
        )
    if packet["password_hash"]:
        who.append(_("who know the pass phrase"))
    if packet.get("needs_ticket"):
        who.append(_("who hold a ticket"))
    return "; ".join(who) or _("everybody in these apps")


def _own_odds(document: dict[str, Any]) -> list[Section]:
    text = own_text(document, "odds")
    return [section("odds", _("The organiser's words on the odds"), text=text)] if text else []


# --- what holds for every campaign ----------------------------------------------------------------


def _fairness() -> Section:
    return section(
        "fairness",
        _("How the draws can be checked"),
        text=_(
            "First come, first served, while portions last. Each packet's commitment binds all its "
            "draws before it opens; when it has closed, what it was made from is published, and "
            "anybody can compute every portion anew."
        ),
    )


def _complaints(document: dict[str, Any]) -> Section:
    rows = []
    if contact := own_text(document, "contact"):
        rows.append(row("contact", _("Complaints to"), contact))
    return section(
        "complaints",
        _("Complaints and appeals"),
        rows,
        _(
            "Money that looks like abuse may be held, with its reasons. Whoever is concerned sees "
            "the hold and its reasons in the app and can appeal there; a person decides, not a "
            "program. Each share page has a button for those who don't want such links."
        ),
    )


def _promises() -> Section:
    return section(
        "promises",
        _("What does not change"),
        text=_(
            "Taking part costs nothing. Once the campaign has started, it changes only in favour "
            "of those who take part: more money, further packets, a later end, or another time for "
            "a round that is not over. Sharing may be stopped to protect people from it. Each "
            "change is published here with its date."
        ),
    )
