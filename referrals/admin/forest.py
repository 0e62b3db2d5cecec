"""The forest on the desk: edges, a person's place in it as a picture, bans.

Whoever may see claims may look; `ban_person` bans and lifts, with a reason and the password, since
money is held.
"""

from __future__ import annotations

import uuid

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign.models import Campaign
from engine.lib.adminkit import MomentFilter, actor_of, digests_of, moment, require, stamp, tag
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from engine.staff.pages import page
from packets.admin.rows import RowAdmin
from packets.models import Participant
from referrals.admin.privacy import HOLD, erase, hold, person_of
from referrals.forest import selectors
from referrals.forest.bans import ban_lift, person_ban
from referrals.forest.pictures import picture
from referrals.models import Ban, BanReward, Referral, Reward

SEE = "referrals.view_referral"
BAN = "referrals.ban_person"
# Levels that a page counts; deeper people are in the analytics.
LEVELS_SHOWN = 30


def _address(campaign_id: uuid.UUID, person: str) -> str:
    return reverse("admin:referrals_person", args=[campaign_id, person])


def _link(campaign_id: uuid.UUID, person: bytes) -> SafeString:
    text = person.hex()
    return format_html('<a class="ls-link" href="{}">{}</a>', _address(campaign_id, text), text)


@admin.register(Referral)
class ReferralAdmin(RowAdmin):
    list_display = ["bound", "campaign", "friend", "invited_by", "source", "depth"]
    list_filter = ["source", ("bound_at", MomentFilter)]
    list_select_related = ["campaign"]
    search_fields = ["id"]
    search_help_text = gettext_lazy("Exact: participant, or the app's user id")
    ordering = ["-id"]
    shown_instead = {"invitee": "friend", "inviter": "invited_by", "root": "top"}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Referral], search_term: str
    ) -> tuple[QuerySet[Referral], bool]:
        text = search_term.replace("\0", "").strip()
        if not text:
            return queryset, False
        people = digests_of(text)
        return queryset.filter(invitee__in=people) | queryset.filter(inviter__in=people), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        person = "person/<uuid:campaign_id>/<str:person>/"
        return [
            path(person, view(person_page), name="referrals_person"),
            path(f"{person}ban/", view(ban), name="referrals_person_ban"),
            path(f"{person}hold/", view(hold), name="referrals_person_hold"),
            path("erase/", view(erase), name="referrals_erase"),
            path("ban/<int:ban_id>/lift/", view(lift), name="referrals_ban_lift"),
            *super().get_urls(),
        ]

    @admin.display(description=gettext_lazy("bound at"), ordering="id")
    def bound(self, row: Referral) -> SafeString:
        return stamp(row.bound_at)

    @admin.display(description=gettext_lazy("friend"))
    def friend(self, row: Referral) -> SafeString:
        return _link(row.campaign_id, bytes(row.invitee))

    @admin.display(description=gettext_lazy("inviter"))
    def invited_by(self, row: Referral) -> SafeString:
        return _link(row.campaign_id, bytes(row.inviter))

    @admin.display(description=gettext_lazy("root"))
    def top(self, row: Referral) -> SafeString:
        return _link(row.campaign_id, bytes(row.root))


@admin.register(Ban)
class BanAdmin(RowAdmin):
    list_display = ["since", "person", "campaign", "reason", "banned_by", "state"]
    list_select_related = ["campaign"]
    ordering = ["-id"]

    @admin.display(description=gettext_lazy("banned at"), ordering="id")
    def since(self, row: Ban) -> SafeString:
        return stamp(row.banned_at)

    @admin.display(description=gettext_lazy("state"))
    def state(self, row: Ban) -> SafeString:
        return tag("done", _("lifted")) if row.lifted_at else tag("rejected", _("banned"))


# --- a person -------------------------------------------------------------------------------------


