"""The plain admin of campaigns: see them, make a draft, and move them through their life.

Every write goes through `services.py`. A move asks once more on a page of its own that says what
happens to the money; the form carries the version that was seen, so that confirming what
has changed meanwhile is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.html import format_html_join
from django.utils.translation import gettext_lazy as _

from campaign import rules, selectors, services
from campaign.models import Campaign, CampaignPacket
from engine.lib.errors import ServiceError
from engine.lib.money import yuan

State = Campaign.State


@dataclass(frozen=True)
class Move:
    """One step of the life cycle as staff see it: who may, from where, and what it costs."""

    label: str | Promise
    permission: str
    sources: tuple[Campaign.State, ...]
    consequence: Callable[[Campaign], str]
    run: Callable[[Campaign, str], Campaign]


def _launch_consequence(campaign: Campaign) -> str:
    return _(
        "%(budget)s enters the campaign's account, and %(bound)s of it goes into the escrows of "
        "its packets, which people can claim from their opening time on."
    ) % {
        "budget": yuan(campaign.budget_fen),
        "bound": yuan(selectors.campaign_committed_fen(campaign)),
    }


def _stop_consequence(campaign: Campaign) -> str:
    money = selectors.campaign_money(campaign)
    escrow_fen = selectors.campaign_committed_fen(campaign) - money.claimed_fen
    return _(
        "Claiming stops for good. %(claimed)s that people have won stays theirs; %(left)s that "
        "nobody has claimed goes back to the campaign's account. This can't be undone."
    ) % {"claimed": yuan(money.claimed_fen), "left": yuan(escrow_fen)}


def _pause_consequence(campaign: Campaign) -> str:
    return str(_("Nobody can claim until it is resumed. No money moves."))


def _resume_consequence(campaign: Campaign) -> str:
    return str(_("People can claim again. No money moves."))


def _settle_consequence(campaign: Campaign) -> str:
    return _("%(free)s that is left of the budget is returned. This can't be undone.") % {
        "free": yuan(campaign.account.balance_fen)
    }


MOVES: dict[str, Move] = {
    "launch": Move(
        _("Launch"),
        "campaign.launch_campaign",
        (State.DRAFT,),
        _launch_consequence,
        lambda c, who: services.campaign_launch(campaign_id=c.pk, actor=who),
    ),
    "pause": Move(
        _("Pause"),
        "campaign.stop_campaign",
        (State.LIVE,),
        _pause_consequence,
        lambda c, who: services.campaign_pause(campaign_id=c.pk, actor=who),
    ),
    "resume": Move(
        _("Resume"),
        "campaign.stop_campaign",
        (State.PAUSED,),
        _resume_consequence,
        lambda c, who: services.campaign_resume(campaign_id=c.pk, actor=who),
    ),
    "kill": Move(
        _("Kill"),
        "campaign.stop_campaign",
        (State.LIVE, State.PAUSED),
        _stop_consequence,
        lambda c, who: services.campaign_kill(campaign_id=c.pk, actor=who, reason="admin"),
    ),
    "end": Move(
        _("End"),
        "campaign.stop_campaign",
        (State.LIVE, State.PAUSED),
        _stop_consequence,
        lambda c, who: services.campaign_end(campaign_id=c.pk, actor=who, reason="admin"),
    ),
    "settle": Move(
        _("Settle"),
        "campaign.launch_campaign",
        (State.ENDED, State.KILLED),
        _settle_consequence,
        lambda c, who: services.campaign_settle(campaign_id=c.pk, actor=who),
    ),
}


def actor_of(request: HttpRequest) -> str:
    """How the audit log names a member of staff."""
    return f"staff:{request.user.get_username()}"


def _action(name: str) -> Callable[..., HttpResponse | None]:
    def run(
        modeladmin: CampaignAdmin, request: HttpRequest, queryset: QuerySet[Campaign]
    ) -> HttpResponse | None:
        return modeladmin.move(request, queryset, name)

    run.__name__ = f"move_{name}"
    run.short_description = MOVES[name].label  # type: ignore[attr-defined]
    return run


class CampaignForm(forms.ModelForm):
    """What staff type for a draft; the rules are the services'."""

    class Meta:
        model = Campaign
        fields = [
            "slug",
            "name_zh",
            "name_en",
            "rules_zh",
            "rules_en",
            "budget_fen",
            "starts_at",
            "ends_at",
            "timezone",
            "client_apps",
        ]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors or not self.instance._state.adding:  # an existing one has no fields
            return data
        try:
            rules.check_campaign(
                slug=data["slug"],
                name_zh=data["name_zh"],
                budget_fen=data["budget_fen"],
                starts_at=data["starts_at"],
                ends_at=data["ends_at"],
                timezone_name=data["timezone"],
                client_apps=[app.pk for app in data["client_apps"]],
            )
        except ServiceError as refusal:
            self.add_error(refusal.field, refusal.message)
        return data


class PacketInline(admin.TabularInline):
    model = CampaignPacket
    extra = 0
    can_delete = False
    fields = ["order", "packet", "packet_state", "packet_total"]
    readonly_fields = ["order", "packet", "packet_state", "packet_total"]
    verbose_name_plural = _("packets")

    def get_queryset(self, request: HttpRequest) -> QuerySet[CampaignPacket]:
        return super().get_queryset(request).select_related("packet")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("state"))
    def packet_state(self, link: CampaignPacket) -> str:
        return link.packet.get_state_display()

    @admin.display(description=_("total"))
    def packet_total(self, link: CampaignPacket) -> str:
        return yuan(link.packet.total_fen)


