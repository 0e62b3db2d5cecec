"""Red-packet rain: all rounds made in one step with their timetable, and a round moved.

A rain is made for a campaign that hasn't started. A round's time may be moved also afterwards, as
long as the round isn't over: the gala is late.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people, selectors, services
from campaign.admin.forms import DressedForm, PacketForm, local
from campaign.admin.shell import address_of
from campaign.models import Campaign, CampaignPacket, Rain
from campaign.services.rains import LEAST_LENGTH_S, MAX_ROUNDS, NAME_MAX_CHARS
from engine.lib.adminkit import LocalMomentField, moment, zone_label
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.pages import page, user_of

Act = people.Act
REASON_MAX_CHARS = 200


class RainForm(DressedForm):
    """When: the first start, and from start to start."""

    aliases = {"budget_fen": "rounds"}

    name_zh = forms.CharField(label=gettext_lazy("Name (Chinese)"), max_length=NAME_MAX_CHARS)
    name_en = forms.CharField(
        label=gettext_lazy("Name (English)"), max_length=NAME_MAX_CHARS, required=False
    )
    first_at = LocalMomentField(seconds=True, label=gettext_lazy("First round at"))
    rounds = forms.IntegerField(
        label=gettext_lazy("Rounds"), min_value=1, max_value=MAX_ROUNDS, initial=5
    )
    interval_s = forms.IntegerField(
        label=gettext_lazy("Seconds from start to start"), min_value=LEAST_LENGTH_S, initial=3600
    )
    length_s = forms.IntegerField(
        label=gettext_lazy("Seconds that a round lasts"), min_value=LEAST_LENGTH_S, initial=60
    )

    def __init__(self, *args: Any, zone: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zone = zone

    def clean_first_at(self) -> Any:
        return LocalMomentField.place(self.cleaned_data["first_at"], self.zone)

    @property
    def table(self) -> list[services.Round]:
        names = ("first_at", "interval_s", "length_s", "rounds")
        return services.rain_timetable(**{name: self.cleaned_data[name] for name in names})


class RoundPacketForm(PacketForm):
    """How each round is split and for whom. Lists and pass phrases belong to single packets."""

    left_out = ("name", "password", "targeted", "target_file", "packet", "opens_at", "closes_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.left_out:
            del self.fields[name]
        self.fields["total"].label = _("Amount of each round")
        self.fields["count"].label = _("Portions of each round")

    @property
    def arguments(self) -> dict[str, Any]:
        data = self.cleaned_data
        return {
            **self.cut,
            "new_only": data["new_only"],
            "min_account_age_days": data.get("min_account_age_days") or 0,
            "group": data["group"],
            "needs_ticket": data["needs_ticket"],
        }


def rain(request: HttpRequest, object_id: str) -> HttpResponse:
    """Make a rain, with a look at its timetable first; or take one out again."""
    if not people.may(user_of(request), Act.EDIT):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign, pk=object_id)
    if campaign.state not in people.RIGHTS[Act.EDIT].states:
        return HttpResponseRedirect(address_of(campaign))
    post = request.POST if request.method == "POST" else None
    if post is not None and post.get("remove"):
        return _remove(request, campaign, post["remove"])
    zone = campaign.timezone
    form = RainForm(
        post, zone=zone, initial={"first_at": local(campaign.starts_at, ZoneInfo(zone))}
    )
    packet = RoundPacketForm(post, prefix="packet")
    valid = all([form.is_valid(), packet.is_valid()])
    table = _table(form) if form.is_valid() else []
    if post is not None and valid and table and post.get("then") == "save":
        try:
            services.rain_create(
                campaign_id=campaign.pk,
                actor=people.actor_of(user_of(request)),
                by=user_of(request),
                **form.cleaned_data,
                **packet.arguments,
            )
        except ServiceError as refusal:
            named = packet.aliases.get(refusal.field, refusal.field).split("[")[0]
            (packet if named in packet.fields else form).refuse(refusal)
        else:
            messages.success(request, _("The rain is part of the campaign now."))
            return HttpResponseRedirect(address_of(campaign))
    total_fen = packet.cleaned_data.get("total") if packet.is_bound and packet.is_valid() else None
    return page(
        request,
        "campaign/rain.html",
        _("Red-packet rain"),
        status=422 if post is not None and not (valid and table) else 200,
        campaign=campaign,
        form=form,
        packet=packet,
        table=[
            {
                "number": one.number,
                "opens": moment(one.opens_at, zone, seconds=True),
                "closes": moment(one.closes_at, zone, seconds=True),
            }
            for one in table
        ],
        needed=yuan(total_fen * len(table)) if total_fen is not None else "",
        free=yuan(campaign.budget_fen - selectors.campaign_committed_fen(campaign)),
        rains=Rain.objects.filter(campaign=campaign).annotate(rounds=Count("links")),
        zone=zone_label(zone),
        back=address_of(campaign),
    )


def _table(form: RainForm) -> list[services.Round]:
    try:
        return form.table
    except ServiceError as refusal:
        form.refuse(refusal)
        return []


def _remove(request: HttpRequest, campaign: Campaign, rain_id: str) -> HttpResponse:
    try:
        services.rain_remove(
            campaign_id=campaign.pk,
            rain_id=int(rain_id) if rain_id.isdecimal() else 0,
            actor=people.actor_of(user_of(request)),
            by=user_of(request),
        )
    except ServiceError as refusal:
        messages.error(request, refusal.message)
    else:
        messages.success(request, _("The rain is taken out."))
    return HttpResponseRedirect(request.path)


# --- moving a round -------------------------------------------------------------------------------


class MoveForm(DressedForm):
    opens_at = LocalMomentField(seconds=True, label=gettext_lazy("New start"))
    closes_at = LocalMomentField(
        seconds=True,
        label=gettext_lazy("New end"),
        required=False,
        help_text=gettext_lazy("Empty: the round stays as long as it is."),
    )
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)

    def __init__(self, *args: Any, zone: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zone = zone

    def clean_opens_at(self) -> Any:
        return LocalMomentField.place(self.cleaned_data["opens_at"], self.zone)

    def clean_closes_at(self) -> Any:
        typed = self.cleaned_data.get("closes_at")
        return LocalMomentField.place(typed, self.zone) if typed else None


def may_move(user: Any, campaign: Campaign) -> bool:
    """Before the launch it is an edit; afterwards a right of its own."""
    return any(
        people.may(user, act) and campaign.state in people.RIGHTS[act].states
        for act in (Act.EDIT, Act.MOVE_ROUND)
    )


def move(request: HttpRequest, object_id: str, packet_id: uuid.UUID) -> HttpResponse:
    """Another time for a round that isn't over."""
    campaign = get_object_or_404(Campaign, pk=object_id)
    if not may_move(user_of(request), campaign):
        raise PermissionDenied
    link = get_object_or_404(
        CampaignPacket.objects.select_related("packet", "rain"),
        campaign=campaign,
        packet=packet_id,
        rain__isnull=False,
    )
    packet, zone = link.packet, campaign.timezone
    post = request.POST if request.method == "POST" else None
    began = local(packet.opens_at, ZoneInfo(zone))
    form = MoveForm(post, zone=zone, initial={"opens_at": began})
    if post is not None and form.is_valid():
        opens_at = form.cleaned_data["opens_at"]
        if opens_at == packet.opens_at.replace(microsecond=0):
            opens_at = packet.opens_at  # the field shows whole seconds: it was left as it is
        length: dt.timedelta = packet.closes_at - packet.opens_at
        try:
            services.round_move(
                campaign_id=campaign.pk,
                packet_id=packet.pk,
                opens_at=opens_at,
                closes_at=form.cleaned_data["closes_at"] or opens_at + length,
                actor=people.actor_of(user_of(request)),
                by=user_of(request),
                reason=form.cleaned_data["reason"],
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("The round is moved. All doors follow within a second."))
            return HttpResponseRedirect(address_of(campaign))
    return page(
        request,
        "campaign/small_form.html",
        _("Move a round"),
        status=422 if post is not None else 200,
        campaign=campaign,
        form=form,
        note=_("What has started keeps its start; no round gets shorter. No money moves."),
        facts=(
            (_("Round"), packet.name),
            (_("Opens at"), moment(packet.opens_at, zone, seconds=True)),
            (_("Closes at"), moment(packet.closes_at, zone, seconds=True)),
            (_("Time zone"), zone_label(zone)),
        ),
        button=_("Move the round"),
        back=address_of(campaign),
    )
