"""A house in full swing: a row behind every screen, and somebody who may see them all."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import Group, User
from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_totp.models import TOTPDevice

from campaign import services
from campaign.models import Campaign, CampaignGrowth, CampaignTemplate, TopUp
from engine.lib import clock
from engine.models import ClientApp, IdempotencyRecord, WebhookDelivery, WebhookEndpoint
from engine.staff.reauth import SESSION_KEY as PASSWORD_AT
from engine.staff.sessions import BEGAN, SEEN
from engine.webhooks.calling import Outcome
from engine.webhooks.deliveries import finish, take
from packets import settlement
from packets.holds.appeals import hold_appeal
from packets.holds.resolving import hold_forfeit
from packets.models import Hold, Packet, ProviderChange, RiskRule
from packets.payouts.manual import payout_mark_ask, payout_query_now
from packets.tickets import ticket_issue
from referrals.analytics.snapshots import snapshot_take
from tests import world
from tests.campaign import stage
from tests.packets.holding import claims_of_one, rule
from tests.packets.payouts.stage import payout_of, provider_account
from tests.webhooks.stage import happen, make_endpoint

# What people have typed, in both languages; it stands on the pages of either.
NAMES = {"name_zh": "除夕红包雨", "name_en": "Lantern Night"}
ROOT = "tiny-root"
TYPED = [
    *(f"https://a-1.example/{number}" for number in range(4)),
    *NAMES.values(),
    "每人限领一次",
    "人人有份",
    "春节红包",
    "An app",
    "加预算",
]


def furnish() -> list[str]:
    """Fill every table; returns the texts that people have typed."""
    app = stage.make_app("app-1")
    stage.api_key(app, "ops")
    running = stage.live(app, 1_000_000, slug="lantern-1", **NAMES)
    for who in ("xiaoming-1", "xiaohong-2"):
        world.claim(stage.first_packet(running), world.person(who, app.pk))
    settlement.settle_due(max_batches=10)
    CampaignGrowth.objects.create(campaign=running)
    snapshot_take(campaign_id=running.pk)
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
    services.growth_edit(
        campaign_id=draft.pk, depth=2, destination="https://a-1.example/5",
        destination_hosts=["a-1.example"], actor=stage.ACTOR,
    )  # fmt: skip
    services.growth_reward_packets_make(
        campaign_id=draft.pk, inviter_fen=100, invitee_fen=50, friends=10, actor=stage.ACTOR
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
    pay_out()
    call_back(app)
    hold_something()
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
    packets = Packet.objects.values_list("name", flat=True)
    typed = [
        *TYPED,
        *people,
        *packets,
        *(text for row in templates for text in row),
        "芝麻开门",
        ROOT,
    ]
    # Headings begin with a capital.
    typed += [text[0].upper() + text[1:] for text in typed if text]
    return sorted(filter(None, typed), key=len, reverse=True)


def call_back(app: ClientApp) -> None:
    """An endpoint that answers and one for each reason to be off; a delivery of each state."""
    host = "https://a-1.example"
    make_endpoint(app, url=f"{host}/0", failing_since=clock.now(), previous_until=clock.now())
    make_endpoint(app, url=f"{host}/1", state="disabled", reason="加预算")
    for number, reason in enumerate(("gone", "failing"), 2):
        make_endpoint(
            app, url=f"{host}/{number}", state="disabled", reason=reason, disabled_by_us=True
        )
    happen(app, 3)
    for outcome in (Outcome(200, 12), Outcome(None, 15_000, error="timeout: at last")):
        taken = take()
        assert taken is not None
        finish(taken, outcome)
        WebhookEndpoint.objects.filter(failing_since=None).update(failing_since=clock.now())
    dead = WebhookDelivery.objects.filter(attempts=0)
    dead.update(state="dead", next_attempt_at=None, finished_at=clock.now())


def pay_out() -> None:
    """A payout of each state and for each reason to wait; one that somebody asks to mark."""
    rail = provider_account(
        "rail-1", rate_per_minute=60, day_limit_fen=50_000, breaker="open",
        breaker_reason="out_of_funds", breaker_until=clock.now(), review_above_fen=10_000,
    )  # fmt: skip
    provider_account("rail-2", is_active=False, opens_at="08:00", closes_at="20:00")
    out = {"step": "query", "first_submitted_at": clock.now(), "last_submitted_at": clock.now()}
    over = {"step": "none", "ended_at": clock.now(), "next_attempt_at": None}
    waits = {"manual_at": clock.now(), "next_attempt_at": None}
    payout_of(rail, "x1")
    payout_of(rail, "x2", state="accepted", **out)
    payout_of(rail, "x3", state="user_action", user_action={}, **out)
    payout_of(rail, "x4", state="failed", failure_code="refused", **over)
    payout_of(rail, "x5", manual_reason="review", review_reasons=["large_amount", "staff"], **waits)
    payout_of(rail, "x6", manual_reason="not_sendable", **waits)
    unknown = {"state": "unknown", **out, **waits}
    again = payout_of(rail, "x7", manual_reason="amount_differs", **unknown)
    asked = payout_of(rail, "x8", manual_reason="too_long", **unknown)
    number = asked.numbers.create(
        number=uuid.uuid4().hex, request_encrypted="", request_sha256="0" * 64
    )
    for kind, result in (("submit", "unknown"), ("query", "pending"), ("callback", "")):
        asked.calls.create(
            number=number, kind=kind, fence=1, result=result, code="SYSTEM_ERROR",
            ended_at=clock.now(),
        )  # fmt: skip
    asked.calls.create(number=number, kind="query", fence=2)
    payout_query_now(payout_id=again.pk, actor="staff:ann", reason="加预算")
    payout_mark_ask(
        payout_id=asked.pk,
        outcome="paid",
        provider_ref="r-1",
        evidence="加预算",
        by=stage.member("operations", "ann"),
    )
    ProviderChange.objects.create(
        account=rail,
        replaced=["base_url"],
        requested_by=stage.member("operations", "ann"),
        reason="加预算",
    )


def hold_something() -> None:
    """A rule of each kind, a hold that was appealed, and one that is decided."""
    for kind in RiskRule.Kind:
        rule(kind, most=150 if kind.startswith("amount") else 1)
    _packet, lane, _who = claims_of_one(3)
    settlement.settle_lane(lane.pk)
    first, second = Hold.objects.order_by("claim__position")
    who = bytes(first.participant)
    hold_appeal(hold_id=first.pk, participant=who, text="每人限领一次", actor="x")
    hold_forfeit(hold_id=second.pk, actor=stage.ACTOR, reason="加预算")


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
