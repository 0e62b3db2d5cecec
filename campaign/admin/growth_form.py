"""What people type to say how a campaign spreads: days and minutes, yuan, hosts one a line."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.db.models import F, QuerySet
from django.utils.translation import gettext_lazy

from campaign import destinations, growth_rules, growth_words
from campaign.admin.forms import DressedForm
from campaign.models import WAYS, Campaign, CampaignGrowth, Channel, Vehicle
from campaign.models.growth import DAY_S, TEXT_MAX_CHARS
from campaign.services.common import RUNNING
from campaign.services.growth import FAVOUR
from engine.lib.adminkit import CheckboxSelectMultiple, YuanField
from engine.staff.confirm import REASON_MAX_CHARS
from packets.models import Packet

MINUTE_S = 60
LABELS = growth_words.LABELS


class PacketChoice(forms.ModelChoiceField):
    """One of the campaign's packets that need a ticket; empty: nobody gets anything."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            queryset=Packet.objects.none(),
            required=False,
            empty_label=gettext_lazy("none"),
            **kwargs,
        )

    def label_from_instance(self, packet: Any) -> str:
        names = ("name", "order", "count", "total_fen", "strategy")
        return growth_words.packet_words({name: getattr(packet, name) for name in names})


def _number(name: str, help_text: Any = "", **more: Any) -> forms.IntegerField:
    least, most = growth_rules.BOUNDS[name]
    bounds = {"min_value": least, "max_value": most, **more}
    return forms.IntegerField(label=LABELS[name], help_text=help_text, **bounds)


