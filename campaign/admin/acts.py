"""Every step of a campaign's life as staff take it: what it costs in words and numbers, asked once
more, then done by the service.

A button is shown only to whoever has the right, and the right is asked for again when it is
pressed. The form carries the version that was seen: confirming what has changed meanwhile is
refused. What can't be undone wants the campaign's short name typed; what moves money wants the
password.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people, selectors, services
from campaign.admin.shell import address_of, switch_gate
from campaign.models import Campaign
from engine.lib.adminkit import moment
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.confirm import Consequence, MoneyForm
from engine.staff.pages import page, user_of
from packets.models import Gate

Act = people.Act
State = Campaign.State
REASON_MAX_CHARS = 200


@dataclass(frozen=True)
class Step:
    """An act's page: its words, what it asks for, and the service behind it."""

    label: str | Promise
    icon: str
    consequence: Callable[[Campaign], Consequence]
    run: Callable[[Campaign, Any, dict[str, Any]], Any]
    reason: bool = False  # offers a field for why
    typed: bool = False  # wants the short name typed
    danger: bool = False


# --- consequences ---------------------------------------------------------------------------------


def _submit(campaign: Campaign) -> Consequence:
    bound = selectors.campaign_committed_fen(campaign)
    return Consequence(
        _("No money moves. Somebody else has to approve it before it can start."),
        numbers=(
            (_("Budget"), yuan(campaign.budget_fen)),
            (_("Bound in packets"), yuan(bound)),
            (_("Starts at"), moment(campaign.starts_at, campaign.timezone)),
        ),
    )


def _launch(campaign: Campaign) -> Consequence:
    bound = selectors.campaign_committed_fen(campaign)
    return Consequence(
        _("%(amount)s will be frozen for this campaign.") % {"amount": yuan(campaign.budget_fen)},
        (
            _("%(bound)s of it goes into its packets, and people can claim them.")
            % {"bound": yuan(bound)},
            _("From then on its rules can only change in people's favour."),
        ),
        (
            (_("Budget"), yuan(campaign.budget_fen)),
            (_("Bound in packets"), yuan(bound)),
            (_("Kept in reserve"), yuan(campaign.budget_fen - bound)),
            (_("Ends at"), moment(campaign.ends_at, campaign.timezone)),
        ),
    )


def _pause(campaign: Campaign) -> Consequence:
    return Consequence(
        _("No money moves."),
        (_("From the next claim on everybody hears that it is paused, until you resume it."),),
    )


def _resume(campaign: Campaign) -> Consequence:
    return Consequence(_("No money moves."), (_("People can claim again at once."),))


def _stop(campaign: Campaign) -> Consequence:
    money = selectors.campaign_money(campaign)
    left = selectors.campaign_committed_fen(campaign) - money.claimed_fen
    return Consequence(
        _("%(left)s that nobody has claimed will return to the campaign's budget.")
        % {"left": yuan(left)},
        (
            _("%(claimed)s that people have won stays theirs.")
            % {"claimed": yuan(money.claimed_fen)},
            _("Claiming stops for good with the next claim. This can't be undone."),
        ),
        (
            (_("Won by people"), f"{yuan(money.claimed_fen)} ({money.claimed_count:,})"),
            (_("Unclaimed, returns to the budget"), yuan(left)),
            (_("Budget after it"), yuan(money.free_fen + left)),
        ),
    )


def _settle(campaign: Campaign) -> Consequence:
    money = selectors.campaign_money(campaign)
    return Consequence(
        _("%(free)s that is left of the budget will be returned.") % {"free": yuan(money.free_fen)},
        (_("The books of this campaign are closed. This can't be undone."),),
        (
            (_("Budget"), yuan(campaign.budget_fen)),
            (_("Won by people"), yuan(money.claimed_fen)),
            (_("Returned"), yuan(money.free_fen)),
            (_("Claims waiting for settlement"), f"{money.unsettled_count:,}"),
            (_("Settlements refused"), f"{money.parked_count:,}"),
            (_("Holds to decide"), f"{money.open_holds:,}"),
        ),
    )


STEPS: dict[Act, Step] = {
    Act.SUBMIT: Step(
        gettext_lazy("Submit for review"),
        "send",
        _submit,
        lambda c, user, data: services.campaign_submit(
            campaign_id=c.pk, by=user, version=data["version"]
        ),
    ),
    Act.LAUNCH: Step(
        gettext_lazy("Launch now"),
        "rocket_launch",
        _launch,
        lambda c, user, data: services.campaign_launch(
            campaign_id=c.pk, actor=people.actor_of(user)
        ),
        typed=True,
    ),
    Act.PAUSE: Step(
        gettext_lazy("Pause"),
        "pause",
        _pause,
        lambda c, user, data: services.campaign_pause(
            campaign_id=c.pk, actor=people.actor_of(user), reason=data["reason"]
        ),
        reason=True,
    ),
    Act.RESUME: Step(
        gettext_lazy("Resume"),
        "play_arrow",
        _resume,
        lambda c, user, data: services.campaign_resume(
            campaign_id=c.pk, actor=people.actor_of(user), reason=data["reason"]
        ),
        reason=True,
    ),
    Act.END: Step(
        gettext_lazy("End"),
        "stop",
        _stop,
        lambda c, user, data: services.campaign_end(
            campaign_id=c.pk, actor=people.actor_of(user), reason=data["reason"]
        ),
        reason=True,
        typed=True,
        danger=True,
    ),
    Act.KILL: Step(
        gettext_lazy("Kill"),
        "dangerous",
        _stop,
        lambda c, user, data: services.campaign_kill(
            campaign_id=c.pk, actor=people.actor_of(user), reason=data["reason"]
        ),
        reason=True,
        typed=True,
        danger=True,
    ),
    Act.SETTLE: Step(
        gettext_lazy("Settle"),
        "price_check",
        _settle,
        lambda c, user, data: services.campaign_settle(
            campaign_id=c.pk, actor=people.actor_of(user)
        ),
    ),
}


