"""Lists of people: upload, progress, refused rows; and keeping a campaign as a template."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people, services
from campaign.admin.forms import DressedForm
from campaign.admin.shell import address_of
from campaign.models import Campaign, TargetUpload
from campaign.services.targets import FAULTS
from engine.lib.errors import ServiceError
from engine.models import ClientApp
from engine.staff.pages import page, user_of
from packets.models import Packet, PacketTarget

Act = people.Act
ERRORS_SHOWN = 200


class UploadForm(DressedForm):
    aliases = {"client_app": "app"}

    packet = forms.ModelChoiceField(
        label=gettext_lazy("Packet"), queryset=Packet.objects.none(), empty_label=None
    )
    app = forms.ModelChoiceField(
        label=gettext_lazy("Client app"), queryset=ClientApp.objects.none(), empty_label=None
    )
    file = forms.FileField(
        label=gettext_lazy("List of people"),
        help_text=gettext_lazy("TXT or CSV, one of the app's user ids a line (the first column)."),
    )

    def __init__(self, *args: Any, campaign: Campaign, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        packets: Any = self.fields["packet"]
        packets.queryset = Packet.objects.filter(
            campaign_link__campaign=campaign, targeted=True
        ).order_by("campaign_link__order")
        apps: Any = self.fields["app"]
        apps.queryset = campaign.client_apps.order_by("slug")


def upload(request: HttpRequest, object_id: str) -> HttpResponse:
    """Take a file in for one targeted packet, or clear what a packet has."""
    user = user_of(request)
    if not people.may(user, Act.UPLOAD_TARGETS):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign, pk=object_id)
    if request.method == "POST" and request.POST.get("clear"):
        return _clear(request, campaign)
    bound = request.method == "POST"
    form = UploadForm(
        request.POST if bound else None, request.FILES if bound else None, campaign=campaign
    )
    if bound and form.is_valid():
        data = form.cleaned_data
        try:
            made = services.target_upload_create(
                campaign_id=campaign.pk,
                packet_id=data["packet"].pk,
                client_app_id=data["app"].pk,
                filename=data["file"].name,
                chunks=data["file"].chunks(),
                actor=people.actor_of(user),
                by=user,
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            return HttpResponseRedirect(reverse("admin:campaign_list", args=[made.pk]))
    packets = list(form.fields["packet"].queryset)  # type: ignore[attr-defined]
    return page(
        request,
        "campaign/lists.html",
        _("Lists of people"),
        status=422 if bound else 200,
        campaign=campaign,
        form=form,
        packets=[
            {"packet": packet, "people": PacketTarget.objects.filter(packet=packet).count()}
            for packet in packets
        ],
        uploads=TargetUpload.objects.filter(packet__in=packets).select_related(
            "packet", "client_app", "created_by"
        )[:50],
        voids=campaign.state in (Campaign.State.REVIEW, Campaign.State.SCHEDULED),
        back=address_of(campaign),
    )


def _clear(request: HttpRequest, campaign: Campaign) -> HttpResponse:
    user = user_of(request)
    try:
        count = services.target_list_clear(
            campaign_id=campaign.pk,
            packet_id=uuid.UUID(request.POST["clear"]),
            actor=people.actor_of(user),
            by=user,
        )
    except (ServiceError, ValueError) as refusal:
        messages.error(request, str(getattr(refusal, "message", _("There is no such packet."))))
    else:
        messages.success(request, _("%(count)s people taken off the list.") % {"count": count})
    return HttpResponseRedirect(request.path)


def progress(request: HttpRequest, upload_id: int) -> HttpResponse:
    """How far a list is read, and which of its rows name nobody; as JSON for the page's script."""
    if not user_of(request).has_perm("campaign.view_targetupload"):
        raise PermissionDenied
    found = get_object_or_404(
        TargetUpload.objects.select_related("packet", "packet__campaign_link__campaign"),
        pk=upload_id,
    )
    facts = {
        "state": found.state,
        "label": str(found.get_state_display()),
        "percent": found.percent,
        "rows": f"{found.done_rows:,} / {found.total_rows:,}",
        "added": f"{found.added:,}",
        "repeated": f"{found.repeated:,}",
        "refused": f"{found.refused:,}",
        "finished": found.state not in (TargetUpload.State.RECEIVED, TargetUpload.State.RUNNING),
    }
    if request.GET.get("as") == "json":
        return JsonResponse(facts, headers={"Cache-Control": "no-store"})
    campaign = found.packet.campaign_link.campaign
    return page(
        request,
        "campaign/list.html",
        _("List of people: %(file)s") % {"file": found.filename},
        campaign=campaign,
        upload=found,
        facts=facts,
        errors=[
            {"row": error.row, "text": error.text, "why": _(FAULTS.get(error.code, error.code))}
            for error in found.errors.order_by("row")[:ERRORS_SHOWN]
        ],
        back=address_of(campaign),
    )


class TemplateForm(DressedForm):
    name_zh = forms.CharField(label=gettext_lazy("Name (Chinese)"), max_length=80)
    name_en = forms.CharField(label=gettext_lazy("Name (English)"), max_length=80)
    slug = forms.CharField(label=gettext_lazy("Short name"), max_length=60)
    description_zh = forms.CharField(
        label=gettext_lazy("Description (Chinese)"), max_length=200, required=False
    )
    description_en = forms.CharField(
        label=gettext_lazy("Description (English)"), max_length=200, required=False
    )


def template(request: HttpRequest, object_id: str) -> HttpResponse:
    """Keep a campaign's texts, budget and packets for later ones."""
    user = user_of(request)
    if not people.may(user, Act.EDIT_TEMPLATES):
        raise PermissionDenied
    campaign = get_object_or_404(Campaign, pk=object_id)
    post = request.POST if request.method == "POST" else None
    form = TemplateForm(
        post,
        initial={"name_zh": campaign.name_zh, "name_en": campaign.name_en, "slug": campaign.slug},
    )
    if post is not None and form.is_valid():
        try:
            services.template_from_campaign(
                campaign_id=campaign.pk, actor=people.actor_of(user), **form.cleaned_data
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("Kept as a template."))
            return HttpResponseRedirect(reverse("admin:campaign_choose"))
    return page(
        request,
        "campaign/small_form.html",
        _("Keep as a template"),
        status=422 if post is not None else 200,
        campaign=campaign,
        form=form,
        note=_("Lists of people and pass phrases aren't kept."),
        facts=(),
        button=_("Keep as a template"),
        back=address_of(campaign),
    )
