"""What can be read: campaigns, packets, proofs, one's own claims and wallet."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from campaign import services
from campaign.models import Campaign
from engine.lib import clock
from engine.models import ClientApp
from packets import proof, revealed, settlement
from packets import services as packet_services
from packets.models import ClaimState, Packet
from tests.api.doors import Door, Visitor, forget_packets
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]


@pytest.fixture
def campaign(app: ClientApp) -> Campaign:
    return stage.live(app, rules_zh="每人一次", name_en="Spring")


@pytest.fixture
def packet(campaign: Campaign) -> Packet:
    return stage.first_packet(campaign)


def claim(visit: Visit, packet: Packet, *names: str) -> list[int]:
    """Each of them claims; the amounts, in order."""
    return [
        visit(name).post(f"/packets/{packet.public_id}/claims").json["claim"]["amount_fen"]
        for name in names
    ]


# --- campaigns


def test_a_live_campaign_is_listed_with_rules_and_packets(
    visit: Visit, campaign: Campaign, packet: Packet
) -> None:
    listed = visit("alice").get("/campaigns")
    alone = visit("alice").get(f"/campaigns/{campaign.slug}")

    assert listed.json == {"results": [alone.json], "next": None}
    assert alone.json == {
        "slug": campaign.slug,
        "name": {"zh": "春节红包", "en": "Spring"},
        "state": "live",
        "starts_at": clock.rfc3339(campaign.starts_at),
        "ends_at": clock.rfc3339(campaign.ends_at),
        "timezone": "Asia/Shanghai",
        "currency": "CNY",
        "rules": {"zh": "每人一次", "en": ""},
        "disclosure": f"{settings.BASE_URL}/d/{campaign.slug}",
        "packets": [
            {
                "id": packet.public_id,
                "name": "",
                "kind": "lucky",
                "total_fen": 10_000,
                "count": 10,
                "currency": "CNY",
                "opens_at": clock.rfc3339(packet.opens_at),
                "closes_at": clock.rfc3339(packet.closes_at),
                "ticket_required": False,
                "round": None,
            }
        ],
    }
    assert "budget" not in str(alone.json)


def test_what_is_known_is_not_sent_again(visit: Visit, campaign: Campaign) -> None:
    path = f"/campaigns/{campaign.slug}"
    etag = visit("alice").get(path).headers["ETag"]

    same = visit("alice").get(path, **{"If-None-Match": etag})
    weak = visit("alice").get(path, **{"If-None-Match": f'"other", W/{etag}'})
    services.campaign_pause(campaign_id=campaign.pk, actor="x")
    changed = visit("alice").get(path, **{"If-None-Match": etag})

    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", etag)
    assert weak.status == 304
    assert (changed.status, changed.json["state"]) == (200, "paused")
    assert changed.headers["ETag"] != etag


def test_a_draft_an_ended_one_and_another_apps_are_not_listed(visit: Visit, app: ClientApp) -> None:
    draft, ended, foreign = stage.draft(app), stage.live(app), stage.live(stage.make_app())
    services.campaign_end(campaign_id=ended.pk, actor="x")

    assert visit("alice").get("/campaigns").json["results"] == []
    assert visit("alice").get(f"/campaigns/{ended.slug}").json["state"] == "ended"
    for hidden in (draft.slug, foreign.slug, "nonsense", "%00", "a" * 300):
        assert visit("alice").get(f"/campaigns/{hidden}").code == "not_found"


def test_pages_of_campaigns(visit: Visit, app: ClientApp) -> None:
    slugs = [stage.live(app).slug for _ in range(5)]
    seen, path = [], "/campaigns?limit=2"
    while path:
        page = visit("alice").get(path).json
        seen += [row["slug"] for row in page["results"]]
        path = page["next"].split("/api/v1")[1] if page["next"] else ""

    assert seen == slugs[::-1]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=-1", "?limit"),
        ("limit=1.5", "?limit"),
        ("limit=ten", "?limit"),
        ("cursor=nonsense", "?cursor"),
        ("cursor=", "?cursor"),
    ],
)
@pytest.mark.parametrize("path", ["/campaigns", "/me/claims", "/me/wallet/transfers"])
def test_a_page_that_does_not_exist(visit: Visit, path: str, query: str, pointer: str) -> None:
    answer = visit("alice").get(f"{path}?{query}")
    assert (answer.status, answer.code, answer.pointers[0][0]) == (422, "invalid", pointer)


def test_listing_campaigns_costs_the_same_for_one_and_for_many(
    visit: Visit, app: ClientApp
) -> None:
    stage.live(app)
    visit("alice").get("/campaigns")
    with CaptureQueriesContext(connection) as one:
        visit("alice").get("/campaigns")
    for _ in range(4):
        stage.add_packet(stage.live(app))
    with CaptureQueriesContext(connection) as many:
        visit("alice").get("/campaigns")

    # Not the caller's key, which is read again every few seconds.
    def asked(queries: CaptureQueriesContext) -> int:
        return sum("campaign_" in query["sql"] for query in queries)

    assert asked(many) == asked(one) > 0


# --- packets


def test_a_packet_as_alice_sees_it(visit: Visit, packet: Packet) -> None:
    before = visit("alice").get(f"/packets/{packet.public_id}").json
    amounts = claim(visit, packet, "alice", "bo", "carol")
    forget_packets()
    after = visit("alice").get(f"/packets/{packet.public_id}").json

    assert before["claim"] is None and before["left_count"] == 10
    assert (after["state"], after["kind"], after["count"], after["left_count"]) == (
        "open",
        "lucky",
        10,
        7,
    )
    assert after["claim"]["amount_fen"] == amounts[0]
    assert [(c["who"], c["amount_fen"]) for c in after["recent_claims"]] == [
        ("c***l", amounts[2]),
        ("b***", amounts[1]),
        ("a***e", amounts[0]),
    ]
    assert after["seed_commitment"] == packet.commitment
    assert (after["seed"], after["luckiest"]) == (None, None)


def test_a_finished_packet_names_the_luckiest_and_a_closed_one_reveals_its_seed(
    visit: Visit, packet: Packet
) -> None:
    names = [f"user{i}" for i in range(10)]
    amounts = claim(visit, packet, *names)
    forget_packets()
    sold_out = visit("alice").get(f"/packets/{packet.public_id}").json
    packet_services.packet_close(packet_id=packet.pk, actor="x")
    closed = visit("alice").get(f"/packets/{packet.public_id}").json

    best = max(amounts)
    assert sold_out["state"] == "sold_out" and sold_out["seed"] is None
    assert sold_out["luckiest"]["amount_fen"] == best
    assert sold_out["luckiest"]["who"] == f"u***{amounts.index(best)}"
    assert closed["state"] == "closed"
    assert len(closed["seed"]) == 32


@pytest.mark.parametrize(
    ("packet_state", "lane_states"),
    [
        ("open", ["closed", "closed"]),
        ("paused", ["closed", "closed"]),
        ("closed", ["closed", "open"]),
        ("closed", ["loading", "closed"]),
    ],
)
def test_nothing_is_revealed_before_the_packet_and_each_lane_are_closed(
    visit: Visit, app: ClientApp, packet_state: str, lane_states: list[str]
) -> None:
    """Half a closing: whatever left it so, the seed and the beacon stay secret."""
    campaign = stage.draft(app)
    packet = stage.add_packet(campaign, 10_000, 10, lane_count=2)
    stage.launch(campaign)
    Packet.objects.filter(pk=packet.pk).update(state=packet_state)
    for number, state in enumerate(lane_states):
        packet.lanes.filter(number=number).update(state=state)

    seen = visit("alice").get(f"/packets/{packet.public_id}")
    proof_asked = visit("alice").get(f"/packets/{packet.public_id}/proof")

    assert seen.json["seed"] is None
    assert (proof_asked.status, proof_asked.code) == (409, "conflict")
    packet.refresh_from_db()
    assert packet.beacon and packet.beacon.encode() not in seen.body + proof_asked.body


def test_states_of_a_packet(visit: Visit, app: ClientApp) -> None:
    campaign = stage.draft(app)
    soon = stage.add_packet(campaign, opens_at=clock.now() + dt.timedelta(minutes=5))
    stage.launch(campaign)
    path = f"/packets/{soon.public_id}"
    states = [visit("alice").get(path).json["state"]]

    services.campaign_pause(campaign_id=campaign.pk, actor="x")
    states.append(visit("alice").get(path).json["state"])
    services.campaign_kill(campaign_id=campaign.pk, actor="x")
    states.append(visit("alice").get(path).json["state"])

    assert states == ["scheduled", "paused", "closed"]


# --- proof


def test_the_proof_comes_after_closing_and_holds(
    visit: Visit, packet: Packet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/packets/{packet.public_id}/proof"
    amounts = claim(visit, packet, "alice", "bob", "carol")
    early = visit("alice").get(path)
    packet_services.packet_close(packet_id=packet.pk, actor="x")

    whole = visit("bob").get(path).json

    assert (early.status, early.code) == (409, "conflict")
    assert proof.recompute({k: v for k, v in whole.items() if k != "next"}) == []
    assert [c["amount_fen"] for c in whole["claims"]] == amounts
    whole["claims"][0]["amount_fen"] += 1
    assert proof.recompute({k: v for k, v in whole.items() if k != "next"}) != []


def test_a_long_proof_comes_in_pages_that_fit_together(
    visit: Visit, app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = stage.draft(app)
    packet = stage.add_packet(campaign, 10_000, 30, lane_count=3)
    stage.launch(campaign)
    for number in range(60):
        visit(f"user{number}").post(f"/packets/{packet.public_id}/claims")
    packet_services.packet_close(packet_id=packet.pk, actor="x")
    whole = revealed.record(packet)
    monkeypatch.setattr(revealed.record_claims, "__defaults__", (7,))

    claims, path = [], f"/packets/{packet.public_id}/proof"
    pages = 0
    while path:
        page = visit("alice").get(path).json
        claims += page["claims"]
        pages += 1
        path = page["next"].split("/api/v1")[1] if page["next"] else ""

    assert pages >= 4
    assert claims == whole["claims"] and len(claims) == packet.lanes.get(number=0).claimed_count + (
        packet.lanes.get(number=1).claimed_count + packet.lanes.get(number=2).claimed_count
    )
    assert proof.recompute({**page, "claims": claims}) == []
    assert visit("alice").get(f"/packets/{packet.public_id}/proof?cursor=x").code == "invalid"


def test_there_is_no_proof_of_what_is_not_mine_to_see(visit: Visit, packet: Packet) -> None:
    packet_services.packet_close(packet_id=packet.pk, actor="x")
    stranger = visit("alice", of=stage.make_app())
    assert stranger.get(f"/packets/{packet.public_id}/proof").code == "not_found"
    assert visit("alice").get("/packets/nonsense/proof").code == "not_found"


# --- mine


def test_a_claim_on_its_way_to_the_wallet(visit: Visit, packet: Packet) -> None:
    (amount_fen,) = claim(visit, packet, "alice")
    on_its_way = visit("alice").get("/me/wallet").json, visit("alice").get("/me/claims").json
    for lane in packet.lanes.all():
        settlement.settle_lane(lane.pk)
    there = visit("alice").get("/me/wallet").json, visit("alice").get("/me/claims").json

    assert on_its_way[0] == {
        "available_fen": 0,
        "pending_fen": amount_fen,
        "held_fen": 0,
        "withdrawing_fen": 0,
        "currency": "CNY",
    }
    assert [c["status"] for c in on_its_way[1]["results"]] == ["committed"]
    assert (there[0]["available_fen"], there[0]["pending_fen"]) == (amount_fen, 0)
    assert [c["status"] for c in there[1]["results"]] == ["settled"]
    (movement,) = visit("alice").get("/me/wallet/transfers").json["results"]
    assert (movement["kind"], movement["amount_fen"], movement["claim"]) == (
        "settle",
        amount_fen,
        there[1]["results"][0]["id"],
    )


def test_a_parked_claim_is_still_the_winners(visit: Visit, packet: Packet) -> None:
    (amount_fen,) = claim(visit, packet, "alice")
    lane = packet.lanes.get()
    ClaimState.objects.create(claim=lane.claims.get(), state="parked", reason="refused")

    assert visit("alice").get("/me/claims").json["results"][0]["status"] == "committed"
    assert visit("alice").get("/me/wallet").json["pending_fen"] == amount_fen


def test_bob_sees_nothing_of_alices(visit: Visit, packet: Packet) -> None:
    claim(visit, packet, "alice")
    settlement.settle_lane(packet.lanes.get().pk)
    same_name = visit("alice", of=stage.make_app())

    for other in (visit("bob"), same_name):
        assert other.get("/me/claims").json == {"results": [], "next": None}
        assert other.get("/me/wallet").json["available_fen"] == 0
        assert other.get("/me/wallet/transfers").json["results"] == []
    # There is no address for another person's: what looks like one does not exist.
    for guess in ("/me/claims/alice", "/me/wallet?user=alice", "/users/alice/wallet"):
        answer = visit("bob").get(guess)
        assert answer.status == 404 or answer.json["available_fen"] == 0


def test_a_cursor_of_alices_shows_bob_only_his(visit: Visit, app: ClientApp) -> None:
    campaign = stage.draft(app, budget_fen=100_000)
    packets = [stage.add_packet(campaign, 1_000, 2) for _ in range(3)]
    stage.launch(campaign)
    for packet in packets:
        claim(visit, packet, "alice", "bob")
    following = visit("alice").get("/me/claims?limit=1").json["next"].split("/api/v1")[1]

    mine = visit("bob").get(following).json["results"]

    ids = {c["id"] for c in visit("alice").get("/me/claims").json["results"]}
    assert not ids & {c["id"] for c in mine}


def test_reading_claims_costs_the_same_for_one_and_for_many(
    visit: Visit, door: Door, app: ClientApp
) -> None:
    campaign = stage.draft(app, budget_fen=100_000)
    packets = [stage.add_packet(campaign, 1_000, 2) for _ in range(6)]
    stage.launch(campaign)
    claim(visit, packets[0], "alice")
    visit("alice").get("/me/claims")
    with CaptureQueriesContext(connection) as one:
        visit("alice").get("/me/claims")
    for packet in packets[1:]:
        claim(visit, packet, "alice")
    with CaptureQueriesContext(connection) as many:
        assert len(visit("alice").get("/me/claims").json["results"]) == 6

    assert len(many) == len(one)
