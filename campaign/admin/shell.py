"""What surrounds every page: the navigation in the order of the work, the kill switch, notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from campaign import people, services
from campaign.models import Campaign, Notice
from engine.models import WebhookEndpoint
from engine.staff.pages import user_of
from packets.admin import payout_desk
from packets.admin.holds import open_holds
from packets.models import Difference, Gate, Payout

Act = people.Act


def name_of(campaign: Campaign) -> str:
    """The campaign's name in the reader's language, where it has one."""
    english = (get_language() or "").startswith("en")
    return campaign.name_en if english and campaign.name_en else campaign.name_zh


def address_of(campaign: Campaign) -> str:
    return reverse("admin:campaign_campaign_change", args=[campaign.pk])


# Above each page; more than these would push the page itself out of sight.
NOTICES_SHOWN = 3

# --- around every page ----------------------------------------------------------------------------


def switch_gate() -> Gate | None:
    return Gate.objects.filter(key=Gate.ALL).first()


def global_context(request: HttpRequest) -> dict[str, Any]:
    """The banner while all claims are stopped, and what this person has to know."""
    if not request.user.is_authenticated or not isinstance(request.user, User):
        return {}
    if not request.user.is_staff:
        return {}
    gate = switch_gate()
    unread = services.notices_unread(request.user)
    return {
        "all_stopped": gate if gate is not None and gate.state != Gate.State.OPEN else None,
        "may_switch_all": people.may(request.user, Act.SWITCH_ALL),
        "notices": [
            {
                "text": services.notice_text(notice),
                "address": _address_of_notice(notice),
                "at": notice.created_at,
            }
            for notice in _worth_showing(unread)
        ],
        "notices_newest": unread[0].pk if unread else 0,
    }


def _worth_showing(unread: list[Notice]) -> list[Notice]:
    """The newest few, one of a kind for a campaign, and no request that is settled already."""
    shown: dict[tuple[Any, str], Notice] = {}
    for notice in unread:
        done = notice.kind == Notice.Kind.REVIEW_REQUESTED and (
            notice.campaign.state != Campaign.State.REVIEW
        )
        if not done:
            shown.setdefault((notice.campaign_id, notice.kind), notice)
    return list(shown.values())[:NOTICES_SHOWN]


def _address_of_notice(notice: Notice) -> str:
    """Where what the notice asks for is done: one click leads there."""
    if notice.kind in _ASKS_FOR_A_REVIEW and notice.campaign.state == Campaign.State.REVIEW:
        return reverse("admin:campaign_review", args=[notice.campaign_id])
    return address_of(notice.campaign)


_ASKS_FOR_A_REVIEW = (Notice.Kind.REVIEW_REQUESTED, Notice.Kind.APPROVAL_VOIDED)


@require_POST
def notices_seen(request: HttpRequest) -> HttpResponse:
    newest = request.POST.get("newest", "")
    if newest.isascii() and newest.isdigit() and len(newest) < 19:
        services.notices_read(user=user_of(request), up_to=int(newest))
    back = request.POST.get("back", "")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}):
        back = reverse("admin:index")
    return HttpResponseRedirect(back)


def _campaigns_by_gate(keys: list[str]) -> dict[str, str]:
    rows = Campaign.objects.filter(gate__key__in=keys).select_related("gate")
    return {campaign.gate.key: name_of(campaign) for campaign in rows}


payout_desk.gate_namers.append(_campaigns_by_gate)

# --- the navigation -------------------------------------------------------------------------------


def _item(title: Any, icon: str, name: str, permission: str = "", badge: str = "") -> Any:
    """One line, or None where its page isn't there (an app that isn't installed)."""
    try:
        address = reverse(f"admin:{name}")
    except NoReverseMatch:
        return None
    item: dict[str, Any] = {"title": title, "icon": icon, "link": address}
    if permission:
        item["permission"] = _has(permission)
    if badge:
        item["badge"] = badge
    return item


def _has(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


MAX_BADGE = 99


def _waiting_for_review() -> int:
    """How many wait for a second person; counted no further than the badge can say."""
    rows = Campaign.objects.filter(state=Campaign.State.REVIEW).order_by()
    return len(rows.values_list("pk")[:MAX_BADGE])


def _waiting_payouts() -> int:
    """Payouts to which nothing happens by itself; counted no further than the badge can say."""
    rows = Payout.objects.exclude(manual_reason="").order_by()
    return len(rows.values_list("pk")[:MAX_BADGE])


def _open_differences() -> int:
    """Differences about which nobody has said anything yet."""
    rows = Difference.objects.filter(state=Difference.State.OPEN).order_by()
    return len(rows.values_list("pk")[:MAX_BADGE])


def _switched_off(request: HttpRequest) -> str:
    """How many endpoints the system has switched off and nobody has looked after since."""
    if not request.user.has_perm("engine.view_webhookendpoint"):
        return ""
    rows = WebhookEndpoint.objects.filter(disabled_by_us=True).order_by()
    count = len(rows.values_list("pk")[:MAX_BADGE])
    return str(count) if count else ""


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Watch, make, review; then what was claimed, where the money is, who is connected."""
    waiting = _waiting_for_review() if request.user.is_authenticated else 0
    differing = _open_differences() if request.user.has_perm("packets.view_difference") else 0
    by_hand = _waiting_payouts() if request.user.has_perm("packets.view_payout") else 0
    held = open_holds() if request.user.has_perm("packets.view_hold") else 0
    groups: list[tuple[Any, bool, list[Any]]] = [
        (
            _("Campaigns"),
            False,
            [
                {**_item(_("Live board"), "monitoring", "index"), "active": _is_index},
                {
                    **_item(
                        _("All campaigns"),
                        "campaign",
                        "campaign_campaign_changelist",
                        "campaign.view_campaign",
                    ),
                    "active": _is_campaign,
                },
                _item(_("New campaign"), "add_circle", "campaign_choose", "campaign.add_campaign"),
                {
                    **_item(
                        _("To review"), "approval", "campaign_reviews", "campaign.view_campaign"
                    ),
                    **({"badge": str(waiting)} if waiting else {}),
                },
                _item(
                    _("Templates"),
                    "content_copy",
                    "campaign_campaigntemplate_changelist",
                    "campaign.view_campaigntemplate",
                ),
            ],
        ),
        (
            _("Claims"),
            False,
            [
                _item(_("Packets"), "redeem", "packets_packet_changelist", "packets.view_packet"),
                _item(
                    _("People's packets"),
                    "volunteer_activism",
                    "packets_peoplepacket_changelist",
                    "packets.view_peoplepacket",
                ),
                _item(
                    _("Claims"), "receipt_long", "packets_claim_changelist", "packets.view_claim"
                ),
                _item(
                    _("Tickets"),
                    "confirmation_number",
                    "packets_ticket_changelist",
                    "packets.view_ticket",
                ),
                _item(
                    _("People"),
                    "groups",
                    "packets_participant_changelist",
                    "packets.view_participant",
                ),
            ],
        ),
        (
            _("Growth"),
            False,
            [
                _item(
                    _("Growth figures"),
                    "insights",
                    "referrals_growthsnapshot_changelist",
                    "campaign.view_campaign",
                ),
                _item(
                    _("Channels"), "share", "referrals_channels", "campaign.view_campaignchannel"
                ),
                _item(
                    _("Share links"),
                    "link",
                    "referrals_sharelink_changelist",
                    "referrals.view_sharelink",
                ),
                _item(
                    _("Referrals"),
                    "account_tree",
                    "referrals_referral_changelist",
                    "referrals.view_referral",
                ),
                _item(_("Bans"), "block", "referrals_ban_changelist", "referrals.view_ban"),
                _item(
                    _("Erase a person"),
                    "person_remove",
                    "referrals_erase",
                    "referrals.erase_person",
                ),
                _item(
                    _("Complaints"),
                    "sentiment_dissatisfied",
                    "referrals_complaint_changelist",
                    "referrals.view_complaint",
                ),
                _item(
                    _("Rewards"),
                    "card_giftcard",
                    "referrals_reward_changelist",
                    "referrals.view_reward",
                ),
                _item(
                    _("Ticket rules"),
                    "confirmation_number",
                    "referrals_ticketrule_changelist",
                    "referrals.view_ticketrule",
                ),
                _item(
                    _("Reported events"),
                    "event_note",
                    "referrals_serverevent_changelist",
                    "referrals.view_serverevent",
                ),
            ],
        ),
        (
            # Open, for its badges are what somebody waits for.
            _("Money out"),
            False,
            [
                _item(
                    _("Payout desk"), "point_of_sale", "packets_payout_desk", "packets.view_payout"
                ),
                {
                    **_item(
                        _("Payouts"), "payments", "packets_payout_changelist", "packets.view_payout"
                    ),
                    "active": _is_payout,
                },
                {
                    **_item(
                        _("Waiting for a person"),
                        "front_hand",
                        "packets_payout_manual",
                        "packets.view_payout",
                    ),
                    **({"badge": str(by_hand)} if by_hand else {}),
                },
                {
                    **_item(
                        _("Holds"), "lock_clock", "packets_hold_changelist", "packets.view_hold"
                    ),
                    **({"badge": str(held)} if held else {}),
                },
                _item(
                    _("Risk cases"),
                    "hub",
                    "referrals_riskcase_changelist",
                    "referrals.view_riskcase",
                ),
                _item(_("Risk policy"), "tune", "referrals_riskpolicy", "packets.view_riskrule"),
                _item(
                    _("Risk rules"),
                    "shield",
                    "packets_riskrule_changelist",
                    "packets.view_riskrule",
                ),
                _item(
                    _("Provider accounts"),
                    "account_balance_wallet",
                    "packets_provideraccount_changelist",
                    "packets.view_provideraccount",
                ),
                _item(
                    _("Reconciliation"),
                    "balance",
                    "packets_reconciliation",
                    "packets.view_statement",
                ),
                {
                    **_item(
                        _("Differences"),
                        "difference",
                        "packets_difference_changelist",
                        "packets.view_difference",
                    ),
                    **({"badge": str(differing)} if differing else {}),
                },
            ],
        ),
        (
            _("Money"),
            True,
            [
                _item(
                    _("Accounts"),
                    "account_balance",
                    "packets_account_changelist",
                    "packets.view_account",
                ),
                _item(
                    _("Transfers"),
                    "swap_horiz",
                    "packets_transfer_changelist",
                    "packets.view_transfer",
                ),
                _item(
                    _("Files for finance"),
                    "download",
                    "campaign_money_export",
                    "packets.export_money",
                ),
                _item(
                    _("Three-way checks"),
                    "rule",
                    "packets_stockcheck_changelist",
                    "packets.view_stockcheck",
                ),
                _item(
                    _("Refused settlements"),
                    "error",
                    "packets_claimstate_changelist",
                    "packets.view_claimstate",
                ),
            ],
        ),
        (
            _("Integration"),
            True,
            [
                _item(
                    _("Client apps"), "apps", "engine_clientapp_changelist", "engine.view_clientapp"
                ),
                _item(
                    _("Client keys"), "key", "engine_clientkey_changelist", "engine.view_clientkey"
                ),
                _item(_("API keys"), "vpn_key", "engine_apikey_changelist", "engine.view_apikey"),
                _item(
                    _("Test users"),
                    "science",
                    "engine_forcedoutcome_changelist",
                    "engine.view_forcedoutcome",
                ),
                _item(
                    _("Webhooks"),
                    "webhook",
                    "engine_webhookendpoint_changelist",
                    "engine.view_webhookendpoint",
                    badge=_switched_off(request),
                ),
                _item(
                    _("Webhook deliveries"),
                    "outgoing_mail",
                    "engine_webhookdelivery_changelist",
                    "engine.view_webhookdelivery",
                ),
            ],
        ),
        (
            _("Operation"),
            True,
            [
                _item(_("Kill switch"), "emergency_home", "campaign_switch", "campaign.switch_all"),
                _item(
                    _("Limits"), "speed", "packets_limitrule_changelist", "packets.view_limitrule"
                ),
                _item(_("Gates"), "door_front", "packets_gate_changelist", "packets.view_gate"),
                _item(_("Lanes"), "view_week", "packets_lane_changelist", "packets.view_lane"),
                _item(
                    _("Lane epochs"),
                    "history",
                    "packets_laneepoch_changelist",
                    "packets.view_laneepoch",
                ),
                _item(
                    _("Audit log"),
                    "policy",
                    "engine_auditevent_changelist",
                    "engine.view_auditevent",
                ),
                _item(
                    _("Idempotency records"),
                    "repeat",
                    "engine_idempotencyrecord_changelist",
                    "engine.view_idempotencyrecord",
                ),
            ],
        ),
        (
            _("Staff"),
            True,
            [
                _item(_("Staff"), "person", "auth_user_changelist", "auth.view_user"),
                _item(_("Groups"), "badge", "auth_group_changelist", "auth.view_group"),
                _item(
                    _("Second factors"),
                    "phonelink_lock",
                    "engine_secondfactor_changelist",
                    "engine.view_secondfactor",
                ),
                _item(
                    _("Log-in attempts"),
                    "lock",
                    "axes_accessattempt_changelist",
                    "axes.view_accessattempt",
                ),
            ],
        ),
    ]
    return [
        {"title": title, "collapsible": collapsible, "separator": number > 0, "items": shown}
        for number, (title, collapsible, items) in enumerate(groups)
        if (shown := [item for item in items if item is not None])
    ]


def _is_index(request: HttpRequest) -> bool:
    return request.path == reverse("admin:index")


def _is_payout(request: HttpRequest) -> bool:
    """The list and one of its rows; the desk and the queue have lines of their own."""
    path = request.path
    others = [reverse("admin:packets_payout_desk"), reverse("admin:packets_payout_manual")]
    return path.startswith(reverse("admin:packets_payout_changelist")) and path not in others


def _is_campaign(request: HttpRequest) -> bool:
    return request.path.startswith(reverse("admin:campaign_campaign_changelist"))
