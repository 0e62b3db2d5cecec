"""Who may do what to campaigns: the staff's groups, their rights, and the acts these rights allow.

The groups are written by a migration and may be changed by a superuser; what the product ships is
`GROUPS`, and docs/roles.md shows it as a table. A right is asked for twice: by the page that shows
a button and by `may`/`require` when it is pressed. That one person may not do two halves of a pair
(write and approve, ask and grant) is not a matter of rights: `services/` refuses it for everybody.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from engine.lib.errors import ServiceError

State = Campaign.State


class Group(enum.StrEnum):
    """The groups' names in the database; `GROUP_LABELS` are for people."""

    OPERATIONS = "operations"
    APPROVER = "approver"
    FINANCE = "finance"
    SUPPORT = "support"
    SRE = "sre"
    RISK = "risk"


GROUP_LABELS: dict[Group, str | Promise] = {
    Group.OPERATIONS: _("Operations"),
    Group.APPROVER: _("Approvers"),
    Group.FINANCE: _("Finance"),
    Group.SUPPORT: _("Support"),
    Group.SRE: _("Site reliability"),
    Group.RISK: _("Risk"),
}


class Act(enum.StrEnum):
    """Everything that staff do to campaigns."""

    CREATE = "create"
    EDIT = "edit"
    SUBMIT = "submit"
    UPLOAD_TARGETS = "upload_targets"
    EDIT_TEMPLATES = "edit_templates"
    APPROVE = "approve"
    SEND_BACK = "send_back"
    LAUNCH = "launch"
    PAUSE = "pause"
    RESUME = "resume"
    KILL = "kill"
    END = "end"
    SETTLE = "settle"
    EXTEND = "extend"
    MOVE_ROUND = "move_round"
    REQUEST_TOP_UP = "request_top_up"
    APPROVE_TOP_UP = "approve_top_up"
    SWITCH_ALL = "switch_all"
    FORCE_OUTCOMES = "force_outcomes"
    SET_LIMITS = "set_limits"
    STOP_PEOPLE = "stop_people"
    HANDLE_PAYOUT = "handle_payout"
    MARK_PAYOUT = "mark_payout"
    DECIDE_MARK = "decide_mark"
    CHANGE_PROVIDER = "change_provider"
    DECIDE_PROVIDER = "decide_provider"
    UPLOAD_STATEMENT = "upload_statement"
    RESOLVE_DIFFERENCE = "resolve_difference"
    RESOLVE_HOLDS = "resolve_holds"
    SET_RISK_RULES = "set_risk_rules"
    SET_GROWTH = "set_growth"
    SWITCH_CHANNEL = "switch_channel"
    ACKNOWLEDGE_CHANNELS = "acknowledge_channels"
    BAN_PERSON = "ban_person"
    ERASE_PERSON = "erase_person"
    SET_TICKET_RULES = "set_ticket_rules"


@dataclass(frozen=True)
class Right:
    """What an act needs: a permission, and the password once more where money moves."""

    permission: str
    money: bool = False
    states: tuple[Campaign.State, ...] = ()  # of the campaign; empty: any, or there is none


