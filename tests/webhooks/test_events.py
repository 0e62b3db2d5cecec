"""Who emits what: settlement, campaigns and payouts, in the shapes that the docs promise."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from campaign import services
from campaign.models import Campaign
from campaign.tasks import exhausted_sweep
from engine.lib import ids
from engine.lib.outbox import EventKind
from engine.models import ClientApp, OutboxEvent, WebhookDelivery
from engine.webhooks.models import SUBSCRIBABLE
from engine.webhooks.openapi import webhooks
from engine.webhooks.shapes import SHAPES
from engine.webhooks.signing import secret_text, signed_headers
from packets import settlement
from packets.holds import editing
from packets.holds.resolving import hold_forfeit, hold_release
from packets.models import Claim, Hold, Lane, LaneCursor, Participant, Payout, RiskRule
from packets.settlement import settle_lane
from tests.campaign import stage as campaigns
from tests.factories import make_claims, make_packet
from tests.packets.payouts import stage as payouts
from tests.webhooks.stage import OLD_SECRET, SECRET, make_app, make_endpoint
from tests.world import APP

pytestmark = pytest.mark.django_db(transaction=True)


def told(kind: EventKind) -> list[OutboxEvent]:
    """The events of this kind, each of the shape that is promised."""
    found = list(OutboxEvent.objects.filter(kind=kind).order_by("key", "client_app"))
    for event in found:
        msgspec.convert(event.payload, SHAPES[kind], strict=True)
        assert set(event.payload) == set(SHAPES[kind].__struct_fields__)
        assert event.deliveries.count() == 1
    return found


def test_every_kind_has_a_shape_and_stands_in_the_document() -> None:
    assert set(SHAPES) == set(EventKind)
    document = webhooks({})
    assert set(document["webhooks"]) == set(EventKind)
    text = str(document)
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named <= set(document["components"]["schemas"])


def test_the_docs_name_every_kind_and_their_receiver_works() -> None:
    """The ten lines that integrators copy: they take what we sign and nothing else."""
    text = (Path(settings.BASE_DIR) / "docs" / "webhooks.md").read_text(encoding="utf-8")
    for kind in SUBSCRIBABLE:
        assert f"`{kind}`" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    body, at = b'{"type": "payout.paid"}', int(time.time())
    headers = signed_headers([SECRET, OLD_SECRET], "evt", at, body)
    for secret in (SECRET, OLD_SECRET):
        assert names["verified"](secret_text(secret), headers, body) == {"type": "payout.paid"}
    for wrong in (
        {**headers, "webhook-id": "other"},
        {**headers, "webhook-timestamp": str(at - 301)},
        {**headers, "webhook-signature": "v1,AAAA"},
    ):
        with pytest.raises(ValueError):
            names["verified"](secret_text(SECRET), wrong, body)
    with pytest.raises(ValueError):
        names["verified"](secret_text(SECRET), headers, body + b" ")


# --- claims ---------------------------------------------------------------------------------------


def claims_of(app: ClientApp, lane: Lane, names: list[str]) -> list[Claim]:
    digests = {name: ids.participant_digest(app.pk, name) for name in names}
    Participant.objects.bulk_create(
        Participant(digest=digest, client_app_id=app.pk, subject=name)
        for name, digest in digests.items()
    )
    return make_claims(lane, len(names), participants=list(digests.values()))


def test_settled_claims_are_told_to_the_app_whose_person_it_was() -> None:
    shop, other = make_app("shop"), make_app("other")
    make_endpoint(shop, kinds=[EventKind.CLAIM_SETTLED])
    make_endpoint(other, kinds=[EventKind.PAYOUT_PAID])
    lane = make_packet(count=10, portion_fen=100).lanes.get()
    mine = claims_of(shop, lane, ["alice", "小明"])
    claims_of(other, lane, ["bob"])

    assert settle_lane(lane.id).settled == 3

    events = told(EventKind.CLAIM_SETTLED)
    assert {event.client_app_id for event in events} == {shop.pk}
    assert {event.key for event in events} == {claim.id.hex for claim in mine}
    assert {event.payload["user"] for event in events} == {"alice", "小明"}
    first = next(event for event in events if event.payload["user"] == "alice")
    claim = next(claim for claim in mine if claim.id.hex == first.key)
    claim.refresh_from_db()
    assert first.payload == {
        "claim": claim.id.hex,
        "packet": claim.packet_id.hex,
        "user": "alice",
        "amount_fen": 100,
        "currency": "CNY",
        "claimed_at": claim.committed_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def test_settling_again_tells_nothing_twice() -> None:
    shop = make_app()
    make_endpoint(shop, kinds=[EventKind.CLAIM_SETTLED])
    lane = make_packet(count=10).lanes.get()
    claims_of(shop, lane, ["alice"])
    settle_lane(lane.id)
    claims_of(shop, lane, ["bob"])
    # As if the cursor's move had been lost: both are looked at, one has been paid already.
    LaneCursor.objects.filter(lane=lane).update(settled_count=0)
    assert settle_lane(lane.id).settled == 1
    assert {event.payload["user"] for event in told(EventKind.CLAIM_SETTLED)} == {"alice", "bob"}
    assert OutboxEvent.objects.count() == WebhookDelivery.objects.count() == 2


def test_a_parked_claim_is_told_when_it_is_paid(superuser_dsn: str) -> None:
    """Its wallet refuses the credit; the neighbours are told at once, it is told after the cure."""
    shop = make_app()
    make_endpoint(shop, kinds=[EventKind.CLAIM_SETTLED])
    lane = make_packet(count=10).lanes.get()
    claims_of(shop, lane, ["alice", "bob", "cem"])
    bob = ids.participant_digest(shop.pk, "bob").hex()
    with psycopg.connect(superuser_dsn, autocommit=True) as link:
        link.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF NEW.owner = '{bob}' THEN RAISE EXCEPTION 'no wallet for bob'; END IF;"
            " RETURN NEW; END $$"
        )
        link.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON packets_account"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        try:
            assert settle_lane(lane.id).parked == 1
        finally:
            link.execute("DROP FUNCTION refuse CASCADE")
    assert {event.payload["user"] for event in told(EventKind.CLAIM_SETTLED)} == {"alice", "cem"}
    assert settlement.retry_parked().settled == 1
    assert len(told(EventKind.CLAIM_SETTLED)) == 3


def test_a_held_claim_is_told_when_it_is_released() -> None:
    shop = make_app()
    make_endpoint(shop, kinds=[EventKind.CLAIM_SETTLED])
    wanted = editing.Wanted(kind=RiskRule.Kind.CLAIMS_PER_PERSON, most=1, window_s=3_600)
    editing.rule_set(wanted=wanted, actor="x")
    lane = make_packet(count=10).lanes.get()
    [first] = claims_of(shop, lane, ["alice"])
    for serial in (1, 2):
        make_claims(lane, 1, participants=[bytes(first.participant)], serial=serial)
    assert settle_lane(lane.id).held == 2
    assert {event.key for event in told(EventKind.CLAIM_SETTLED)} == {first.id.hex}

    released, forfeited = Hold.objects.order_by("claim__position")
    hold_release(hold_id=released.pk, actor="x", reason="one of us")
    hold_forfeit(hold_id=forfeited.pk, actor="x", reason="a farm")

    assert released.claim_id is not None
    keys = {event.key for event in told(EventKind.CLAIM_SETTLED)}
    assert keys == {first.id.hex, released.claim_id.hex}


def test_settlement_that_nobody_listens_to_pays_one_look() -> None:
    shop = make_app()
    lane = make_packet(count=500).lanes.get()
    claims_of(shop, lane, [f"p{number}" for number in range(400)])
    with CaptureQueriesContext(connection) as queries:
        settle_lane(lane.id)
    about = [row["sql"] for row in queries if "engine_" in row["sql"]]
    assert len(about) == 1 and about[0].lstrip().startswith("SELECT EXISTS")
    assert OutboxEvent.objects.count() == 0


# --- payouts --------------------------------------------------------------------------------------


def test_a_payout_is_told_when_it_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paid, or failed with its money back; in between nothing is told."""
    shop = ClientApp.objects.create(pk=APP, slug="shop", name="Shop")
    make_endpoint(shop, kinds=[EventKind.PAYOUT_PAID, EventKind.PAYOUT_FAILED])
    rail = payouts.use(monkeypatch, payouts.Rail())
    account = payouts.provider_account("rail")
    paid, failed = (payouts.payout_of(account, name, 500) for name in ("alice", "bob"))
    Participant.objects.create(digest=bytes(paid.participant), client_app_id=APP, subject="alice")

    rail.says(payouts.ACCEPTED)
    payouts.step(paid)
    assert OutboxEvent.objects.count() == 0
    Payout.objects.filter(pk=failed.pk).update(next_attempt_at=None, manual_reason="review",
                                               manual_at=Now())  # fmt: skip
    rail.says(payouts.PAID)
    payouts.step(paid)
    Payout.objects.filter(pk=failed.pk).update(
        next_attempt_at=Now(), manual_reason="", manual_at=None
    )
    rail.says(payouts.FAILED)
    payouts.step(failed)

    about = {"amount_fen": 500, "currency": "CNY", "provider": "rail"}
    [event] = told(EventKind.PAYOUT_PAID)
    assert event.payload == {"payout": paid.pk.hex, "user": "alice", "state": "paid", **about}
    [event] = told(EventKind.PAYOUT_FAILED)
    assert (event.payload["payout"], event.payload["user"]) == (failed.pk.hex, None)
    assert event.payload["state"] == "failed" and event.payload["failure"]


