"""One page that makes a campaign with its packets, and the preview that follows the typing.

Saving is all or nothing: whatever is refused stands beside its field and nothing has changed. The
preview asks the same rules, so that most refusals are seen before saving.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import override

from campaign import people, services
from campaign.admin.checking import check, rains_fen
from campaign.admin.forms import (
    BasePacketFormSet,
    CampaignForm,
    PacketForm,
    PacketFormSet,
    campaign_initial,
    local,
    packet_initial,
    zone_names,
)
from campaign.admin.shell import address_of, name_of
from campaign.blueprints import fold, unfold
from campaign.growth_rules import growth_of
from campaign.models import DEFAULT_TIMEZONE, TEXTS, Campaign, CampaignTemplate
from engine.lib import clock, crypto
from engine.lib.errors import ServiceError
from engine.models import ClientApp
from engine.staff.pages import page, user_of

Act = people.Act
State = Campaign.State
EDITABLE = people.RIGHTS[Act.EDIT].states
# A new campaign starts a while from now, at a round time: somebody else has to look at it first.
HEAD_START = dt.timedelta(minutes=30)
ROUND_MINUTES = 10
RECENT_COPIES = 12
# Phones show their own language, whatever the screen's is.
PHONE_LANGUAGES = (("zh-Hans", "zh-hans"), ("en", "en"))


# --- choosing -------------------------------------------------------------------------------------


def choose(request: HttpRequest) -> HttpResponse:
    """Templates, an empty form, or a copy of what went well before."""
    _require(request, Act.CREATE)
    return page(
        request,
        "campaign/choose.html",
        _("New campaign"),
        templates=CampaignTemplate.objects.filter(active=True),
        recent=Campaign.objects.order_by("-created_at", "-id")[:RECENT_COPIES],
    )


def _require(request: HttpRequest, act: people.Act) -> None:
    if not people.may(user_of(request), act):
        raise PermissionDenied


# --- the page -------------------------------------------------------------------------------------


@dataclass
class Draft:
    """What the page starts from."""

    campaign: Campaign | None
    basics: dict[str, Any]
    packets: list[dict[str, Any]]
    # What a new one is made from, where there is more in it than the form shows: rains and growth.
    document: dict[str, Any] | None = None


def build(request: HttpRequest, object_id: str | None = None) -> HttpResponse:
    """Makes a new campaign, or changes one that hasn't started."""
    campaign = None
    if object_id is not None:
        campaign = get_object_or_404(Campaign, pk=object_id)
        _require(request, Act.EDIT)
        if campaign.state not in EDITABLE:
            return HttpResponseRedirect(address_of(campaign))
    else:
        _require(request, Act.CREATE)
    draft = _of_campaign(campaign) if campaign else _of_request(request)
    posted = request.method == "POST"
    form, packets = forms_of(request, draft, bound=posted)
    if posted and check(form, packets, campaign, submitting=_submits(request)):
        saved = _save(request, form, packets, draft)
        if saved is not None:
            return HttpResponseRedirect(address_of(saved))
    return page(
        request,
        "campaign/builder.html",
        _("Change %(name)s") % {"name": name_of(campaign)} if campaign else _("New campaign"),
        status=422 if posted else 200,
        form=form,
        packets=packets,
        has_rain=bool(rains_fen(campaign) or (draft.document or {}).get("rains")),
        rain_address=reverse("admin:campaign_rain", args=[campaign.pk]) if campaign else "",
        spreads=growth_of(campaign) is not None
        if campaign
        else bool((draft.document or {}).get("growth")),
        growth_address=reverse("admin:campaign_growth", args=[campaign.pk]) if campaign else "",
        voids=campaign is not None and campaign.state != State.DRAFT,
        may_submit=people.may(user_of(request), Act.SUBMIT),
        phones=_phones(),
        words=_words(),
        back=address_of(campaign) if campaign else "../",
    )


def _submits(request: HttpRequest) -> bool:
    return request.POST.get("then") == "submit" and people.may(user_of(request), Act.SUBMIT)


def forms_of(
    request: HttpRequest, draft: Draft, *, bound: bool
) -> tuple[CampaignForm, BasePacketFormSet]:
    data = request.POST if bound else None
    zone = (data or draft.basics).get("timezone") or DEFAULT_TIMEZONE
    form = CampaignForm(data, initial=draft.basics)
    packets = PacketFormSet(  # type: ignore[call-arg]
        data,
        request.FILES if bound else None,
        initial=draft.packets,
        prefix="packets",
        zone=zone if zone in zone_names() else "",
    )
    if not bound:
        packets.extra = 0 if draft.packets or rains_fen(draft.campaign) else 1
    return form, packets  # type: ignore[return-value]


