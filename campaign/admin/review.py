"""The second person's page: exactly which version, what differs from the one approved last, what
it will cost; then yes, or back with a reason.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import growth_words, people, selectors, services, versions
from campaign.admin import acts
from campaign.admin.channel_rules import shown
from campaign.admin.forms import EVENNESS_WORDS, DressedForm
from campaign.admin.shell import address_of, name_of
from campaign.channel_rules import acknowledgements
from campaign.models import Campaign, TopUp
from engine.lib.adminkit import moment
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.models import ClientApp
from engine.staff.pages import page, user_of
from packets.models import Packet

Act = people.Act
State = Campaign.State
WAITING_SHOWN = 100
FIELD_LABELS = {
    "slug": gettext_lazy("Short name"),
    "name_zh": gettext_lazy("Name (Chinese)"),
    "name_en": gettext_lazy("Name (English)"),
    "rules_zh": gettext_lazy("Rules (Chinese)"),
    "rules_en": gettext_lazy("Rules (English)"),
    "odds_zh": gettext_lazy("Odds (Chinese)"),
    "odds_en": gettext_lazy("Odds (English)"),
    "organiser_zh": gettext_lazy("Organiser (Chinese)"),
    "organiser_en": gettext_lazy("Organiser (English)"),
    "contact_zh": gettext_lazy("Complaints (Chinese)"),
    "contact_en": gettext_lazy("Complaints (English)"),
    "budget_fen": gettext_lazy("Budget"),
    "currency": gettext_lazy("Currency"),
    "timezone": gettext_lazy("Time zone"),
    "starts_at": gettext_lazy("Starts at"),
    "ends_at": gettext_lazy("Ends at"),
    "client_apps": gettext_lazy("Client apps"),
    "name": gettext_lazy("Name"),
    "strategy": gettext_lazy("How it is split"),
    "total_fen": gettext_lazy("Amount of the packet"),
    "count": gettext_lazy("Portions"),
    "min_fen": gettext_lazy("Smallest portion"),
    "max_fen": gettext_lazy("Largest portion"),
    "evenness": gettext_lazy("Evenness"),
    "tiers": gettext_lazy("Prizes"),
    "remainder": gettext_lazy("What no prize is"),
    "lane_count": gettext_lazy("Lanes"),
    "targeted": gettext_lazy("Only for listed people"),
    "group": gettext_lazy("Only for this group"),
    "new_only": gettext_lazy("Only for new people"),
    "min_account_age_days": gettext_lazy("Least age of the account (days)"),
    "password_hash": gettext_lazy("Pass phrase"),
    "needs_ticket": gettext_lazy("Only with a ticket"),
    "rain": gettext_lazy("Red-packet rain"),
    "commitment": gettext_lazy("Seed commitment"),
    "opens_at": gettext_lazy("Opens at"),
    "closes_at": gettext_lazy("Closes at"),
    "targets": gettext_lazy("Lists of people"),
    "target_count": gettext_lazy("People on the list"),
    "removed": gettext_lazy("Removed"),
}


def waiting(request: HttpRequest) -> HttpResponse:
    """What waits for somebody's decision, the oldest first."""
    user = user_of(request)
    if not user.has_perm("campaign.view_campaign"):
        raise PermissionDenied
    return page(
        request,
        "campaign/reviews.html",
        _("To review"),
        campaigns=[
            {
                "campaign": campaign,
                "budget": yuan(campaign.budget_fen),
                "starts": moment(campaign.starts_at, campaign.timezone),
                "own": user.pk
                in (campaign.created_by_id, campaign.edited_by_id, campaign.submitted_by_id),
            }
            for campaign in Campaign.objects.filter(state=State.REVIEW)
            .select_related("submitted_by")
            .order_by("submitted_at", "id")[:WAITING_SHOWN]
        ],
        top_ups=TopUp.objects.filter(state=TopUp.State.PENDING)
        .select_related("campaign", "requested_by")
        .order_by("id")[:WAITING_SHOWN],
    )


class ApproveForm(acts.MoneyForm):
    """The hash that was read, and the password."""

    version_hash = forms.CharField(widget=forms.HiddenInput)


class SendBackForm(DressedForm):
    reason = forms.CharField(
        label=gettext_lazy("What has to change"),
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3}),
    )


