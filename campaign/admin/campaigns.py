"""The list of campaigns, and the page of one: state, money, what may be done, what happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign import people, selectors
from campaign.admin import (
    acts,
    board,
    builder,
    channel_rules,
    disclosing,
    exports,
    growth,
    lists,
    money_exports,
    previewing,
    rains,
    review,
    running,
)
from campaign.admin.shell import name_of, notices_seen
from campaign.channel_rules import acknowledgements
from campaign.models import (
    Campaign,
    CampaignGrowth,
    CampaignPacket,
    CampaignTemplate,
    TargetUpload,
    TopUp,
)
from engine.lib.adminkit import (
    MomentFilter,
    NoCountPaginator,
    PlainModelAdmin,
    moment,
    money,
    tag,
    uuid_of,
)
from engine.lib.money import yuan
from engine.models import AuditEvent
from engine.staff.pages import page, user_of
from packets.tickets import tickets_counted

Act = people.Act
State = Campaign.State
EVENTS_SHOWN = 40
INDEX_TITLE = gettext_lazy("Live board")


class DrillFilter(admin.SimpleListFilter):
    """Drills stand in the list only for whoever asks for them."""

    title = gettext_lazy("drills")
    parameter_name = "drills"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("too", gettext_lazy("with drills")), ("only", gettext_lazy("drills only"))]

    def choices(self, changelist: Any) -> Iterator[Any]:
        for number, choice in enumerate(super().choices(changelist)):
            yield choice if number else {**choice, "display": gettext_lazy("without drills")}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Campaign]) -> QuerySet[Campaign]:
        drills = selectors.campaigns_of_drills()
        if self.value() == "too":
            return queryset
        return queryset.filter(drills) if self.value() == "only" else queryset.exclude(drills)


@admin.register(Campaign)
class CampaignAdmin(PlainModelAdmin):
    paginator = NoCountPaginator
    list_display = ["name", "state_shown", "budget", "spent", "packets_n", "starts", "ends"]
    list_filter = ["state", ("starts_at", MomentFilter), DrillFilter]
    search_fields = ["slug", "name_zh", "name_en"]
    search_help_text = gettext_lazy("Part of a name")
    ordering = ["-created_at", "-id"]
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Campaign]:
        return selectors.campaigns_with_spending()

    @admin.display(description=gettext_lazy("campaign"), ordering="slug")
    def name(self, campaign: Any) -> SafeString:
        return format_html(
            '<span class="ls-strong">{}</span> <span class="ls-mono ls-muted">{}</span> {}',
            name_of(campaign),
            campaign.slug,
            tag("drill", _("drill")) if campaign.is_drill else "",
        )

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_shown(self, campaign: Campaign) -> SafeString:
        return tag(campaign.state, campaign.get_state_display())

    @admin.display(description=gettext_lazy("budget"), ordering="budget_fen")
    def budget(self, campaign: Campaign) -> SafeString:
        return money(campaign.budget_fen)

    @admin.display(description=gettext_lazy("claimed"))
    def spent(self, campaign: Any) -> SafeString:
        return money(campaign.spent_fen)

    @admin.display(description=gettext_lazy("packets"))
    def packets_n(self, campaign: Any) -> int:
        return int(campaign.packet_count)

    @admin.display(description=gettext_lazy("starts at"), ordering="starts_at")
    def starts(self, campaign: Campaign) -> str:
        return moment(campaign.starts_at, campaign.timezone)

    @admin.display(description=gettext_lazy("ends at"), ordering="ends_at")
    def ends(self, campaign: Campaign) -> str:
        return moment(campaign.ends_at, campaign.timezone)

    # Nothing of a campaign is deleted: its money has a history.
    def has_delete_permission(self, request: HttpRequest, obj: Campaign | None = None) -> bool:
        return False

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return builder.build(request)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        return detail(request, object_id)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        campaign = get_object_or_404(Campaign, pk=uuid_or_404(object_id))
        address = reverse("admin:engine_auditevent_changelist")
        return HttpResponseRedirect(f"{address}?q={campaign.pk.hex}")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        ours = [
            path("new/", view(builder.choose), name="campaign_choose"),
            path("preview/", view(previewing.preview), name="campaign_preview"),
            path("reviews/", view(review.waiting), name="campaign_reviews"),
            path("kill-switch/", view(acts.switch), name="campaign_switch"),
            path("notices-seen/", view(notices_seen), name="campaign_notices_seen"),
            path("board-data/", view(board.data), name="campaign_board_data"),
            path("money-export/", view(money_exports.export), name="campaign_money_export"),
            path("top-up/<int:top_up_id>/", view(running.decide), name="campaign_top_up"),
            path("list/<int:upload_id>/", view(lists.progress), name="campaign_list"),
            path("<uuid:object_id>/edit/", view(builder.build), name="campaign_edit"),
            path("<uuid:object_id>/do/<slug:name>/", view(acts.act), name="campaign_act"),
            path("<uuid:object_id>/review/", view(review.review), name="campaign_review"),
            path("<uuid:object_id>/board-data/", view(board.data), name="campaign_data"),
            path("<uuid:object_id>/top-up/", view(running.ask), name="campaign_top_up_ask"),
            path("<uuid:object_id>/extend/", view(running.extend), name="campaign_extend"),
            path(
                "<uuid:object_id>/disclosure/",
                view(disclosing.disclosure),
                name="campaign_disclosure",
            ),
            path("<uuid:object_id>/growth/", view(growth.edit), name="campaign_growth"),
            path(
                "<uuid:object_id>/platform-rules/",
                view(channel_rules.channel_rules),
                name="campaign_channel_rules",
            ),
            path("<uuid:object_id>/rain/", view(rains.rain), name="campaign_rain"),
            path(
                "<uuid:object_id>/round/<uuid:packet_id>/",
                view(rains.move),
                name="campaign_round",
            ),
            path("<uuid:object_id>/lists/", view(lists.upload), name="campaign_lists"),
            path("<uuid:object_id>/template/", view(lists.template), name="campaign_template"),
            path("<uuid:object_id>/export/", view(exports.export), name="campaign_export"),
            path("<uuid:object_id>/export/csv/", view(exports.csv), name="campaign_csv"),
            path(
                "<uuid:object_id>/export/progress/",
                view(exports.progress),
                name="campaign_export_progress",
            ),
        ]
        return [*ours, *super().get_urls()]


def uuid_or_404(text: str) -> Any:
    found = uuid_of(str(text))
    if found is None:
        raise Http404
    return found


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    """One campaign, whatever its state."""
    user = user_of(request)
    if not user.has_perm("campaign.view_campaign"):
        raise PermissionDenied
    campaign = get_object_or_404(
        Campaign.objects.select_related(
            "account", "gate", "created_by", "edited_by", "submitted_by"
        ),
        pk=uuid_or_404(object_id),
    )
    bound_fen = selectors.campaign_committed_fen(campaign)
    links = list(campaign.links.select_related("packet").order_by("order"))
    return page(
        request,
        "campaign/detail.html",
        name_of(campaign),
        subtitle=None,
        campaign=campaign,
        packets=[_packet_row(link, campaign) for link in links],
        unread=", ".join(
            str(one.rule.channel.label) for one in acknowledgements(campaign) if not one.is_current
        )
        if campaign.state in people.RIGHTS[Act.EDIT].states
        else "",
        may_move=rains.may_move(user, campaign),
        buttons=acts.buttons(user, campaign),
        links=_links(user, campaign),
        approval=selectors.approval_valid(campaign),
        top_ups=TopUp.objects.filter(campaign=campaign).select_related(
            "requested_by", "decided_by"
        )[:10],
        uploads=TargetUpload.objects.filter(
            packet__campaign_link__campaign=campaign
        ).select_related("packet", "client_app", "created_by")[:20],
        events=_events(user, campaign),
        starts=moment(campaign.starts_at, campaign.timezone),
        ends=moment(campaign.ends_at, campaign.timezone),
        apps=campaign.client_apps.all(),
        growth=growth.summary(campaign),
        ran=campaign.launched_at is not None
        or campaign.state in (State.LIVE, State.PAUSED, State.KILLED, State.ENDED, State.SETTLED),
        board_url=reverse("admin:campaign_data", args=[campaign.pk]),
        budget_shown=yuan(campaign.budget_fen),
        bound_shown=yuan(bound_fen),
        free_shown=yuan(campaign.account.balance_fen),
    )


def _packet_row(link: CampaignPacket, campaign: Campaign) -> dict[str, Any]:
    packet, audience = link.packet, []
    if packet.targeted:
        audience.append(_("listed people"))
    if packet.new_only:
        audience.append(_("new people"))
    if packet.group:
        audience.append(_("group %(group)s") % {"group": packet.group})
    if packet.min_account_age_days:
        audience.append(
            _("accounts of %(days)s days or more") % {"days": packet.min_account_age_days}
        )
    if packet.password_hash:
        audience.append(_("who know the pass phrase"))
    if packet.needs_ticket:
        audience.append(
            _("who hold a ticket (%(issued)s issued)") % {"issued": tickets_counted(packet.pk)}
        )
    return {
        "packet": packet,
        "round": link.round,
        "total": money(packet.total_fen),
        "count": f"{packet.count:,}",
        "range": f"{yuan(packet.min_fen)} – " + (yuan(packet.max_fen) if packet.max_fen else "∞"),
        "opens": moment(packet.opens_at, campaign.timezone, seconds=link.round is not None),
        "closes": moment(packet.closes_at, campaign.timezone, seconds=link.round is not None),
        "audience": ", ".join(audience) or _("everybody"),
    }


def _links(user: Any, campaign: Campaign) -> list[dict[str, Any]]:
    """What else can be done from here; each page asks for the right again."""
    found = []

    def add(act: people.Act, name: str, label: str, icon: str, mark: str = "") -> None:
        right = people.RIGHTS[act]
        if people.may(user, act) and (not right.states or campaign.state in right.states):
            address = reverse(f"admin:{name}", args=[campaign.pk])
            found.append(
                {"label": label, "icon": icon, "address": address, "act": mark or act.value}
            )

    add(Act.APPROVE, "campaign_review", _("Review"), "approval")
    add(Act.EDIT, "campaign_edit", _("Edit"), "edit")
    add(Act.EDIT, "campaign_rain", _("Red-packet rain"), "rainy", mark="rain")
    add(Act.SET_GROWTH, "campaign_growth", _("Growth"), "share")
    if acknowledgements(campaign):
        add(Act.ACKNOWLEDGE_CHANNELS, "campaign_channel_rules", _("Platform rules"), "policy")
    add(Act.UPLOAD_TARGETS, "campaign_lists", _("Lists of people"), "group_add")
    add(Act.REQUEST_TOP_UP, "campaign_top_up_ask", _("Top up"), "add_card")
    add(Act.EXTEND, "campaign_extend", _("Move the end"), "event")
    add(Act.EDIT_TEMPLATES, "campaign_template", _("Keep as a template"), "content_copy")
    if people.may(user, Act.CREATE):
        found.append(
            {
                "label": _("Copy"),
                "icon": "file_copy",
                "address": f"{reverse('admin:campaign_campaign_add')}?copy={campaign.pk.hex}",
                "act": "copy",
            }
        )
    found.append(
        {
            "label": _("Published rules"),
            "icon": "gavel",
            "address": reverse("admin:campaign_disclosure", args=[campaign.pk]),
            "act": "disclosure",
        }
    )
    if CampaignGrowth.objects.filter(campaign=campaign).exists():
        found.append(
            {
                "label": _("Growth figures"),
                "icon": "insights",
                "address": reverse("admin:referrals_growth_of", args=[campaign.pk]),
                "act": "growth_figures",
            }
        )
    if user.has_perm("packets.view_claim"):
        found.append(
            {
                "label": _("Export claims"),
                "icon": "download",
                "address": reverse("admin:campaign_export", args=[campaign.pk]),
                "act": "export",
            }
        )
    return found


def _events(user: Any, campaign: Campaign) -> list[dict[str, Any]]:
    """The campaign's page of the audit log, newest first, for whoever may read it."""
    if not user.has_perm("engine.view_auditevent"):
        return []
    rows = AuditEvent.objects.filter(object_type="campaign", object_id=campaign.pk.hex)
    return [
        {
            "event": event,
            "at": moment(event.at, campaign.timezone, seconds=True),
            "words": EVENT_WORDS.get(event.action.removeprefix("campaign."), event.action),
        }
        for event in rows.order_by("-id")[:EVENTS_SHOWN]
    ]