RIGHTS: dict[Act, Right] = {
    Act.CREATE: Right("campaign.add_campaign"),
    Act.EDIT: Right(
        "campaign.change_campaign", states=(State.DRAFT, State.REVIEW, State.SCHEDULED)
    ),
    Act.SUBMIT: Right("campaign.submit_campaign", states=(State.DRAFT,)),
    Act.UPLOAD_TARGETS: Right(
        "campaign.upload_targets", states=(State.DRAFT, State.REVIEW, State.SCHEDULED)
    ),
    Act.EDIT_TEMPLATES: Right("campaign.change_campaigntemplate"),
    Act.APPROVE: Right("campaign.approve_campaign", money=True, states=(State.REVIEW,)),
    Act.SEND_BACK: Right("campaign.approve_campaign", states=(State.REVIEW, State.SCHEDULED)),
    Act.LAUNCH: Right("campaign.launch_campaign", money=True, states=(State.SCHEDULED,)),
    Act.PAUSE: Right("campaign.stop_campaign", states=(State.LIVE,)),
    Act.RESUME: Right("campaign.stop_campaign", states=(State.PAUSED,)),
    Act.KILL: Right("campaign.stop_campaign", money=True, states=(State.LIVE, State.PAUSED)),
    Act.END: Right("campaign.end_campaign", money=True, states=(State.LIVE, State.PAUSED)),
    Act.SETTLE: Right("campaign.settle_campaign", money=True, states=(State.ENDED, State.KILLED)),
    Act.EXTEND: Right("campaign.extend_campaign", states=(State.LIVE, State.PAUSED)),
    Act.MOVE_ROUND: Right("campaign.move_round", states=(State.LIVE, State.PAUSED)),
    Act.REQUEST_TOP_UP: Right("campaign.request_topup", states=(State.LIVE, State.PAUSED)),
    Act.APPROVE_TOP_UP: Right(
        "campaign.approve_topup", money=True, states=(State.LIVE, State.PAUSED)
    ),
    Act.SWITCH_ALL: Right("campaign.switch_all"),
    Act.FORCE_OUTCOMES: Right("engine.change_forcedoutcome"),
    Act.SET_LIMITS: Right("packets.change_limitrule"),
    Act.STOP_PEOPLE: Right("packets.stop_peoplepackets"),
    Act.HANDLE_PAYOUT: Right("packets.handle_payout", money=True),
    Act.MARK_PAYOUT: Right("packets.add_payoutmark", money=True),
    Act.DECIDE_MARK: Right("packets.decide_payoutmark", money=True),
    Act.CHANGE_PROVIDER: Right("packets.change_provideraccount", money=True),
    Act.DECIDE_PROVIDER: Right("packets.decide_providerchange", money=True),
    Act.UPLOAD_STATEMENT: Right("packets.reconcile"),
    Act.RESOLVE_DIFFERENCE: Right("packets.reconcile"),
    Act.RESOLVE_HOLDS: Right("packets.resolve_hold", money=True),
    Act.SET_RISK_RULES: Right("packets.change_riskrule"),
    Act.SET_GROWTH: Right(
        "campaign.change_campaigngrowth",
        states=(State.DRAFT, State.REVIEW, State.SCHEDULED, State.LIVE, State.PAUSED),
    ),
    Act.SWITCH_CHANNEL: Right("campaign.change_campaignchannel"),
    Act.ACKNOWLEDGE_CHANNELS: Right(
        "campaign.change_campaign",
        states=(State.DRAFT, State.REVIEW, State.SCHEDULED, State.LIVE, State.PAUSED),
    ),
    Act.BAN_PERSON: Right("referrals.ban_person", money=True),
    Act.ERASE_PERSON: Right("referrals.erase_person", money=True),
    Act.SET_TICKET_RULES: Right("referrals.change_ticketrule"),
}