def review(request: HttpRequest, object_id: str) -> HttpResponse:
    """Read it, then approve it or send it back. Only a second person gets the buttons."""
    user = user_of(request)
    if not user.has_perm("campaign.view_campaign"):
        raise PermissionDenied
    campaign = get_object_or_404(
        Campaign.objects.select_related("created_by", "edited_by", "submitted_by"), pk=object_id
    )
    post = request.POST if request.method == "POST" else None
    if post is not None and not people.may(user, Act.APPROVE):
        raise PermissionDenied
    then = post.get("then", "") if post is not None else ""
    document = versions.campaign_document(campaign)
    version_hash = versions.document_hash(document)
    approve = ApproveForm(
        post if then == "approve" else None,
        initial={"version_hash": version_hash},
        request=request,
    )
    back = SendBackForm(post if then == "back" else None)
    done = _approve(request, campaign, approve) or _send_back(request, campaign, back)
    if done is not None:
        return done
    changes = selectors.campaign_changes(campaign)
    last = campaign.approvals.order_by("-id").select_related("approver").first()
    own = user.pk in (campaign.created_by_id, campaign.edited_by_id, campaign.submitted_by_id)
    return page(
        request,
        "campaign/review.html",
        _("Review: %(name)s") % {"name": name_of(campaign)},
        status=422 if post is not None else 200,
        campaign=campaign,
        version_hash=version_hash,
        changes=[
            _change(
                change,
                campaign.timezone,
                growth_words.packets_of(last.document if last else None, document),
            )
            for change in changes
        ],
        last=last,
        rules=[shown(one, campaign) for one in acknowledgements(campaign)],
        consequence=acts.STEPS[Act.LAUNCH].consequence(campaign),
        sheets=_sheets(document, campaign.timezone),
        approve=approve,
        back_form=back,
        own=own,
        may=people.may(user, Act.APPROVE)
        and not own
        and campaign.state in people.RIGHTS[Act.APPROVE].states,
        may_send_back=people.may(user, Act.SEND_BACK)
        and campaign.state in people.RIGHTS[Act.SEND_BACK].states,
        back=address_of(campaign),
    )


def _approve(request: HttpRequest, campaign: Campaign, form: ApproveForm) -> HttpResponse | None:
    if not form.is_bound or not form.is_valid():
        return None
    try:
        services.campaign_approve(
            campaign_id=campaign.pk,
            version_hash=form.cleaned_data["version_hash"],
            by=user_of(request),
        )
    except ServiceError as refusal:
        form.refuse(refusal)
        return None
    campaign.refresh_from_db()
    messages.success(
        request,
        _("Approved. %(campaign)s is now: %(state)s")
        % {"campaign": campaign.slug, "state": campaign.get_state_display()},
    )
    return HttpResponseRedirect(address_of(campaign))


def _send_back(request: HttpRequest, campaign: Campaign, form: SendBackForm) -> HttpResponse | None:
    if not form.is_bound or not form.is_valid():
        return None
    try:
        services.campaign_send_back(
            campaign_id=campaign.pk, by=user_of(request), reason=form.cleaned_data["reason"]
        )
    except ServiceError as refusal:
        form.refuse(refusal)
        return None
    messages.success(request, _("Sent back to its author."))
    return HttpResponseRedirect(address_of(campaign))


# --- the document in words ------------------------------------------------------------------------


def _change(
    change: versions.Change, zone: str, packets: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    if change.field.startswith("growth."):
        field = change.field.removeprefix("growth.")
        return {
            "label": growth_words.label_words(field),
            "before": growth_words.value_words(field, change.before, packets),
            "after": growth_words.value_words(field, change.after, packets),
        }
    label = FIELD_LABELS.get(change.field, change.field)
    if change.packet is not None:
        label = _("Packet %(number)s: %(field)s") % {"number": change.packet, "field": label}
    return {
        "label": label,
        "before": value_words(change.field, change.before, zone),
        "after": value_words(change.field, change.after, zone),
    }


def _sheets(document: dict[str, Any], zone: str) -> list[dict[str, Any]]:
    """The whole version: the campaign, then each packet, as label and value."""

    def rows(fields: dict[str, Any]) -> list[tuple[Any, str]]:
        return [
            (FIELD_LABELS[name], value_words(name, value, zone))
            for name, value in fields.items()
            if name in FIELD_LABELS
            and value not in ("", None, [], False)
            # Where no prizes are drawn there is no remainder either.
            and (name != "remainder" or fields["strategy"] == Packet.Strategy.TIERS)
        ]

    sheets = [{"title": _("Campaign"), "rows": rows(document)}]
    for packet in document["packets"]:
        title = _("Packet %(number)s") % {"number": packet["order"]}
        sheets.append({"title": title, "rows": rows(packet)})
    if document.get("growth"):
        spread = [(_("In short"), "\n".join(growth_words.sentences(document)))]
        sheets.insert(1, {"title": _("Growth"), "rows": spread + growth_words.sheet(document)})
    return sheets


def value_words(field: str, value: Any, zone: str) -> str:
    """A value of the document as people read it."""
    if value is None or value == "":
        return "–"
    if field.endswith("_fen"):
        return yuan(int(value))
    if field in ("starts_at", "ends_at", "opens_at", "closes_at"):
        return moment(parse_datetime(value), zone)
    if field in ("strategy", "remainder"):
        return str(Packet.Strategy(value).label)
    if field == "evenness":
        return str(EVENNESS_WORDS.get(value, value))
    if field == "tiers":
        return ", ".join(f"{yuan(fen)} × {quantity:,}" for fen, quantity in value) or "–"
    if field == "client_apps":
        return ", ".join(ClientApp.objects.filter(pk__in=value).values_list("name", flat=True))
    if field == "password_hash":
        return _("set")
    if field == "rain":
        return _("%(name)s, round %(round)s") % {
            "name": " / ".join(filter(None, value[:2])),
            "round": value[2],
        }
    if field == "targets":
        return ", ".join(f"{sha[:12]}… ({added:,})" for sha, _app, _state, added in value) or "–"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return f"{value:,}" if isinstance(value, int) else str(value)
