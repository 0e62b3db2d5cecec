"""Campaigns for stories: an app with keys, a campaign with a packet, people with tokens."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

from campaign import services
from campaign.models import Campaign
from engine.lib import auth, clock
from engine.models import AuditEvent, ClientApp
from engine.services import api_key_create, client_key_create
from packets.models import Account, Packet, Transfer

ACTOR = "staff:ann"
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
    return services.campaign_packet_add(
        campaign_id=campaign.pk, actor=ACTOR, total_fen=total_fen, count=count, **rules
    )


def live(app: ClientApp | None = None, budget_fen: int = 100_000, **fields: Any) -> Campaign:
    """A launched campaign with one lucky packet of 10,000 fen in ten portions."""
    campaign = draft(app, budget_fen, **fields)
    add_packet(campaign)
    return services.campaign_launch(campaign_id=campaign.pk, actor=ACTOR)


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