class GrowthForm(DressedForm):
    """The growth's fields: days and minutes instead of seconds, hosts one a line."""

    aliases = {"window_s": "window_days", "share_cooldown_s": "cooldown_minutes"}

    is_on = forms.BooleanField(label=LABELS["is_on"], required=False)
    attribution = forms.ChoiceField(
        label=LABELS["attribution"], choices=CampaignGrowth.Attribution.choices
    )
    window_days = forms.IntegerField(
        label=gettext_lazy("A visit counts for (days)"),
        min_value=1,
        max_value=90,
        help_text=gettext_lazy("Who joins later than that after opening a link was not invited."),
    )
    new_only = forms.BooleanField(label=LABELS["new_only"], required=False)
    qualifying = forms.ChoiceField(
        label=LABELS["qualifying"], choices=CampaignGrowth.Qualifying.choices
    )
    qualifying_event = forms.CharField(
        label=LABELS["qualifying_event"],
        max_length=32,
        required=False,
        help_text=gettext_lazy("As the app's back end reports it, such as signed_up."),
    )
    inviter_packet = PacketChoice(label=LABELS["inviter_packet"])
    invitee_packet = PacketChoice(label=LABELS["invitee_packet"])
    inviter_cap = _number("inviter_cap", gettext_lazy("Further friends join, but bring nothing."))
    depth = forms.TypedChoiceField(
        label=LABELS["depth"],
        coerce=int,
        choices=[
            (1, gettext_lazy("1 – the inviter only")),
            (2, gettext_lazy("2 – whoever invited the inviter too")),
        ],
        help_text=gettext_lazy(
            "Pay for people invited indirectly is close to pyramid selling: ask a lawyer before "
            "choosing 2. More is impossible."
        ),
    )
    shared_friends = _number(
        "shared_friends",
        gettext_lazy("How many tickets what one person shares can give to friends; 0: none."),
    )
    title_zh = forms.CharField(
        label=LABELS["title_zh"],
        max_length=TEXT_MAX_CHARS,
        required=False,
        help_text=gettext_lazy("Empty: the campaign's name."),
    )
    title_en = forms.CharField(label=LABELS["title_en"], max_length=TEXT_MAX_CHARS, required=False)
    text_zh = forms.CharField(label=LABELS["text_zh"], max_length=TEXT_MAX_CHARS, required=False)
    text_en = forms.CharField(label=LABELS["text_en"], max_length=TEXT_MAX_CHARS, required=False)
    destination = forms.CharField(
        label=LABELS["destination"],
        max_length=destinations.URL_MAX_CHARS,
        required=False,
        help_text=gettext_lazy("An https address that opens the app. Empty: no button."),
    )
    destination_hosts = forms.CharField(
        label=LABELS["destination_hosts"],
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=gettext_lazy("One a line. Empty: the host of the address above."),
    )
    image_url = forms.CharField(
        label=LABELS["image_url"],
        max_length=destinations.URL_MAX_CHARS,
        required=False,
        help_text=gettext_lazy("An https address; shown beside the link by apps that preview it."),
    )
    visits_per_link_hour = _number(
        "visits_per_link_hour", gettext_lazy("Further visitors see the page, and count for nobody.")
    )
    cooldown_minutes = forms.IntegerField(
        label=gettext_lazy("Pause between two shares (minutes)"),
        min_value=0,
        max_value=DAY_S // MINUTE_S,
        help_text=gettext_lazy("So that one person can't flood a group."),
    )
    complaint_per_mille = _number(
        "complaint_per_mille", gettext_lazy("At a multiple of it sharing stops by itself.")
    )
    complaint_min_visits = _number(
        "complaint_min_visits", gettext_lazy("Fewer say nothing about a campaign.")
    )
    ways = forms.MultipleChoiceField(
        label=LABELS["ways"],
        choices=[(way, way) for way in WAYS],
        required=False,
        widget=CheckboxSelectMultiple,
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=REASON_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, campaign: Campaign, known: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known = known
        running = campaign.state in RUNNING
        for name in growth_rules.REWARDS:
            field = self.fields[name]
            assert isinstance(field, PacketChoice)
            field.queryset = reward_packets(campaign)
        if not running:
            del self.fields["reason"]
            return
        for name, field in self.fields.items():
            loosens = _ARGUMENTS.get(name, name) in FAVOUR
            field.disabled = not loosens and name not in ("reason", "version")

    def clean_destination_hosts(self) -> list[str]:
        named = re.split(r"[\s,]+", self.cleaned_data["destination_hosts"].strip().lower())
        return list(dict.fromkeys(filter(None, named)))

    @property
    def arguments(self) -> dict[str, Any]:
        """What `growth_edit` takes: of a growth that is there only what was changed."""
        data = self.cleaned_data
        typed = self.changed_data if self.known else list(self.fields)
        found = {
            _ARGUMENTS.get(name, name): data[name] * _UNITS[name] if name in _UNITS else data[name]
            for name in typed
            if name not in ("reason", "version")
        }
        if not data["destination_hosts"] and not self.fields["destination"].disabled:
            host = destinations.host_of(data["destination"])
            found["destination_hosts"] = [host] if host else []
        return found

    @property
    def matrix(self) -> list[dict[str, Any]]:
        """The boxes of `ways` as rows of channels with a cell for each vehicle."""
        boxes = {box.data["value"]: box for box in self["ways"]}
        return [
            {"label": label, "cells": [boxes[f"{channel}/{one}"] for one in Vehicle.values]}
            for channel, label in Channel.choices
        ]


_ARGUMENTS = {"window_days": "window_s", "cooldown_minutes": "share_cooldown_s"}
_UNITS = {"window_days": DAY_S, "cooldown_minutes": MINUTE_S}
SECTIONS = (
    (gettext_lazy("Who was invited by whom"), ("is_on", "new_only", "attribution", "window_days")),
    (
        gettext_lazy("What it brings"),
        (
            "inviter_packet", "invitee_packet", "qualifying", "qualifying_event", "inviter_cap",
            "depth", "shared_friends",
        ),
    ),
    (
        gettext_lazy("The share page"),
        (
            "title_zh", "title_en", "text_zh", "text_en", "destination", "destination_hosts",
            "image_url",
        ),
    ),
    (
        gettext_lazy("Peace for everybody else"),
        (
            "visits_per_link_hour", "cooldown_minutes", "complaint_per_mille",
            "complaint_min_visits",
        ),
    ),
)  # fmt: skip


class RewardsForm(DressedForm):
    """Amounts instead of packets: the packets are made of them."""

    aliases = {
        "inviter_fen": "inviter",
        "invitee_fen": "invitee",
        "budget_fen": "friends",
        "total_fen": "friends",
    }

    inviter = YuanField(label=gettext_lazy("The inviter gets"))
    invitee = YuanField(label=gettext_lazy("The friend gets"))
    friends = forms.IntegerField(
        label=gettext_lazy("For so many friends"),
        min_value=1,
        help_text=gettext_lazy("Then the rewards are used up; the budget holds all of them."),
    )


def reward_packets(campaign: Campaign) -> QuerySet[Packet]:
    """Those that rewards may come from, each with its place in the campaign."""
    return Packet.objects.filter(
        campaign_link__campaign=campaign, campaign_link__rain=None, needs_ticket=True
    ).annotate(order=F("campaign_link__order"))