def _of_campaign(campaign: Campaign) -> Draft:
    return Draft(
        campaign,
        campaign_initial(campaign),
        [
            packet_initial(link.packet, campaign, _password(link.password_encrypted))
            for link in campaign.links.filter(rain=None).select_related("packet").order_by("order")
        ],
    )


def _password(stored: str) -> str:
    return crypto.decrypt(stored).decode() if stored else ""


def _of_request(request: HttpRequest) -> Draft:
    """A new one: from a template, as a copy, or empty."""
    starts_at = _soon()
    template = CampaignTemplate.objects.filter(
        slug=request.GET.get("template", ""), active=True
    ).first()
    source, document = None, None
    fields: dict[str, Any] = {}
    packets: list[dict[str, Any]] = []
    if request.GET.get("copy"):
        source = get_object_or_404(Campaign, pk=_uuid(request.GET["copy"]))
    if source is not None:
        document = fold(source)
        fields, packets = unfold(document, starts_at)
    elif template is not None:
        document = template.document
        fields, packets = unfold(document, starts_at)
    zone = ZoneInfo(str(fields.get("timezone_name") or fields.get("timezone") or DEFAULT_TIMEZONE))
    ends_at = fields.get("ends_at") or starts_at + dt.timedelta(days=1)
    apps = ClientApp.objects.filter(active=True, is_drill=False)
    if source is not None:
        apps = apps.filter(campaigns=source)
    basics = {
        **{name: fields.get(name, "") for name in TEXTS},
        "slug": _free_slug(template.slug if template else source.slug if source else "campaign"),
        "budget": fields.get("budget_fen"),
        "starts_at": local(starts_at, zone),
        "ends_at": local(ends_at, zone),
        "timezone": zone.key,
        # One app is the usual case: then there is nothing to choose.
        "client_apps": list(apps.values_list("pk", flat=True))
        if source is not None or apps.count() == 1
        else [],
    }
    initial = [_packet_initial(p, starts_at, ends_at, zone) for p in packets]
    return Draft(None, basics, initial, document)


def _packet_initial(
    packet: dict[str, Any], starts_at: dt.datetime, ends_at: dt.datetime, zone: ZoneInfo
) -> dict[str, Any]:
    opens_at, closes_at = packet.get("opens_at"), packet.get("closes_at")
    return {
        **{name: packet[name] for name in _SAME_NAMES if name in packet},
        "total": packet["total_fen"],
        "least": packet["min_fen"] if packet.get("min_fen", 1) > 1 else None,
        "most": packet.get("max_fen"),
        "tiers": tuple((fen, quantity) for fen, quantity in packet.get("tiers", ())),
        "opens_at": local(opens_at, zone) if opens_at and opens_at != starts_at else None,
        "closes_at": local(closes_at, zone) if closes_at and closes_at != ends_at else None,
    }


_SAME_NAMES = (
    "name", "strategy", "count", "evenness", "remainder", "new_only", "min_account_age_days",
    "group", "targeted", "needs_ticket",
)  # fmt: skip


def _soon() -> dt.datetime:
    step = ROUND_MINUTES * 60
    return dt.datetime.fromtimestamp(
        math.ceil((clock.now() + HEAD_START).timestamp() / step) * step, tz=dt.UTC
    )