def _ban_of(campaign: Campaign, person: bytes) -> Ban | None:
    bans = Ban.objects.filter(participant=person, lifted_at=None)
    return (bans.filter(campaign=campaign) | bans.filter(campaign=None)).order_by("id").first()


def person_page(request: HttpRequest, campaign_id: uuid.UUID, person: str) -> HttpResponse:
    require(request, SEE)
    campaign, who = get_object_or_404(Campaign, pk=campaign_id), person_of(person)
    known = Participant.objects.filter(pk=who).first()
    banned = _ban_of(campaign, who)
    levels = selectors.levels(campaign_id, who, LEVELS_SHOWN)
    rewards = Reward.objects.filter(participant=who, referral__campaign=campaign_id)
    drawn = picture(campaign_id, who)
    return page(
        request,
        "referrals/person.html",
        _("%(who)s in %(campaign)s") % {"who": known or person[:8], "campaign": campaign},
        picture=drawn,
        dots=[(dot, _address(campaign_id, dot.person)) for dot in drawn.dots],
        levels=levels,
        widest=max((level.people for level in levels), default=1),
        people=sum(level.people for level in levels),
        friends=levels[0].people if levels else 0,
        granted=rewards.filter(state=Reward.State.GRANTED).count(),
        banned=banned,
        banned_at=moment(banned.banned_at) if banned else "",
        held=BanReward.objects.filter(ban=banned, hold__isnull=False).count() if banned else 0,
        act=_act(request, campaign_id, person, banned),
        hold=reverse("admin:referrals_person_hold", args=[campaign_id, person])
        if request.user.has_perm(HOLD)
        else "",
    )


def _act(request: HttpRequest, campaign_id: uuid.UUID, person: str, banned: Ban | None) -> str:
    """The address of what may be done, if anything."""
    if not request.user.has_perm(BAN):
        return ""
    if banned:
        return reverse("admin:referrals_ban_lift", args=[banned.pk])
    return reverse("admin:referrals_person_ban", args=[campaign_id, person])


def ban(request: HttpRequest, campaign_id: uuid.UUID, person: str) -> HttpResponse:
    require(request, BAN)
    campaign, who = get_object_or_404(Campaign, pk=campaign_id), person_of(person)
    people = sum(level.people for level in selectors.levels(campaign_id, who))
    act = ConfirmedAct(
        label=_("Ban this person"),
        icon="block",
        danger=True,
        about=person,
        consequence=Consequence(
            _("Rewards of this person and of everybody below, still in wallets, are held."),
            (
                _("Within seconds they win nothing more here: claims answer “blocked”."),
                _("Their links stop working, and nobody is bound to them or by them any more."),
                _("Packets that they sent from their wallet are paused."),
                _("What was paid out already isn't called back."),
                _("A reviewer decides on each hold; lifting the ban releases those left open."),
            ),
            ((_("People below"), f"{people:,}"),),
        ),
        run=lambda data: person_ban(
            participant=who, campaign=campaign, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Banned. Rewards are being held."),
    )
    return confirm(request, act, back=_address(campaign_id, person))


def lift(request: HttpRequest, ban_id: int) -> HttpResponse:
    require(request, BAN)
    row = get_object_or_404(Ban, pk=ban_id)
    held = BanReward.objects.filter(ban=row, hold__state="open").count()
    act = ConfirmedAct(
        label=_("Lift the ban"),
        icon="lock_open",
        about=str(row),
        consequence=Consequence(
            _("What this ban has held and nobody has decided on goes back into the wallets."),
            (_("They can win again, their links work again, and their packets go on."),),
            ((_("Open holds"), f"{held:,}"),),
        ),
        run=lambda data: ban_lift(ban_id=ban_id, actor=actor_of(request), reason=data["reason"]),
        done=gettext_lazy("The ban is lifted. Held rewards are being released."),
    )
    where = row.campaign_id
    back = _address(where, str(row)) if where else reverse("admin:referrals_ban_changelist")
    return confirm(request, act, back=back)