# --- campaigns ------------------------------------------------------------------------------------


def listening(*kinds: EventKind) -> ClientApp:
    app = campaigns.make_app()
    make_endpoint(app, kinds=kinds)
    return app


def test_a_campaign_is_told_at_its_start_and_at_its_end() -> None:
    app = listening(EventKind.CAMPAIGN_LAUNCHED, EventKind.CAMPAIGN_ENDED)
    campaign = campaigns.live(app)
    [launched] = told(EventKind.CAMPAIGN_LAUNCHED)
    assert launched.payload == {"campaign": campaign.slug, "state": "live"}

    services.campaign_pause(campaign_id=campaign.pk, actor="x")
    services.campaign_resume(campaign_id=campaign.pk, actor="x")
    assert told(EventKind.CAMPAIGN_ENDED) == []
    services.campaign_end(campaign_id=campaign.pk, actor="x")
    [ended] = told(EventKind.CAMPAIGN_ENDED)
    assert ended.payload == {"campaign": campaign.slug, "state": "ended"}


def test_a_killed_campaign_is_told_as_killed() -> None:
    campaign = campaigns.live(listening(EventKind.CAMPAIGN_ENDED))
    services.campaign_kill(campaign_id=campaign.pk, actor="x")
    [ended] = told(EventKind.CAMPAIGN_ENDED)
    assert ended.payload["state"] == "killed"