_SEE_CAMPAIGNS = (
    "campaign.view_campaign campaign.view_campaignpacket campaign.view_campaignapproval "
    "campaign.view_topup campaign.view_targetupload campaign.view_targetuploaderror "
    "campaign.view_campaigntemplate packets.view_packet packets.view_gate "
    "packets.view_limitrule"
)
_SEE_CLAIMS = (
    "packets.view_claim packets.view_claimstate packets.view_participant packets.view_ticket "
    "packets.view_peoplepacket campaign.view_campaignchannel referrals.view_sharelink "
    "referrals.view_complaint referrals.view_reward referrals.view_serverevent "
    "referrals.view_ticketrule "
    "referrals.view_referral referrals.view_ban"
)
_SEE_PAYOUTS = "packets.view_payout packets.view_provideraccount"
_SEE_STATEMENTS = "packets.view_statement packets.view_difference packets.view_stockcheck"
_SEE_MONEY = (
    "packets.view_account packets.view_transfer packets.view_lane packets.view_laneepoch "
    "engine.view_auditevent"
)
_SEE_WEBHOOKS = "engine.view_webhookendpoint engine.view_webhookdelivery"
_SEE_HOLDS = (
    "packets.view_hold packets.view_holdappeal packets.view_riskrule referrals.view_riskcase"
)
GROUPS: dict[Group, frozenset[str]] = {
    group: frozenset(" ".join(words).split())
    for group, words in {
        Group.OPERATIONS: (
            _SEE_CAMPAIGNS,
            _SEE_CLAIMS,
            _SEE_MONEY,
            _SEE_WEBHOOKS,
            "campaign.add_campaign campaign.change_campaign campaign.submit_campaign "
            "campaign.upload_targets campaign.launch_campaign campaign.stop_campaign "
            "campaign.end_campaign campaign.extend_campaign campaign.move_round "
            "campaign.request_topup "
            "campaign.add_campaigntemplate campaign.change_campaigntemplate "
            "campaign.delete_campaigntemplate engine.view_clientapp engine.view_forcedoutcome "
            "engine.add_forcedoutcome engine.change_forcedoutcome engine.delete_forcedoutcome "
            "packets.add_limitrule packets.change_limitrule packets.stop_peoplepackets "
            "campaign.change_campaignchannel campaign.change_campaigngrowth "
            "referrals.add_ticketrule referrals.change_ticketrule",
        ),
        Group.APPROVER: (
            _SEE_CAMPAIGNS,
            _SEE_CLAIMS,
            _SEE_MONEY,
            _SEE_PAYOUTS,
            "packets.decide_payoutmark packets.decide_providerchange",
            "campaign.approve_campaign campaign.approve_topup campaign.launch_campaign "
            "campaign.stop_campaign campaign.end_campaign campaign.move_round campaign.switch_all "
            "packets.stop_peoplepackets",
        ),
        Group.FINANCE: (
            _SEE_CAMPAIGNS,
            _SEE_CLAIMS,
            _SEE_MONEY,
            _SEE_PAYOUTS,
            _SEE_STATEMENTS,
            "packets.reconcile packets.export_money packets.export_payees "
            "campaign.settle_campaign campaign.approve_topup "
            "packets.handle_payout packets.add_payoutmark packets.decide_payoutmark "
            "packets.add_provideraccount packets.change_provideraccount "
            "packets.decide_providerchange packets.resolve_hold",
            _SEE_HOLDS,
        ),
        Group.SUPPORT: (_SEE_CAMPAIGNS, _SEE_CLAIMS, _SEE_PAYOUTS),
        Group.SRE: (
            _SEE_CAMPAIGNS,
            _SEE_CLAIMS,
            _SEE_MONEY,
            _SEE_PAYOUTS,
            _SEE_STATEMENTS,
            "packets.add_provideraccount packets.change_provideraccount",
            _SEE_WEBHOOKS,
            "campaign.stop_campaign campaign.switch_all packets.stop_peoplepackets "
            "engine.add_webhookendpoint engine.change_webhookendpoint "
            "engine.change_webhookdelivery "
            "engine.view_clientapp engine.add_clientapp engine.change_clientapp "
            "engine.view_clientkey engine.add_clientkey engine.change_clientkey "
            "engine.view_apikey engine.add_apikey engine.change_apikey "
            "engine.view_forcedoutcome engine.add_forcedoutcome engine.change_forcedoutcome "
            "engine.delete_forcedoutcome packets.add_limitrule packets.change_limitrule "
            "campaign.change_campaignchannel",
        ),
        Group.RISK: (
            _SEE_CAMPAIGNS,
            _SEE_CLAIMS,
            _SEE_MONEY,
            _SEE_HOLDS,
            _SEE_PAYOUTS,
            "packets.resolve_hold packets.add_riskrule packets.change_riskrule "
            "packets.stop_peoplepackets campaign.change_campaignchannel "
            "referrals.ban_person referrals.erase_person",
        ),
    }.items()
}


def may(user: User, act: Act) -> bool:
    """Whether the user has the right, whatever the campaign's state."""
    return user.is_active and user.is_staff and user.has_perm(RIGHTS[act].permission)


def require(user: User, act: Act) -> None:
    """Refuse who lacks the right; called before any service on behalf of a person."""
    if not may(user, act):
        raise ServiceError("", "forbidden", _("You do not have the right to do this."))


def actor_of(user: User) -> str:
    """How the audit log names a member of staff."""
    return f"staff:{user.get_username()}"
