"""How a campaign spreads, on one page: who counts, what it brings, where it may go, who has peace.

Before the launch everything may change. Afterwards the fields that can only get worse for people
are shown and can't be typed into; what a field that is left may become is the service's to say.
"""

from __future__ import annotations

import math
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _

from campaign import (
    growth_rules,
    growth_words,
    people,
    selectors,
    services,
    versions,
)
from campaign.admin.forms import DressedForm
from campaign.admin.growth_form import MINUTE_S, SECTIONS, GrowthForm, RewardsForm
from campaign.admin.shell import address_of
from campaign.channel_rules import RULES
from campaign.models import WAYS, Campaign, CampaignGrowth, Vehicle
from campaign.models.growth import DAY_S
from campaign.services.common import EDITABLE, RUNNING
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.pages import page, user_of
from packets.models import Packet

Act = people.Act
# What a first pair of reward packets is offered as.
USUAL_FEN = {"inviter": 100, "invitee": 50}
USUAL_FRIENDS = 1_000


def edit(request: HttpRequest, object_id: str) -> HttpResponse:
    """Say how the campaign spreads; `then=make` also makes the packets that rewards come from."""
    campaign = get_object_or_404(Campaign, pk=object_id)
    if not people.may(user_of(request), Act.SET_GROWTH):
        raise PermissionDenied
    if campaign.state not in people.RIGHTS[Act.SET_GROWTH].states:
        return HttpResponseRedirect(address_of(campaign))
    growth = growth_rules.growth_of(campaign)
    running = campaign.state in RUNNING
    post = request.POST if request.method == "POST" else None
    makes = post is not None and post.get("then") == "make" and not running
    form = GrowthForm(
        post,
        campaign=campaign,
        known=growth is not None,
        initial=_initial(growth or CampaignGrowth(), campaign),
    )
    rewards = RewardsForm(post if makes else None, prefix="make", initial=_rewards_initial(growth))
    valid = post is not None and all([form.is_valid(), not makes or rewards.is_valid()])
    if valid and _save(request, campaign, form, rewards if makes else None):
        messages.success(request, _("The growth is saved."))
        return HttpResponseRedirect(request.path if makes else address_of(campaign))
    return page(
        request,
        "campaign/growth.html",
        _("Growth"),
        status=422 if post is not None else 200,
        campaign=campaign,
        form=form,
        sections=[(title, [form[name] for name in names]) for title, names in SECTIONS],
        rewards=None if running else rewards,
        running=running,
        known=growth is not None,
        deep=growth is not None and growth.depth > 1,
        voids=campaign.state in EDITABLE and campaign.state != Campaign.State.DRAFT,
        vehicles=[label for _value, label in Vehicle.choices],
        rules=RULES.values(),
        sentences=summary(campaign),
        free=yuan(campaign.budget_fen - selectors.campaign_committed_fen(campaign)),
        switches=reverse("admin:referrals_channels_of", args=[campaign.pk])
        if growth is not None and user_of(request).has_perm("campaign.view_campaignchannel")
        else "",
        back=address_of(campaign),
    )


def summary(campaign: Campaign) -> list[str]:
    """The campaign's growth in sentences; empty where nothing was said about it."""
    if growth_rules.growth_of(campaign) is None:
        return []
    return growth_words.sentences(versions.campaign_document(campaign))


def _save(
    request: HttpRequest, campaign: Campaign, form: GrowthForm, rewards: RewardsForm | None
) -> bool:
    """Both or neither; the refusal stands at its field."""
    user = user_of(request)
    who: dict[str, Any] = {
        "campaign_id": campaign.pk,
        "actor": people.actor_of(user),
        "by": user,
    }
    asked: DressedForm = form
    try:
        with transaction.atomic():
            services.growth_edit(
                **who,
                version=form.cleaned_data.get("version"),
                reason=form.cleaned_data.get("reason", ""),
                **form.arguments,
            )
            if rewards is not None:
                asked = rewards
                data = rewards.cleaned_data
                services.growth_reward_packets_make(
                    **who,
                    inviter_fen=data["inviter"],
                    invitee_fen=data["invitee"],
                    friends=data["friends"],
                )
    except ServiceError as refusal:
        asked.refuse(refusal)
        return False
    return True


def _initial(growth: CampaignGrowth, campaign: Campaign) -> dict[str, Any]:
    return {
        **{name: getattr(growth, name) for name in growth_rules.FIELDS},
        "window_days": math.ceil(growth.window_s / DAY_S),
        "cooldown_minutes": math.ceil(growth.share_cooldown_s / MINUTE_S),
        "destination_hosts": "\n".join(growth.destination_hosts),
        "ways": list(WAYS) if growth.ways is None else growth.ways,
        "inviter_packet": growth.inviter_packet_id,
        "invitee_packet": growth.invitee_packet_id,
        "version": campaign.version,
    }


def _rewards_initial(growth: CampaignGrowth | None) -> dict[str, Any]:
    found: dict[str, Any] = {**USUAL_FEN, "friends": USUAL_FRIENDS}
    for side in USUAL_FEN:
        packet = getattr(growth, f"{side}_packet", None)
        if packet is not None and packet.strategy == Packet.Strategy.FIXED:
            found[side] = packet.total_fen // packet.count
            found["friends"] = packet.count
    return found