def _free_slug(stem: str) -> str:
    """`stem-1124`, or with a number where the day has one already."""
    stem = f"{stem[:40].rstrip('-')}-{clock.now():%m%d}"
    taken = set(Campaign.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.UUID(int=0)


# --- saving ---------------------------------------------------------------------------------------


class _Undo(Exception):
    """A refusal has been shown at its field; the transaction goes back."""


def _save(
    request: HttpRequest,
    form: CampaignForm,
    packets: BasePacketFormSet,
    draft: Draft,
) -> Campaign | None:
    """All of it in one transaction; None with the refusal at its field, and nothing changed."""
    user = user_of(request)

    def step(owner: CampaignForm | PacketForm, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ServiceError as refusal:
            owner.refuse(refusal)
            raise _Undo from None

    try:
        with transaction.atomic():
            saved = _write(user, form, packets, draft, step)
            listed = _upload(user, packets, saved, step)
            if _submits(request) and not listed:
                step(form, lambda: services.campaign_submit(campaign_id=saved.pk, by=user))
    except _Undo:
        return None
    if listed:
        messages.info(
            request,
            _("Saved. The list of people is being read; submit the campaign when it is done."),
        )
    elif _submits(request):
        messages.success(request, _("Saved and handed in for review."))
    else:
        messages.success(request, _("Saved as a draft."))
    return saved


def _write(
    user: Any,
    form: CampaignForm,
    packets: BasePacketFormSet,
    draft: Draft,
    step: Callable[..., Any],
) -> Campaign:
    actor, campaign = people.actor_of(user), draft.campaign
    wanted = form.arguments
    if campaign is None:
        made = step(form, lambda: services.campaign_create(**wanted, actor=actor, created_by=user))
        for packet in packets.kept:
            step(packet, lambda p=packet: _added(made, p, user, actor))
        whole: dict[str, Any] = {
            "campaign_id": made.pk,
            "document": draft.document or {},
            "actor": actor,
        }
        step(form, lambda: services.rains_unfold(**whole, by=user))
        step(form, lambda: services.growth_unfold(**whole, packets=_made(packets), by=user))
        return Campaign.objects.get(pk=made.pk)
    # First wide enough for both the old and the new packets, at the end exactly as asked for.
    wide = {
        **wanted,
        "budget_fen": max(wanted["budget_fen"], campaign.budget_fen),
        "starts_at": min(wanted["starts_at"], campaign.starts_at),
        "ends_at": max(wanted["ends_at"], campaign.ends_at),
    }
    version = form.cleaned_data.get("version")
    step(
        form,
        lambda: services.campaign_update(
            campaign_id=campaign.pk, actor=actor, by=user, version=version, **wide
        ),
    )
    for packet in packets.forms:
        # Why one can't be removed stands above the form: its own card is hidden.
        owner = packet if packet in packets.kept else form
        step(owner, lambda p=packet: _followed(campaign, packets, p, user, actor))
    step(
        form,
        lambda: services.campaign_update(campaign_id=campaign.pk, actor=actor, by=user, **wanted),
    )
    return Campaign.objects.get(pk=campaign.pk)


def _made(packets: BasePacketFormSet) -> list[uuid.UUID | None]:
    """The packets that were made, in the order of the forms; None where one was taken out."""
    return [
        uuid.UUID(packet.cleaned_data["packet"]) if packet in packets.kept else None
        for packet in packets.forms
    ]


def _added(campaign: Campaign, packet: PacketForm, user: Any, actor: str) -> None:
    made = services.campaign_packet_add(
        campaign_id=campaign.pk, actor=actor, by=user, **packet.arguments
    )
    packet.cleaned_data["packet"] = made.public_id


def _followed(
    campaign: Campaign, packets: BasePacketFormSet, packet: PacketForm, user: Any, actor: str
) -> None:
    """One form of an existing campaign: its packet removed, changed, added, or left alone."""
    known = packet.initial.get("packet")
    if packet not in packets.kept:
        if known:
            services.campaign_packet_remove(
                campaign_id=campaign.pk, packet_id=uuid.UUID(known), actor=actor, by=user
            )
    elif not known:
        _added(campaign, packet, user, actor)
    elif set(packet.changed_data) - {"target_file"}:
        services.campaign_packet_change(
            campaign_id=campaign.pk,
            packet_id=uuid.UUID(known),
            actor=actor,
            by=user,
            **packet.arguments,
        )


def _upload(
    user: Any, packets: BasePacketFormSet, campaign: Campaign, step: Callable[..., Any]
) -> bool:
    """Take the lists of people in, for each of the campaign's apps. Whether there was one."""
    found = False
    for packet in packets.kept:
        received = packet.cleaned_data.get("target_file")
        if not received or not packet.cleaned_data["targeted"]:
            continue
        found = True
        for app in campaign.client_apps.order_by("pk"):
            received.seek(0)
            step(
                packet,
                lambda a=app, p=packet, f=received: services.target_upload_create(
                    campaign_id=campaign.pk,
                    packet_id=uuid.UUID(p.cleaned_data["packet"]),
                    client_app_id=a.pk,
                    filename=f.name,
                    chunks=f.chunks(),
                    by=user,
                    actor=people.actor_of(user),
                ),
            )
    return found


# --- words for the script -------------------------------------------------------------------------


def _phones() -> list[dict[str, str]]:
    found = []
    for lang, code in PHONE_LANGUAGES:
        with override(code):
            found.append(
                {
                    "lang": lang,
                    "luck": _("Wishing you happiness and prosperity"),
                    "seal": _("Open"),
                }
            )
    found[0]["caption"], found[1]["caption"] = _("In Chinese"), _("In English")
    return found


def _words() -> dict[str, Any]:
    """What the script says."""
    phones = {}
    for lang, code in PHONE_LANGUAGES:
        with override(code):
            phones[lang] = {
                "name": _("Red packet"),
                "left": _("%(count)s portions, %(total)s in all"),
            }
    return {
        "phone": phones,
        "prize": _("Prize in yuan"),
        "quantity": _("Quantity"),
        "remove": _("Remove"),
        "offline": _("The preview can't be reached at the moment."),
    }