def test_a_campaign_that_ran_dry_is_told_once_for_each_time() -> None:
    app = listening(EventKind.CAMPAIGN_EXHAUSTED)
    campaign = campaigns.draft(app)
    campaigns.add_packet(campaign, 1_000, 10, strategy="fixed")
    campaigns.launch(campaign)
    assert exhausted_sweep() == 0, "nobody has claimed anything"
    lanes = Lane.objects.filter(packet__campaign_link__campaign=campaign)
    empty(campaign)
    assert exhausted_sweep() == 1
    assert exhausted_sweep() == 0
    [event] = told(EventKind.CAMPAIGN_EXHAUSTED)
    assert event.payload["claimed_count"] == sum(lane.count for lane in lanes)
    assert event.payload["claimed_fen"] == sum(lane.total_fen for lane in lanes)

    # A top-up brings a further packet, which runs dry as well.
    campaigns.add_packet(Campaign.objects.get(pk=campaign.pk), 500, 5, strategy="fixed")
    assert exhausted_sweep() == 0
    empty(campaign)
    assert exhausted_sweep() == 1
    counts = {event.payload["claimed_count"] for event in told(EventKind.CAMPAIGN_EXHAUSTED)}
    assert counts == {10, 15}


def empty(campaign: Campaign) -> None:
    """Somebody claims each of the portions."""
    for lane in Lane.objects.filter(packet__campaign_link__campaign=campaign):
        if lane.count > lane.claimed_count:
            make_claims(lane, lane.count - lane.claimed_count)


def test_who_does_not_listen_costs_nothing() -> None:
    campaigns.live(campaigns.make_app())
    with CaptureQueriesContext(connection) as queries:
        assert exhausted_sweep() == 0
    assert len(queries) == 1
    assert OutboxEvent.objects.count() == 0