@admin.register(Campaign)
class CampaignAdmin(admin.ModelAdmin):
    form = CampaignForm
    list_display = [
        "slug",
        "name_zh",
        "state",
        "budget",
        "spent",
        "packets_n",
        "starts_at",
        "ends_at",
    ]
    list_filter = ["state"]
    search_fields = ["slug", "name_zh", "name_en"]
    show_full_result_count = False
    inlines = [PacketInline]
    actions = [_action(name) for name in MOVES]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        return selectors.campaigns_with_spending()

    @admin.display(description=_("budget"), ordering="budget_fen")
    def budget(self, campaign: Campaign) -> str:
        return yuan(campaign.budget_fen)

    @admin.display(description=_("claimed"), ordering="spent_fen")
    def spent(self, campaign: Any) -> str:
        return yuan(campaign.spent_fen)

    @admin.display(description=_("packets"), ordering="packet_count")
    def packets_n(self, campaign: Any) -> int:
        return int(campaign.packet_count)

    @admin.display(description=_("money"))
    def money(self, campaign: Campaign) -> str:
        money = selectors.campaign_money(campaign)
        return format_html_join(
            "",
            "<div>{}: {}</div>",
            [
                (_("budget"), yuan(money.budget_fen)),
                (_("not bound in packets"), yuan(money.free_fen)),
                (_("claimed"), f"{yuan(money.claimed_fen)} ({money.claimed_count})"),
                (_("waiting for settlement"), money.unsettled_count),
                (_("parked"), money.parked_count),
            ],
        )

    def get_fields(self, request: HttpRequest, obj: Campaign | None = None) -> list[Any]:
        fields = list(CampaignForm.Meta.fields)
        return fields if obj is None else [*fields, "state", "money", "created_by", "version"]

    def get_readonly_fields(self, request: HttpRequest, obj: Campaign | None = None) -> list[Any]:
        if obj is None:
            return []
        # Once made, a campaign changes by its moves; a live one's rules are a promise.
        return self.get_fields(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Campaign | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Campaign, form: Any, change: bool) -> None:
        """Reached for a new draft only: an existing campaign has no field that can be written."""
        if change:
            raise PermissionDenied
        data = form.cleaned_data
        made = services.campaign_create(
            slug=data["slug"],
            name_zh=data["name_zh"],
            name_en=data["name_en"],
            rules_zh=data["rules_zh"],
            rules_en=data["rules_en"],
            budget_fen=data["budget_fen"],
            starts_at=data["starts_at"],
            ends_at=data["ends_at"],
            timezone_name=data["timezone"],
            client_apps=[app.pk for app in data["client_apps"]],
            created_by=request.user,  # type: ignore[arg-type]
            actor=actor_of(request),
        )
        obj.pk = made.pk
        obj.refresh_from_db()

    def get_inlines(self, request: HttpRequest, obj: Campaign | None) -> list[Any]:
        return [] if obj is None else self.inlines

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """The service has set the client apps; there is nothing else beside the row."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        allowed = {
            f"move_{name}" for name, move in MOVES.items() if request.user.has_perm(move.permission)
        }
        return {
            key: action for key, action in super().get_actions(request).items() if key in allowed
        }

    def move(
        self, request: HttpRequest, queryset: QuerySet[Campaign], name: str
    ) -> HttpResponse | None:
        """First shows what would happen; with the confirmed versions, does it one by one."""
        move = MOVES[name]
        if not request.user.has_perm(move.permission):
            raise PermissionDenied
        campaigns = list(queryset.order_by("slug"))
        if request.POST.get("confirmed") != "yes":
            return self._confirm(request, campaigns, name, move)
        for campaign in campaigns:
            if request.POST.get(f"version_{campaign.pk.hex}") != str(campaign.version):
                self._say(request, campaign, _("it was changed meanwhile; look again"), bad=True)
                continue
            try:
                moved = move.run(campaign, actor_of(request))
            except ServiceError as refusal:
                self._say(request, campaign, refusal.message, bad=True)
            else:
                self._say(request, campaign, moved.get_state_display(), bad=False)
        return HttpResponseRedirect(reverse("admin:campaign_campaign_changelist"))

    def _say(self, request: HttpRequest, campaign: Campaign, text: Any, *, bad: bool) -> None:
        level = messages.ERROR if bad else messages.SUCCESS
        self.message_user(request, f"{campaign.slug}: {text}", level)

    def _confirm(
        self, request: HttpRequest, campaigns: list[Campaign], name: str, move: Move
    ) -> HttpResponse:
        rows = [
            {
                "campaign": campaign,
                "possible": campaign.state in move.sources,
                "consequence": move.consequence(campaign),
            }
            for campaign in campaigns
        ]
        context = {
            **self.admin_site.each_context(request),
            "title": move.label,
            "opts": self.model._meta,
            "rows": rows,
            "action": f"move_{name}",
            "label": move.label,
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/campaign/confirm.html", context)
