"""A house in full swing: a row behind every screen, and somebody who may see them all."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import Group, User
from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice

from campaign import services
from campaign.models import Campaign, CampaignTemplate, TopUp
from engine.lib import clock
from engine.models import ClientApp, IdempotencyRecord
from engine.staff.reauth import SESSION_KEY as PASSWORD_AT
from engine.staff.sessions import BEGAN, SEEN
from packets import settlement
from packets.tickets import ticket_issue
from tests import world
from tests.campaign import stage

# What people have typed, in both languages; it stands on the pages of either.
NAMES = {"name_zh": "除夕红包雨", "name_en": "Lantern Night"}
ROOT = "tiny-root"
TYPED = [*NAMES.values(), "每人限领一次", "人人有份", "春节红包", "An app", "加预算"]


def furnish() -> list[str]:
    """Fill every table; returns the texts that people have typed."""
    app = stage.make_app("app-1")
    stage.api_key(app, "ops")
    running = stage.live(app, 1_000_000, slug="lantern-1", **NAMES)
    for who in ("xiaoming-1", "xiaohong-2"):
        world.claim(stage.first_packet(running), world.person(who, app.pk))
    settlement.settle_due(max_batches=10)
    ticketed = stage.draft(app, slug="lantern-6", **NAMES)
    ticketed_packet = stage.add_packet(ticketed, needs_ticket=True)
    stage.launch(ticketed)
    ticket_issue(
        packet_id=ticketed_packet.pk,
        client_app_id=app.pk,
        subject="xiaoming-1",
        key="mission-1",
        reason="加预算",
    )
    stage.scheduled(app, slug="lantern-2", **NAMES)
    stage.add_packet(
        draft := stage.draft(app, slug="lantern-3", **NAMES),
        strategy="tiers",
        tiers=[(500, 2)],
        max_fen=5_000,
        targeted=True,
        group="group-1",
        new_only=True,
        min_account_age_days=3,
        password="芝麻开门",
    )
    services.rain_create(
        campaign_id=draft.pk,
        **NAMES,
        first_at=draft.starts_at,
        rounds=2,
        interval_s=600,
        length_s=60,
        total_fen=1_000,
        count=10,
        actor=stage.ACTOR,
    )
    in_review = stage.draft(app, slug="lantern-4", **NAMES)
    stage.add_packet(in_review)
    stage.submit(in_review)
    over = stage.live(app, slug="lantern-5", **NAMES)
    services.campaign_end(campaign_id=over.pk, actor=stage.ACTOR, reason="加预算")
    services.top_up_request(
        campaign_id=running.pk,
        extra_fen=10_000,
        packets=[],
        reason="加预算",
        by=stage.member("operations", "ann"),
    )
    IdempotencyRecord.objects.create(
        principal="app-1",
        key="key-1",
        route="tokens-1",
        fingerprint="0f" * 16,
        status=200,
        response=b"{}",
        content_type="application/json",
        run=uuid.uuid4(),
        lease_until=clock.now(),
        created_at=clock.now(),
    )
    assert Campaign.objects.count() == 6 and TopUp.objects.count() == 1 and draft.pk
    people = User.objects.values_list("username", flat=True)
    templates = CampaignTemplate.objects.values_list(
        "slug", "name_zh", "name_en", "description_zh", "description_en"
    )
    typed = [*TYPED, *people, *(text for row in templates for text in row), "芝麻开门", ROOT]
    # Headings begin with a capital.
    typed += [text[0].upper() + text[1:] for text in typed if text]
    return sorted(filter(None, typed), key=len, reverse=True)


def everything_allowed(name: str = ROOT) -> Client:
    """A superuser, logged in with the second factor, whose password was typed just now."""
    user = User.objects.create_superuser(name, password=stage.PASSWORD)
    user.groups.set(Group.objects.all())
    device = TOTPDevice.objects.create(user=user, name="phone", confirmed=True)
    client = Client()
    client.force_login(user)
    session = client.session
    now = int(clock.now().timestamp())
    session.update(
        {DEVICE_ID_SESSION_KEY: device.persistent_id, PASSWORD_AT: now, BEGAN: now, SEEN: now}
    )
    session.save()
    return client


def typed(app: ClientApp, **instead: str) -> dict[str, str]:
    """What stands in the form of a new campaign: one lucky packet of ¥500.00 in 100 portions."""
    return {
        "name_zh": NAMES["name_zh"],
        "name_en": NAMES["name_en"],
        "slug": "lantern-9",
        "budget": "1000",
        "timezone": "Asia/Shanghai",
        "starts_at": "2037-02-14T20:00",
        "ends_at": "2037-02-15T20:00",
        "client_apps": str(app.pk),
        "packets-TOTAL_FORMS": "1",
        "packets-INITIAL_FORMS": "0",
        "packets-0-strategy": "lucky",
        "packets-0-remainder": "lucky",
        "packets-0-evenness": "2",
        "packets-0-total": "500",
        "packets-0-count": "100",
        **instead,
    }
