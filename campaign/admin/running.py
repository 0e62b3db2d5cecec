"""What a running campaign may still get: more budget, a further packet, a later end.

Money needs two people here too: one asks on `ask`, another decides on `decide`.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people, selectors, services
from campaign.admin.forms import DressedForm, PacketForm
from campaign.admin.review import FIELD_LABELS, value_words
from campaign.admin.shell import address_of
from campaign.models import Campaign, TopUp
from engine.lib.adminkit import LocalMomentField, YuanField, moment, zone_label
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.confirm import Consequence, MoneyForm
from engine.staff.pages import page, user_of

Act = people.Act
REASON_MAX_CHARS = 300


def _campaign(request: HttpRequest, object_id: str, act: people.Act) -> Campaign:
    if not people.may(user_of(request), act):
        raise PermissionDenied
    return get_object_or_404(Campaign.objects.select_related("account"), pk=object_id)


# --- asking ---------------------------------------------------------------------------------------


class TopUpForm(DressedForm):
    aliases = {"extra_fen": "extra", "budget_fen": "extra", "packets": "extra"}

    extra = YuanField(
        label=gettext_lazy("More budget"),
        required=False,
        help_text=gettext_lazy("In yuan, on top of what it has."),
    )
    reason = forms.CharField(
        label=gettext_lazy("What it is for"),
        max_length=REASON_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    typed = forms.CharField(label=gettext_lazy("Type the short name of the campaign"))
    with_packet = forms.BooleanField(
        label=gettext_lazy("Open a further packet with it"), required=False
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"].strip()
        if typed != self.campaign.slug:
            raise forms.ValidationError(_("This isn't the campaign's short name."), "other_name")
        return typed


class TopUpPacketForm(PacketForm):
    """A further packet: without what a request can't carry (a pass phrase, a list)."""

    aliases = {**PacketForm.aliases, "budget_fen": "total"}
    left_out = ("password", "targeted", "target_file", "packet", "group", "new_only")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (*self.left_out, "min_account_age_days"):
            del self.fields[name]

    @property
    def arguments(self) -> dict[str, Any]:
        times = {name: self.cleaned_data.get(name) for name in ("opens_at", "closes_at")}
        return {
            **self.cut,
            "name": self.cleaned_data["name"],
            # So that rewards that are used up go on: see the growth's page.
            **({"needs_ticket": True} if self.cleaned_data["needs_ticket"] else {}),
            **{name: at for name, at in times.items() if at is not None},
        }


def ask(request: HttpRequest, object_id: str) -> HttpResponse:
    """Ask for more; nothing moves until somebody else has said yes."""
    campaign = _campaign(request, object_id, Act.REQUEST_TOP_UP)
    post = request.POST if request.method == "POST" else None
    form = TopUpForm(post, campaign=campaign)
    wants_packet = post is not None and bool(post.get("with_packet"))
    packet = TopUpPacketForm(
        post if wants_packet else None, prefix="packet", zone=campaign.timezone
    )
    if post is not None and form.is_valid() and (not wants_packet or packet.is_valid()):
        try:
            services.top_up_request(
                campaign_id=campaign.pk,
                extra_fen=form.cleaned_data["extra"] or 0,
                by=user_of(request),
                reason=form.cleaned_data["reason"],
                packets=[packet.arguments] if wants_packet else [],
            )
        except ServiceError as refusal:
            named = packet.aliases.get(refusal.field, refusal.field).split("[")[0]
            owner = packet if wants_packet and named in packet.fields else form
            owner.refuse(refusal)
        else:
            messages.success(request, _("Asked for. Somebody else decides on it."))
            return HttpResponseRedirect(address_of(campaign))
    money = selectors.campaign_money(campaign)
    return page(
        request,
        "campaign/top_up_ask.html",
        _("Top up"),
        status=422 if post is not None else 200,
        campaign=campaign,
        form=form,
        packet=packet,
        zone=zone_label(campaign.timezone),
        numbers=(
            (_("Budget"), yuan(campaign.budget_fen)),
            (_("Not bound in packets"), yuan(money.free_fen)),
            (_("Won by people"), yuan(money.claimed_fen)),
        ),
        back=address_of(campaign),
    )


# --- deciding -------------------------------------------------------------------------------------


class DecideForm(MoneyForm):
    typed = forms.CharField(label=gettext_lazy("Type the short name of the campaign"))
    field_order = ("typed", "password")

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.campaign = campaign

    clean_typed = TopUpForm.clean_typed


class RejectForm(DressedForm):
    reason = forms.CharField(
        label=gettext_lazy("Why it is refused"),
        max_length=REASON_MAX_CHARS,
        widget=forms.Textarea(attrs={"rows": 2}),
    )