EVENT_WORDS = {
    "create": gettext_lazy("created"),
    "update": gettext_lazy("changed"),
    "packet_add": gettext_lazy("added a packet"),
    "packet_change": gettext_lazy("changed a packet"),
    "packet_remove": gettext_lazy("removed a packet"),
    "rain_add": gettext_lazy("added a red-packet rain"),
    "rain_remove": gettext_lazy("removed a red-packet rain"),
    "growth": gettext_lazy("changed the growth"),
    "round_move": gettext_lazy("moved a round"),
    "channels_acknowledge": gettext_lazy("read the platforms' rules"),
    "template": gettext_lazy("kept as a template"),
    "targets_upload": gettext_lazy("uploaded a list of people"),
    "targets_clear": gettext_lazy("cleared a list of people"),
    "submit": gettext_lazy("handed in for review"),
    "approve": gettext_lazy("approved"),
    "send_back": gettext_lazy("sent back"),
    "approval_void": gettext_lazy("changed it: back to a draft"),
    "launch": gettext_lazy("launched"),
    "launch_failed": gettext_lazy("could not start"),
    "pause": gettext_lazy("paused"),
    "resume": gettext_lazy("resumed"),
    "kill": gettext_lazy("killed"),
    "end": gettext_lazy("ended"),
    "settle": gettext_lazy("settled"),
    "extend": gettext_lazy("moved the end"),
    "export": gettext_lazy("exported the claims"),
    "top_up": gettext_lazy("topped up"),
    "top_up_request": gettext_lazy("asked for a top-up"),
    "top_up_reject": gettext_lazy("refused a top-up"),
    "top_up_withdraw": gettext_lazy("withdrew a top-up"),
}


@admin.register(CampaignTemplate)
class CampaignTemplateAdmin(PlainModelAdmin):
    """Templates are made from campaigns; here they are named, ordered and switched off."""

    list_display = ["name_zh", "name_en", "slug", "order", "active"]
    list_filter = ["active"]
    search_fields = ["slug", "name_zh", "name_en"]
    fields = [
        "name_zh", "name_en", "description_zh", "description_en", "order", "active",
    ]  # fmt: skip

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False