# --- the page -------------------------------------------------------------------------------------


class StepForm(MoneyForm):
    """What is asked once more. Fields that this step doesn't want are taken away."""

    version = forms.IntegerField(widget=forms.HiddenInput)
    typed = forms.CharField(label=gettext_lazy("Type the short name of the campaign"))
    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS, required=False
    )
    field_order = ("typed", "reason", "password")

    def __init__(self, *args: Any, campaign: Campaign, step: Step, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign
        if not step.typed:
            del self.fields["typed"]
        if not step.reason:
            del self.fields["reason"]

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"].strip()
        if typed != self.campaign.slug:
            raise forms.ValidationError(_("This isn't the campaign's short name."), "other_name")
        return typed

    def clean_version(self) -> int:
        version: int = self.cleaned_data["version"]
        if version != self.campaign.version:
            raise forms.ValidationError(
                _("The campaign was changed meanwhile; look at it again."), "changed_meanwhile"
            )
        return version


def buttons(user: Any, campaign: Campaign) -> list[dict[str, Any]]:
    """The steps that this person may take from here, as buttons."""
    found = []
    for act, step in STEPS.items():
        right = people.RIGHTS[act]
        if campaign.state in right.states and people.may(user, act):
            found.append(
                {
                    "act": act.value,
                    "label": step.label,
                    "icon": step.icon,
                    "danger": step.danger,
                    "main": act in (Act.SUBMIT, Act.LAUNCH, Act.RESUME, Act.SETTLE),
                    "address": reverse("admin:campaign_act", args=[campaign.pk, act.value]),
                }
            )
    return found


def act(request: HttpRequest, object_id: str, name: str) -> HttpResponse:
    """Says what would happen; with the form filled in, does it."""
    step = STEPS.get(Act(name)) if name in Act._value2member_map_ else None
    if step is None:
        raise Http404
    user, right = user_of(request), people.RIGHTS[Act(name)]
    if not people.may(user, Act(name)):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign.objects.select_related("account", "gate"), pk=object_id)
    if campaign.state not in right.states:
        messages.error(
            request,
            _("%(campaign)s is %(state)s; “%(act)s” isn't possible from there.")
            % {
                "campaign": campaign.slug,
                "state": campaign.get_state_display(),
                "act": step.label,
            },
        )
        return HttpResponseRedirect(address_of(campaign))
    form = StepForm(
        request.POST if request.method == "POST" else None,
        initial={"version": campaign.version},
        request=request,
        campaign=campaign,
        step=step,
        money=right.money,
    )
    if request.method == "POST" and form.is_valid():
        try:
            step.run(campaign, user, form.cleaned_data)
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            campaign.refresh_from_db()
            messages.success(
                request,
                _("%(campaign)s is now: %(state)s")
                % {"campaign": campaign.slug, "state": campaign.get_state_display()},
            )
            return HttpResponseRedirect(address_of(campaign))
    return page(
        request,
        "campaign/act.html",
        step.label,
        status=422 if form.is_bound else 200,
        form=form,
        campaign=campaign,
        step=step,
        consequence=step.consequence(campaign),
        back=address_of(campaign),
    )


# --- everything at once ---------------------------------------------------------------------------


class SwitchForm(MoneyForm):
    """The kill switch: why. Stopping must be quick; letting claims in again wants the password."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)
    field_order = ("reason", "password")


def switch(request: HttpRequest) -> HttpResponse:
    """Stops every claim of every campaign, or allows them again."""
    user = user_of(request)
    if not people.may(user, Act.SWITCH_ALL):
        raise PermissionDenied
    gate = switch_gate()
    stopped = gate is not None and gate.state != Gate.State.OPEN
    form = SwitchForm(
        request.POST if request.method == "POST" else None, request=request, money=stopped
    )
    if request.method == "POST" and form.is_valid():
        # What was seen is what is switched: two people pressing at once don't undo each other.
        on = request.POST.get("on") == "yes"
        services.kill_switch_all(
            on=on, actor=people.actor_of(user), reason=form.cleaned_data["reason"]
        )
        if on:
            messages.warning(request, _("All claims are stopped."))
        else:
            messages.success(request, _("Claims are allowed again."))
        return HttpResponseRedirect(reverse("admin:index"))
    return page(
        request,
        "campaign/switch.html",
        _("Kill switch"),
        status=422 if form.is_bound else 200,
        form=form,
        gate=gate,
        stopped=stopped,
        running=Campaign.objects.filter(state=State.LIVE).order_by("slug")[:20],
    )
