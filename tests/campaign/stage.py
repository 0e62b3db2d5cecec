"""Campaigns for stories: an app with keys, a campaign with a packet, people with tokens."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User

from campaign import channel_rules, services
from campaign.models import (
    Campaign,
    CampaignApproval,
    CampaignTemplate,
    TargetUpload,
    TopUp,
)
from campaign.services.common import EDITABLE
from campaign.versions import version_hash
from engine.lib import auth, clock
from engine.models import AuditEvent, ClientApp, ForcedOutcome
from engine.services import api_key_create, client_key_create
from packets.models import (
    Account,
    Difference,
    Gate,
    Hold,
    LimitRule,
    Packet,
    Payout,
    PayoutMark,
    ProviderAccount,
    ProviderChange,
    RiskRule,
    Statement,
    Transfer,
)

ACTOR = "staff:ann"
PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)


def make_app(slug: str = "") -> ClientApp:
    """A client app with one HS256 key."""
    app = ClientApp.objects.create(slug=slug or f"app-{next(_numbers)}", name="An app")
    client_key_create(client_app=app, actor="test")
    return app


def api_key(app: ClientApp, *scopes: str) -> str:
    return api_key_create(client_app=app, scopes=scopes, name="test", actor="test").secret


def draft(app: ClientApp | None = None, budget_fen: int = 100_000, **fields: Any) -> Campaign:
    """A draft that started a minute ago and ends in an hour."""
    now = clock.now()
    fields.setdefault("slug", f"campaign-{next(_numbers)}")
    fields.setdefault("name_zh", "春节红包")
    fields.setdefault("starts_at", now - dt.timedelta(minutes=1))
    fields.setdefault("ends_at", now + dt.timedelta(hours=1))
    return services.campaign_create(
        budget_fen=budget_fen, client_apps=[(app or make_app()).pk], actor=ACTOR, **fields
    )


def add_packet(
    campaign: Campaign, total_fen: int = 10_000, count: int = 10, **rules: Any
) -> Packet:
    """A further packet; one of a running campaign is asked for by Ann and granted by Bob."""
    campaign.refresh_from_db()
    if campaign.state in EDITABLE:
        return services.campaign_packet_add(
            campaign_id=campaign.pk, actor=ACTOR, total_fen=total_fen, count=count, **rules
        )
    top_up(campaign, 0, {"total_fen": total_fen, "count": count, **rules})
    return Packet.objects.filter(campaign_link__campaign=campaign).order_by(
        "-campaign_link__order"
    )[0]


@functools.cache
def _password_hash() -> str:
    """Of everybody's password: hashing takes its time on purpose, so it is done once."""
    return make_password(PASSWORD)


def member(group: str = "operations", name: str = "") -> User:
    """Somebody of the staff's groups; the same person for the same name."""
    name = name or group
    user = User.objects.filter(username=name).first()
    if user is None:
        user = User.objects.create(username=name, password=_password_hash(), is_staff=True)
        user.groups.add(Group.objects.get(name=group))
    return user


def ready(campaign: Campaign) -> Campaign:
    """The draft with the texts that a review asks for, and the platforms' rules read by Ann."""
    if unread := channel_rules.acknowledgements(campaign):
        services.channels_acknowledge(
            campaign_id=campaign.pk,
            versions={one.rule.channel.value: one.rule.version for one in unread},
            by=member("operations", "ann"),
        )
    for name, words in {"rules_zh": "每人限领一次", "odds_zh": "人人有份"}.items():
        Campaign.objects.filter(pk=campaign.pk, **{name: ""}).update(**{name: words})
    return Campaign.objects.get(pk=campaign.pk)


def submit(campaign: Campaign) -> Campaign:
    ready(campaign)
    return services.campaign_submit(campaign_id=campaign.pk, by=member("operations", "ann"))


