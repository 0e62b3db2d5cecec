"""Every table, and which of its rows are a drill's: what is taken away, in which order, what stays.

A table is either in `PLAN` or in `STAYS`; `tests/referrals/test_removing.py` asks Postgres for all
there are, so none is forgotten. Whatever refers to a row goes before it. The conditions speak of
one drill's `%(app)s`, `%(campaign)s` and `%(slug)s`, and of the temporary tables that
`removal.py` fills: `removed_people`, `removed_packets`, `removed_lanes`, `removed_accounts`.
"""

from __future__ import annotations

from dataclasses import dataclass

_CAMPAIGN = "t.campaign_id = %(campaign)s"
_LANES = "t.lane_id IN (SELECT id FROM removed_lanes)"
_PACKETS = "t.packet_id IN (SELECT id FROM removed_packets)"
_PEOPLE = "t.participant IN (SELECT digest FROM removed_people)"
_APP = "t.client_app_id = %(app)s"
_RAILS = "SELECT id FROM packets_provideraccount WHERE client_apps = ARRAY[%(app)s::bigint]"
_EDGES = "SELECT id FROM referrals_referral WHERE campaign_id = %(campaign)s"
_CASES = "SELECT id FROM referrals_riskcase WHERE campaign_id = %(campaign)s"
_PAYOUTS = (
    "SELECT payout.id FROM packets_payout AS payout"
    " JOIN removed_people AS person ON person.digest = payout.participant"
)
_CLAIMS = (
    "SELECT claim.id FROM packets_claim AS claim"
    " JOIN removed_lanes AS lane ON lane.id = claim.lane_id"
)
_BANS = (
    "SELECT id FROM referrals_ban"
    " WHERE campaign_id = %(campaign)s OR participant IN (SELECT digest FROM removed_people)"
)
_UPLOADS = (
    "SELECT id FROM campaign_targetupload WHERE packet_id IN (SELECT id FROM removed_packets)"
)
_GATE = "(SELECT gate_id FROM campaign_campaign WHERE id = %(campaign)s)"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table; `t` is the table in the condition."""

    table: str
    where: str
    order: str = ""


# A transaction takes a batch of one entry; of a tuple all rows together, because each of them says
# whose the others are.
PLAN: tuple[Rows | tuple[Rows, ...], ...] = (
    # Growth.
    Rows(
        "referrals_riskreward",
        "t.member_id IN (SELECT id FROM referrals_riskmember WHERE campaign_id = %(campaign)s)",
    ),
    Rows("referrals_riskact", f"t.case_id IN ({_CASES})"),
    Rows("referrals_riskmember", _CAMPAIGN),
    Rows("referrals_riskcase", _CAMPAIGN),
    Rows("referrals_risklook", _CAMPAIGN),
    Rows("referrals_banreward", f"t.ban_id IN ({_BANS})"),
    Rows("referrals_ban", f"t.id IN ({_BANS})"),
    Rows("referrals_reward", f"t.referral_id IN ({_EDGES})"),
    Rows("referrals_qualification", f"t.referral_id IN ({_EDGES})"),
    Rows(
        "referrals_ticketdue",
        "t.rule_id IN (SELECT id FROM referrals_ticketrule WHERE campaign_id = %(campaign)s)",
    ),
    Rows("referrals_ticketrule", _CAMPAIGN),
    Rows("referrals_circletry", _CAMPAIGN),
    # A friend's edge is younger than that of whoever invited them.
    Rows("referrals_referral", _CAMPAIGN, order="t.id DESC"),
    Rows("referrals_complaint", _CAMPAIGN),
    Rows(
        "referrals_visit",
        "t.link_id IN (SELECT id FROM referrals_sharelink WHERE campaign_id = %(campaign)s)",
    ),
    Rows("referrals_sharelink", _CAMPAIGN),
    Rows("referrals_serverevent", f"{_APP} AND ({_PEOPLE} OR {_CAMPAIGN})"),
    Rows("referrals_growthsnapshot", _CAMPAIGN),
    Rows("referrals_snapshotdue", _CAMPAIGN),
    Rows("referrals_claimcursor", _LANES),
    Rows("referrals_identity", _PEOPLE),
    # Payouts.
    Rows("packets_difference", f"t.account_id IN ({_RAILS})"),
    Rows(
        "packets_statementline",
        f"t.statement_id IN (SELECT id FROM packets_statement WHERE account_id IN ({_RAILS}))",
    ),
    Rows("packets_statement", f"t.account_id IN ({_RAILS})"),
    Rows("packets_payoutmark", f"t.payout_id IN ({_PAYOUTS})"),
    Rows("packets_payoutcall", f"t.payout_id IN ({_PAYOUTS})"),
    Rows("packets_payoutnumber", f"t.payout_id IN ({_PAYOUTS})"),
    Rows("packets_payout", _PEOPLE),
    # Money and claims.
    Rows(
        "packets_holdappeal",
        "t.hold_id IN (SELECT id FROM packets_hold"
        " WHERE wallet_id IN (SELECT id FROM removed_accounts))",
    ),
    Rows("packets_hold", "t.wallet_id IN (SELECT id FROM removed_accounts)"),
    Rows("packets_claimstate", f"t.claim_id IN ({_CLAIMS})"),
    Rows("packets_transfer", "t.debit_account_id IN (SELECT id FROM removed_accounts)"),
    Rows("packets_claim", _LANES),
    Rows("packets_sharetouch", _APP),
    Rows("packets_ticket", _PACKETS),
    Rows("packets_laneepoch", _LANES),
    Rows("packets_lanecursor", _LANES),
    Rows("packets_lane", _PACKETS),
    # Packets, and what staff made of them.
    Rows("packets_peoplepacket", _PACKETS),
    Rows("packets_packettarget", _PACKETS),
    Rows("campaign_targetuploaderror", f"t.upload_id IN ({_UPLOADS})"),
    Rows("campaign_targetuploadpart", f"t.upload_id IN ({_UPLOADS})"),
    Rows("campaign_targetupload", _PACKETS),
    Rows("packets_limitrule", f"{_PACKETS} OR t.gate_id = {_GATE}"),
    Rows("packets_block", f"{_PEOPLE} OR t.gate_id = {_GATE}"),
    Rows("campaign_campaigngrowth", _CAMPAIGN),
    Rows("campaign_campaignchannel", _CAMPAIGN),
    Rows("campaign_campaignpacket", _CAMPAIGN),
    Rows("campaign_rain", _CAMPAIGN),
    (
        Rows(
            "packets_account",
            "t.id IN (SELECT escrow_id FROM packets_packet"
            " WHERE id IN (SELECT id FROM removed_packets))",
        ),
        Rows("packets_packet", "t.id IN (SELECT id FROM removed_packets)"),
    ),
    Rows(
        "packets_account",
        "t.id IN (SELECT id FROM removed_accounts)"
        " AND t.kind IN ('wallet', 'held', 'clearing', 'external')",
    ),
    Rows("packets_providerchange", f"t.account_id IN ({_RAILS})"),
    Rows("packets_provideraccount", f"t.id IN ({_RAILS})"),
    # The campaign.
    Rows("campaign_notice", _CAMPAIGN),
    Rows("campaign_campaignapproval", _CAMPAIGN),
    Rows("campaign_topup", _CAMPAIGN),
    Rows("campaign_burnsample", _CAMPAIGN),
    Rows("campaign_disclosure", _CAMPAIGN),
    (
        Rows(
            "packets_account",
            "t.id = (SELECT account_id FROM campaign_campaign WHERE id = %(campaign)s)",
        ),
        Rows("campaign_campaign_client_apps", _CAMPAIGN),
        Rows("packets_gate", f"t.id = {_GATE}"),
        Rows("campaign_campaign", "t.id = %(campaign)s"),
    ),
    # Its app.
    Rows(
        "engine_webhookattempt",
        "t.delivery_id IN (SELECT delivery.id FROM engine_webhookdelivery AS delivery"
        " JOIN engine_outboxevent AS event ON event.id = delivery.event_id"
        " WHERE event.client_app_id = %(app)s)",
    ),
    Rows(
        "engine_webhookdelivery",
        "t.event_id IN (SELECT id FROM engine_outboxevent WHERE client_app_id = %(app)s)",
    ),
    Rows("engine_outboxevent", _APP),
    Rows("engine_webhookendpoint", _APP),
    Rows("engine_apikey", _APP),
    Rows("engine_clientkey", _APP),
    Rows("engine_forcedoutcome", _APP),
    Rows(
        "engine_idempotencyrecord",
        "t.principal IN (SELECT 'client:' || encode(digest, 'hex') FROM removed_people)"
        " OR t.principal = 'app:' || %(app)s",
    ),
    Rows(
        "auth_user",
        "t.username IN (%(slug)s || '-author', %(slug)s || '-approver') AND NOT t.is_active",
    ),
    Rows("packets_participant", "t.digest IN (SELECT digest FROM removed_people)"),
    Rows("engine_clientapp", "t.id = %(app)s AND t.is_drill"),
)

_STAFF = "of staff: nobody logs in as a drill"
_WHOLE = "of the whole system, not of one campaign"
STAYS: dict[str, str] = {
    "auth_group": _STAFF,
    "auth_group_permissions": _STAFF,
    "auth_permission": _STAFF,
    "auth_user_groups": _STAFF,
    "auth_user_user_permissions": _STAFF,
    "axes_accessattempt": _STAFF,
    "axes_accessattemptexpiration": _STAFF,
    "axes_accessfailurelog": _STAFF,
    "axes_accesslog": _STAFF,
    "django_admin_log": _STAFF,
    "django_session": _STAFF,
    "otp_totp_totpdevice": _STAFF,
    "campaign_campaigntemplate": _WHOLE,
    "django_content_type": _WHOLE,
    "django_migrations": _WHOLE,
    "packets_riskrule": _WHOLE,
    "packets_stockcheck": _WHOLE,
    "referrals_riskpolicy": _WHOLE,
    "referrals_risktrial": _WHOLE,
    "engine_auditevent": "what was done stays said, the drill and its removal too",
    "engine_audithead": "the end of the audit log",
}


def rows() -> list[Rows]:
    return [one for entry in PLAN for one in (entry if isinstance(entry, tuple) else (entry,))]
