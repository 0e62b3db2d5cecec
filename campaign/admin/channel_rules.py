"""What the platforms want, to be read and acknowledged before a campaign is handed in."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from campaign import people, services
from campaign.admin.shell import address_of, name_of
from campaign.channel_rules import Acknowledgement, acknowledgements
from campaign.models import Campaign
from engine.lib.adminkit import moment
from engine.lib.errors import ServiceError
from engine.staff.pages import page, user_of

Act = people.Act


def channel_rules(request: HttpRequest, object_id: str) -> HttpResponse:
    """The words on each channel that is on; whoever edits the campaign says what they have read."""
    user = user_of(request)
    if not user.has_perm("campaign.view_campaign"):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign, pk=object_id)
    refused = ""
    if request.method == "POST":
        if not people.may(user, Act.ACKNOWLEDGE_CHANNELS):
            raise PermissionDenied
        try:
            services.channels_acknowledge(campaign_id=campaign.pk, versions=_read(request), by=user)
        except ServiceError as refusal:
            refused = refusal.message
        else:
            messages.success(request, _("Recorded: you have read these rules."))
            return HttpResponseRedirect(address_of(campaign))
    return page(
        request,
        "campaign/channel_rules.html",
        _("Platform rules: %(name)s") % {"name": name_of(campaign)},
        status=422 if refused else 200,
        campaign=campaign,
        refused=refused,
        rows=[shown(one, campaign) for one in acknowledgements(campaign)],
        may=people.may(user, Act.ACKNOWLEDGE_CHANNELS)
        and campaign.state in people.RIGHTS[Act.ACKNOWLEDGE_CHANNELS].states,
        back=address_of(campaign),
    )


def _read(request: HttpRequest) -> dict[str, int]:
    """`wechat:1` of each box that was ticked; what isn't of that form isn't one of ours."""
    found = {}
    for text in request.POST.getlist("read"):
        channel, _colon, version = text.partition(":")
        found[channel] = int(version) if version.isascii() and version.isdigit() else 0
    return found


def shown(one: Acknowledgement, campaign: Campaign) -> dict[str, Any]:
    """One channel's rule and who has read it, for this page and the reviewer's."""
    return {
        "channel": one.rule.channel.label,
        "value": f"{one.rule.channel.value}:{one.rule.version}",
        "version": one.rule.version,
        "words": one.rule.words,
        "vehicles": ", ".join(str(vehicle.label) for vehicle in one.rule.vehicles),
        "unfit": ", ".join(str(vehicle.label) for vehicle in one.unfit),
        "plain": one.rule.plain_texts,
        "is_current": one.is_current,
        "outdated": one.at is not None and not one.is_current,
        "by": one.by,
        "at": moment(one.at, campaign.timezone),
    }