def approve(campaign: Campaign) -> Campaign:
    """Handed in by Ann, approved by Bob: scheduled, or live where its time has come."""
    submit(campaign)
    campaign = Campaign.objects.get(pk=campaign.pk)
    return services.campaign_approve(
        campaign_id=campaign.pk, version_hash=version_hash(campaign), by=member("approver", "bob")
    )


launch = approve  # a campaign of these stories began a minute ago


def scheduled(app: ClientApp | None = None, budget_fen: int = 100_000, **fields: Any) -> Campaign:
    """An approved campaign that may be launched by hand; the clock would in an hour."""
    now = clock.now()
    fields.setdefault("starts_at", now + dt.timedelta(hours=1))
    fields.setdefault("ends_at", now + dt.timedelta(hours=2))
    campaign = draft(app, budget_fen, **fields)
    add_packet(campaign)
    return approve(campaign)


def top_up(campaign: Campaign, extra_fen: int, *packets: dict[str, Any]) -> TopUp:
    """Asked by Ann, approved by Bob."""
    asked = services.top_up_request(
        campaign_id=campaign.pk,
        extra_fen=extra_fen,
        packets=packets,
        reason="more people than we thought",
        by=member("operations", "ann"),
    )
    return services.top_up_approve(top_up_id=asked.pk, by=member("approver", "bob"))


def live(app: ClientApp | None = None, budget_fen: int = 100_000, **fields: Any) -> Campaign:
    """A launched campaign with one lucky packet of 10,000 fen in ten portions."""
    campaign = draft(app, budget_fen, **fields)
    add_packet(campaign)
    return launch(campaign)


def first_packet(campaign: Campaign) -> Packet:
    return Packet.objects.filter(campaign_link__campaign=campaign).order_by("campaign_link__order")[
        0
    ]


def everything() -> dict[str, Any]:
    """All rows that a refused act must leave as they were."""
    return {
        "campaigns": list(Campaign.objects.order_by("id").values()),
        "packets": list(Packet.objects.order_by("id").values()),
        "accounts": list(Account.objects.order_by("id").values()),
        "approvals": list(CampaignApproval.objects.order_by("id").values()),
        "top_ups": list(TopUp.objects.order_by("id").values()),
        "uploads": list(TargetUpload.objects.order_by("id").values()),
        "templates": list(CampaignTemplate.objects.order_by("id").values()),
        "forced": list(ForcedOutcome.objects.order_by("id").values()),
        "limits": list(LimitRule.objects.order_by("id").values()),
        "payouts": list(Payout.objects.order_by("id").values()),
        "providers": list(ProviderAccount.objects.order_by("id").values()),
        "marks": list(PayoutMark.objects.order_by("id").values()),
        "changes": list(ProviderChange.objects.order_by("id").values()),
        "statements": list(Statement.objects.order_by("id").values()),
        "differences": list(Difference.objects.order_by("id").values()),
        "gates": list(Gate.objects.order_by("id").values()),
        "holds": list(Hold.objects.order_by("id").values()),
        "risk_rules": list(RiskRule.objects.order_by("id").values()),
        "transfers": list(Transfer.objects.order_by("id").values()),
        "audit": AuditEvent.objects.count(),
    }


def audited(campaign: Campaign) -> list[str]:
    return list(
        AuditEvent.objects.filter(object_type="campaign", object_id=campaign.pk.hex)
        .order_by("id")
        .values_list("action", flat=True)
    )


def token(app: ClientApp, user: str = "alice", **claims: Any) -> str:
    """A good client token, or one with the given claims instead (None leaves a claim out)."""
    key = app.keys.first()
    assert key is not None
    held = auth.keys_load()[key.kid]
    body: dict[str, Any] = {
        "sub": user,
        "aud": auth.AUDIENCE,
        "exp": int(clock.now().timestamp()) + 300,
        **claims,
    }
    return auth.sign_client_token(
        kid=key.kid,
        alg=key.alg,
        material=held.material,
        claims={name: value for name, value in body.items() if value is not None},
    )
