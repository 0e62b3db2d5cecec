"""What people type to make a campaign: amounts in yuan, times of the campaign's own zone.

The forms turn typing into the services' arguments, exactly; whether these may stand is said by the
rules of the services (`rules`, `packet_check`), and their refusals come back to the fields here.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django import forms
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from campaign.models import (
    CONTACT_MAX_CHARS,
    DEFAULT_TIMEZONE,
    ORGANISER_MAX_CHARS,
    TEXTS,
    Campaign,
)
from engine.lib.adminkit import LocalMomentField, YuanField, parse_yuan, yuan_text
from engine.models import ClientApp
from engine.staff.confirm import DressedForm
from packets.models import Packet
from packets.splitting import EVENNESS_CHOICES

# Shown first in the list of zones; all others follow.
USUAL_ZONES = ("Asia/Shanghai", "Asia/Hong_Kong", "Asia/Taipei", "Asia/Singapore", "UTC")
EVENNESS_WORDS = {
    1: _("1 – wild: many small, a few very large"),
    2: _("2 – usual"),
    4: _("4 – calm"),
    8: _("8 – even"),
    16: _("16 – very even"),
    32: _("32 – nearly equal"),
}
_TIER = re.compile(r"\s*(.+?)\s*[x×*]\s*([\d,]+)\s*\Z")


@functools.cache
def zone_names() -> dict[str, None]:
    """All zones, the usual ones in front; reading them walks through a folder, so only once."""
    return dict.fromkeys((*USUAL_ZONES, *sorted(available_timezones())))


def _zones() -> list[tuple[str, str]]:
    return [(zone, zone) for zone in zone_names()]


class CampaignForm(DressedForm):
    """A campaign's basics and texts."""

    aliases = {"budget_fen": "budget", "timezone_name": "timezone"}

    name_zh = forms.CharField(label=_("Name (Chinese)"), max_length=80)
    name_en = forms.CharField(label=_("Name (English)"), max_length=80, required=False)
    slug = forms.CharField(
        label=_("Short name"),
        max_length=60,
        help_text=_("In addresses and reports: small letters, digits and hyphens."),
    )
    budget = YuanField(
        label=_("Budget"), help_text=_("In yuan. Nothing can be given away beyond it.")
    )
    starts_at = LocalMomentField(label=_("Starts at"))
    ends_at = LocalMomentField(label=_("Ends at"))
    timezone = forms.ChoiceField(
        label=_("Time zone"),
        choices=_zones,
        initial=DEFAULT_TIMEZONE,
        help_text=_("All times on this page are of this zone."),
    )
    client_apps = forms.ModelMultipleChoiceField(
        label=_("Client apps"),
        queryset=ClientApp.objects.filter(active=True, is_drill=False),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": _("Choose at least one app, or nobody can claim.")},
    )
    rules_zh = forms.CharField(
        label=_("Rules (Chinese)"),
        max_length=20_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text=_("What people read before they take part. Needed for the review."),
    )
    rules_en = forms.CharField(
        label=_("Rules (English)"),
        max_length=20_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 4}),
    )
    odds_zh = forms.CharField(
        label=_("Odds (Chinese)"),
        max_length=4_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_(
            "Your own words on the odds; needed where prizes are drawn. Quantities and exact odds "
            "are published beside them."
        ),
    )
    odds_en = forms.CharField(
        label=_("Odds (English)"),
        max_length=4_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    organiser_zh = forms.CharField(
        label=_("Organiser (Chinese)"),
        max_length=ORGANISER_MAX_CHARS,
        required=False,
        help_text=_("The company that promises all this. Empty: the client apps' names."),
    )
    organiser_en = forms.CharField(
        label=_("Organiser (English)"), max_length=ORGANISER_MAX_CHARS, required=False
    )
    contact_zh = forms.CharField(
        label=_("Complaints (Chinese)"),
        max_length=CONTACT_MAX_CHARS,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Where people complain: a telephone number, an address, a page of the app."),
    )
    contact_en = forms.CharField(
        label=_("Complaints (English)"),
        max_length=CONTACT_MAX_CHARS,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    # Raised by every write: a form filled in against something older is refused.
    version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in ("starts_at", "ends_at"):
            if data.get(name) and data.get("timezone"):
                try:
                    data[name] = LocalMomentField.place(data[name], data["timezone"])
                except forms.ValidationError as refusal:
                    self.add_error(name, refusal)
        return data

    @property
    def arguments(self) -> dict[str, Any]:
        """What `campaign_create` takes."""
        data = self.cleaned_data
        return {
            **{name: data[name] for name in (*TEXTS, "slug")},
            "budget_fen": data["budget"],
            "starts_at": data["starts_at"],
            "ends_at": data["ends_at"],
            "timezone_name": data["timezone"],
            "client_apps": [app.pk for app in data["client_apps"]],
        }


class TiersField(forms.CharField):
    """A prize table: one `amount × quantity` a line; held as ((fen, quantity), …)."""

    widget = forms.Textarea

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return "\n".join(f"{yuan_text(fen)} x {quantity}" for fen, quantity in value)
        return value

    def to_python(self, value: Any) -> Any:
        found = []
        for number, line in enumerate(filter(str.strip, str(value or "").splitlines()), start=1):
            parts = _TIER.match(line)
            if parts is None:
                raise forms.ValidationError(
                    _("Prize %(number)s: give an amount in yuan and a quantity."),
                    "invalid",
                    {"number": number},
                )
            found.append((parse_yuan(parts[1]), int(parts[2].replace(",", ""))))
        return tuple(found)


class PacketForm(DressedForm):
    """One packet of the campaign."""

    aliases = {
        "total_fen": "total",
        "min_fen": "least",
        "max_fen": "most",
        "lane_count": "count",
        "file": "target_file",
        "targets": "target_file",
    }

    packet = forms.CharField(required=False, widget=forms.HiddenInput)
    name = forms.CharField(label=_("Name"), max_length=80, required=False)
    strategy = forms.ChoiceField(
        label=_("How it is split"), choices=Packet.Strategy.choices, initial="lucky"
    )
    total = YuanField(label=_("Amount of the packet"))
    count = forms.IntegerField(label=_("Portions"), min_value=1)
    least = YuanField(label=_("Smallest portion"), required=False, help_text=_("Empty: ¥0.01"))
    most = YuanField(label=_("Largest portion"), required=False, help_text=_("Empty: no limit"))
    evenness = forms.TypedChoiceField(
        label=_("Evenness"),
        choices=[(n, EVENNESS_WORDS[n]) for n in EVENNESS_CHOICES],
        coerce=int,
        initial=2,
    )
    tiers = TiersField(
        label=_("Prizes"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("One a line: the amount in yuan, x, the quantity."),
    )
    remainder = forms.ChoiceField(
        label=_("What no prize is"),
        choices=[choice for choice in Packet.Strategy.choices if choice[0] != "tiers"],
        initial="lucky",
        required=False,
    )
    opens_at = LocalMomentField(label=_("Opens at"), required=False)
    closes_at = LocalMomentField(label=_("Closes at"), required=False)
    new_only = forms.BooleanField(label=_("Only for new people"), required=False)
    min_account_age_days = forms.IntegerField(
        label=_("Least age of the account (days)"), required=False, min_value=0, max_value=36_500
    )
    group = forms.CharField(label=_("Only for this group"), max_length=128, required=False)
    password = forms.CharField(label=_("Pass phrase"), max_length=64, required=False)
    targeted = forms.BooleanField(label=_("Only for listed people"), required=False)
    needs_ticket = forms.BooleanField(
        label=_("Only with a ticket"),
        required=False,
        help_text=_(
            "The app's back end gives people tickets; each is good for one portion, so a person "
            "with three tickets gets three. Without one nobody gets any."
        ),
    )
    target_file = forms.FileField(
        label=_("List of people"),
        required=False,
        help_text=_("TXT or CSV, one of the app's user ids a line (the first column)."),
    )

    def __init__(self, *args: Any, zone: str = "", **kwargs: Any) -> None:
        self.zone = zone
        super().__init__(*args, **kwargs)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in ("opens_at", "closes_at"):
            if data.get(name) and self.zone:
                try:
                    data[name] = LocalMomentField.place(data[name], self.zone)
                except forms.ValidationError as refusal:
                    self.add_error(name, refusal)
        return data

    @property
    def cut(self) -> dict[str, Any]:
        """What `packet_check` and the preview take."""
        data = self.cleaned_data
        tiers = data["strategy"] == Packet.Strategy.TIERS
        fixed = data["strategy"] == Packet.Strategy.FIXED
        return {
            "total_fen": data["total"],
            "count": data["count"],
            "strategy": data["strategy"],
            "min_fen": 1 if fixed else data.get("least") or 1,
            "max_fen": None if fixed else data.get("most"),
            "evenness": data["evenness"],
            "tiers": list(data.get("tiers") or ()) if tiers else [],
            "remainder": data.get("remainder") or "lucky",
        }

    @property
    def arguments(self) -> dict[str, Any]:
        """What `campaign_packet_add` takes."""
        data = self.cleaned_data
        return {
            **self.cut,
            "name": data["name"],
            "opens_at": data.get("opens_at"),
            "closes_at": data.get("closes_at"),
            "new_only": data["new_only"],
            "min_account_age_days": data.get("min_account_age_days") or 0,
            "group": data["group"],
            "password": data["password"],
            "targeted": data["targeted"],
            "needs_ticket": data["needs_ticket"],
        }


class BasePacketFormSet(forms.BaseFormSet):
    """The packets of a campaign, in the order they are shown."""

    def __init__(self, *args: Any, zone: str = "", **kwargs: Any) -> None:
        self.zone = zone
        super().__init__(*args, **kwargs)

    def get_form_kwargs(self, index: int | None) -> dict[str, Any]:
        return {**super().get_form_kwargs(index), "zone": self.zone, "empty_permitted": False}

    @cached_property
    def kept(self) -> list[PacketForm]:
        return [form for form in self.forms if not self._should_delete_form(form)]  # type: ignore[attr-defined]


PacketFormSet = forms.formset_factory(
    PacketForm, formset=BasePacketFormSet, extra=0, can_delete=True, max_num=200, validate_max=True
)


def campaign_initial(campaign: Campaign) -> dict[str, Any]:
    """A campaign as its form shows it."""
    zone = ZoneInfo(campaign.timezone)
    return {
        **{name: getattr(campaign, name) for name in (*TEXTS, "slug")},
        "budget": campaign.budget_fen,
        "starts_at": local(campaign.starts_at, zone),
        "ends_at": local(campaign.ends_at, zone),
        "timezone": campaign.timezone,
        "client_apps": list(campaign.client_apps.values_list("pk", flat=True)),
        "version": campaign.version,
    }


def local(at: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def packet_initial(packet: Packet, campaign: Campaign, password: str = "") -> dict[str, Any]:
    """A packet as its form shows it; a window that is the campaign's own is left empty."""
    zone = ZoneInfo(campaign.timezone)
    return {
        "packet": packet.public_id,
        "name": packet.name,
        "strategy": packet.strategy,
        "total": packet.total_fen,
        "count": packet.count,
        "least": packet.min_fen if packet.min_fen > 1 else None,
        "most": packet.max_fen,
        "evenness": packet.evenness,
        "tiers": tuple((fen, quantity) for fen, quantity in packet.tiers),
        "remainder": packet.remainder,
        "opens_at": local(packet.opens_at, zone) if packet.opens_at != campaign.starts_at else None,
        "closes_at": local(packet.closes_at, zone)
        if packet.closes_at != campaign.ends_at
        else None,
        "new_only": packet.new_only,
        "min_account_age_days": packet.min_account_age_days or None,
        "group": packet.group,
        "password": password,
        "targeted": packet.targeted,
        "needs_ticket": packet.needs_ticket,
    }


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