def decide(request: HttpRequest, top_up_id: int) -> HttpResponse:
    """Yes or no by a second person; who asked may take it back."""
    user = user_of(request)
    if not user.has_perm("campaign.view_topup"):
        raise PermissionDenied
    top_up = get_object_or_404(
        TopUp.objects.select_related("campaign", "campaign__account", "requested_by", "decided_by"),
        pk=top_up_id,
    )
    campaign, post = top_up.campaign, request.POST if request.method == "POST" else None
    then = post.get("then", "") if post is not None else ""
    if post is not None and then != "withdraw" and not people.may(user, Act.APPROVE_TOP_UP):
        raise PermissionDenied
    yes = DecideForm(post if then == "approve" else None, request=request, campaign=campaign)
    no = RejectForm(post if then == "reject" else None)
    try:
        if yes.is_bound and yes.is_valid():
            services.top_up_approve(top_up_id=top_up.pk, by=user)
        elif no.is_bound and no.is_valid():
            services.top_up_reject(top_up_id=top_up.pk, by=user, reason=no.cleaned_data["reason"])
        elif then == "withdraw":
            services.top_up_withdraw(top_up_id=top_up.pk, by=user)
        else:
            then = ""
    except ServiceError as refusal:
        then = ""
        if no.is_bound:
            no.refuse(refusal)
        elif yes.is_bound:
            yes.refuse(refusal)
        else:
            messages.error(request, refusal.message)
    if then:
        top_up.refresh_from_db()
        messages.success(request, _("Top-up: %(state)s") % {"state": top_up.get_state_display()})
        return HttpResponseRedirect(address_of(campaign))
    pending = top_up.state == TopUp.State.PENDING
    own = user.pk == top_up.requested_by_id
    return page(
        request,
        "campaign/top_up.html",
        _("Top-up"),
        status=422 if post is not None else 200,
        campaign=campaign,
        top_up=top_up,
        asked_at=moment(top_up.requested_at, campaign.timezone),
        consequence=_consequence(top_up),
        packets=_packets(top_up),
        yes=yes,
        no=no,
        own=own,
        pending=pending,
        may=pending and not own and people.may(user, Act.APPROVE_TOP_UP),
        back=address_of(campaign),
    )


def _consequence(top_up: TopUp) -> Consequence:
    bound = sum(int(packet["total_fen"]) for packet in top_up.packets)
    after = top_up.campaign.budget_fen + top_up.extra_fen
    facts = []
    if bound:
        facts.append(
            _("%(amount)s goes into further packets, which open at once.") % {"amount": yuan(bound)}
        )
    return Consequence(
        _("%(amount)s more will be frozen for this campaign.") % {"amount": yuan(top_up.extra_fen)},
        tuple(facts),
        (
            (_("Budget so far"), yuan(top_up.campaign.budget_fen)),
            (_("Budget after it"), yuan(after)),
        ),
    )


def _packets(top_up: TopUp) -> list[list[tuple[Any, str]]]:
    zone = top_up.campaign.timezone
    return [
        [
            (FIELD_LABELS[name], value_words(name, value, zone))
            for name, value in packet.items()
            if name in FIELD_LABELS and value not in ("", None, [])
        ]
        for packet in top_up.packets
    ]


# --- a later end ----------------------------------------------------------------------------------


class ExtendForm(DressedForm):
    ends_at = LocalMomentField(label=gettext_lazy("New end"))
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=200, required=False)

    def __init__(self, *args: Any, zone: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zone = zone

    def clean_ends_at(self) -> Any:
        return LocalMomentField.place(self.cleaned_data["ends_at"], self.zone)


def extend(request: HttpRequest, object_id: str) -> HttpResponse:
    """Move the end of a running campaign to a later time."""
    campaign = _campaign(request, object_id, Act.EXTEND)
    post = request.POST if request.method == "POST" else None
    form = ExtendForm(post, zone=campaign.timezone)
    if post is not None and form.is_valid():
        try:
            services.campaign_extend(
                campaign_id=campaign.pk,
                ends_at=form.cleaned_data["ends_at"],
                actor=people.actor_of(user_of(request)),
                reason=form.cleaned_data["reason"],
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("The end is moved."))
            return HttpResponseRedirect(address_of(campaign))
    return page(
        request,
        "campaign/small_form.html",
        _("Move the end"),
        status=422 if post is not None else 200,
        campaign=campaign,
        form=form,
        note=_("No money moves. Packets that close with the campaign close later too."),
        facts=(
            (_("Ends so far"), moment(campaign.ends_at, campaign.timezone)),
            (_("Time zone"), zone_label(campaign.timezone)),
        ),
        button=_("Move the end"),
        back=address_of(campaign),
    )
