"""The ways that links travel: for each campaign a matrix of channels and vehicles, with switches
and what came by each."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people
from campaign.admin.shell import address_of, name_of
from campaign.models import Campaign, CampaignGrowth, Channel, Vehicle
from engine.lib.adminkit import require
from engine.lib.errors import ServiceError
from engine.staff.confirm import REASON_MAX_CHARS, DressedForm
from engine.staff.pages import page, user_of
from referrals.linking.complaints import JUDGED_VISITS, mood_of, rate_of
from referrals.linking.selectors import way_counts
from referrals.linking.spread import Spread, read
from referrals.linking.switching import channel_switch

Act = people.Act
CAMPAIGNS_SHOWN = 100  # the newest
MOODS = {
    "open": gettext_lazy("sharing is open"),
    "slowed": gettext_lazy("slowed down by complaints"),
    "stopped": gettext_lazy("stopped by complaints"),
}


class SwitchForm(DressedForm):
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)


def overview(request: HttpRequest) -> HttpResponse:
    """The campaigns that spread, each with a way to its channels."""
    require(request, "campaign.view_campaignchannel")
    rows = CampaignGrowth.objects.select_related("campaign").order_by("-campaign__created_at")
    return page(
        request,
        "referrals/campaigns.html",
        _("Channels"),
        rows=[
            {
                "name": name_of(growth.campaign),
                "campaign": growth.campaign,
                "is_on": growth.is_on,
                "address": reverse("admin:referrals_channels_of", args=[growth.campaign_id]),
            }
            for growth in rows[:CAMPAIGNS_SHOWN]
        ],
    )


def channels(request: HttpRequest, campaign_id: uuid.UUID) -> HttpResponse:
    """One campaign's matrix; a switch with a reason acts everywhere within seconds."""
    require(request, "campaign.view_campaignchannel")
    user, campaign = user_of(request), get_object_or_404(Campaign, pk=campaign_id)
    may = people.may(user, Act.SWITCH_CHANNEL)
    form = SwitchForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        if not may:
            raise PermissionDenied
        way = _way(request.POST.get("way", ""))
        if form.is_valid() and way is not None and _switched(request, campaign, form, *way):
            return HttpResponseRedirect(request.path)
    spread = read(campaign.pk)
    rate = rate_of(campaign.pk)
    return page(
        request,
        "referrals/channels.html",
        _("Channels of %(campaign)s") % {"campaign": name_of(campaign)},
        status=422 if form.is_bound else 200,
        campaign=campaign,
        spread=spread,
        form=form,
        may=may,
        vehicles=[label for _value, label in Vehicle.choices],
        rows=_rows(campaign, spread),
        rate=rate,
        judged=JUDGED_VISITS,
        mood=MOODS[mood_of(spread.growth, rate)] if spread else "",
        back=address_of(campaign),
    )


def _switched(
    request: HttpRequest, campaign: Campaign, form: SwitchForm, channel: str, vehicle: str, on: bool
) -> bool:
    try:
        channel_switch(
            campaign_id=campaign.pk,
            channel=channel,
            vehicle=vehicle,
            on=on,
            reason=form.cleaned_data["reason"],
            actor=people.actor_of(user_of(request)),
        )
    except ServiceError as refusal:
        form.refuse(refusal)
        return False
    said = _("%(way)s is on.") if on else _("%(way)s is off.")
    messages.success(
        request, said % {"way": f"{Channel(channel).label} · {Vehicle(vehicle).label}"}
    )
    return True


def _way(text: str) -> tuple[str, str, bool] | None:
    parts = text.split(":")
    if len(parts) != 3 or parts[0] not in Channel.values or parts[1] not in Vehicle.values:
        return None
    return parts[0], parts[1], parts[2] == "on"


def _rows(campaign: Campaign, spread: Spread | None) -> list[dict[str, Any]]:
    """Visits and friends who joined, by channel and vehicle."""
    ways = way_counts(campaign.pk)
    most = max([1, *ways.visits.values()])
    return [
        {
            "label": label,
            "by_claim": ways.joins[channel, ""],
            "joins": sum(n for (of, _vehicle), n in ways.joins.items() if of == channel),
            "cells": [
                {
                    "on": spread is None or spread.is_on(channel, vehicle),
                    "approved": spread is None or (channel, vehicle) in spread.approved,
                    "way": f"{channel}:{vehicle}",
                    "visits": ways.visits[channel, vehicle],
                    "joins": ways.joins[channel, vehicle],
                    "share": round(100 * ways.visits[channel, vehicle] / most),
                }
                for vehicle in Vehicle.values
            ],
        }
        for channel, label in Channel.choices
    ]
