"""Held money through the API: seen by its person alone, and appealed once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.models import ClientApp
from packets import settlement
from packets.holds.appeals import appeal_text
from packets.holds.resolving import hold_forfeit, hold_release
from packets.models import Claim, Hold, HoldAppeal, RiskRule
from tests.api.doors import Visitor
from tests.campaign import stage
from tests.packets.holding import rule

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]


@pytest.fixture
def hold(visit: Visit, app: ClientApp) -> Hold:
    """Alice wins two portions of two packets, and the second is held."""
    rule(RiskRule.Kind.CLAIMS_PER_PERSON, most=1)
    campaign = stage.live(app)
    for packet in (stage.first_packet(campaign), stage.add_packet(campaign)):
        assert visit("alice").post(f"/packets/{packet.public_id}/claims").json["result"] == "won"
        settlement.settle_lane(packet.lanes.get().pk)
    return Hold.objects.get()


def test_alice_sees_what_is_held_and_why(visit: Visit, hold: Hold) -> None:
    alice = visit("alice")
    wallet = alice.get("/me/wallet").json
    first, second = Claim.objects.order_by("committed_at").values_list("amount_fen", flat=True)
    assert (wallet["available_fen"], wallet["pending_fen"], wallet["held_fen"]) == (
        first, 0, second,
    )  # fmt: skip
    statuses = [claim["status"] for claim in alice.get("/me/claims").json["results"]]
    assert statuses == ["held", "settled"]
    [seen] = alice.get("/me/holds").json["results"]
    assert (seen["id"], seen["amount_fen"], seen["state"], seen["appealed"]) == (
        hold.pk.hex, second, "open", False,
    )  # fmt: skip
    assert seen["claim"] == alice.get("/me/claims").json["results"][0]["id"]
    # Why, in words; not how much would have been usual.
    assert [reason["code"] for reason in seen["reasons"]] == ["claims_per_person"]
    assert set(seen["reasons"][0]) == {"code", "text"}


def test_what_was_decided_is_seen(visit: Visit, hold: Hold) -> None:
    hold_forfeit(hold_id=hold.pk, actor="staff:ria", reason="a farm")
    assert visit("alice").get("/me/claims").json["results"][0]["status"] == "forfeited"
    assert visit("alice").get("/me/wallet").json["held_fen"] == 0
    [seen] = visit("alice").get("/me/holds").json["results"]
    assert seen["state"] == "forfeited" and seen["decided_at"] is not None


def test_released_money_is_a_movement_of_the_wallet(visit: Visit, hold: Hold) -> None:
    hold_release(hold_id=hold.pk, actor="staff:ria", reason="fine")
    newest = visit("alice").get("/me/wallet/transfers").json["results"][0]
    assert (newest["kind"], newest["amount_fen"]) == ("release", hold.amount_fen)
    assert visit("alice").get("/me/claims").json["results"][0]["status"] == "settled"


def test_alice_appeals_once(visit: Visit, hold: Hold) -> None:
    path = f"/me/holds/{hold.pk.hex}/appeal"
    for _ in range(2):
        answer = visit("alice").post(path, {"text": "我只领了一次"})
        assert answer.status == 202 and answer.json["hold"] == hold.pk.hex
    assert visit("alice").post(path, {"text": "and another thing"}).code == "conflict"
    assert appeal_text(HoldAppeal.objects.get()) == "我只领了一次"
    assert visit("alice").get("/me/holds").json["results"][0]["appealed"] is True


def test_nobody_else_s_hold_is_there(visit: Visit, hold: Hold) -> None:
    path = f"/me/holds/{hold.pk.hex}/appeal"
    namesake = visit("alice", of=stage.make_app())
    for other in (visit("bob"), namesake):
        assert other.get("/me/holds").json == {"results": [], "next": None}
        assert other.post(path, {"text": "mine"}).code == "not_found"
    for nonsense in ("0" * 32, "nonsense"):
        assert visit("alice").post(f"/me/holds/{nonsense}/appeal", {"text": "x"}).status == 404
    assert not HoldAppeal.objects.exists()


@pytest.mark.parametrize("text", ["", "x" * 2_001, "a\0b", 7, None])
def test_a_text_that_is_none_is_refused(visit: Visit, hold: Hold, text: object) -> None:
    answer = visit("alice").post(f"/me/holds/{hold.pk.hex}/appeal", {"text": text})
    assert answer.status == 422 and answer.json["errors"][0]["pointer"] == "/text"
    assert not HoldAppeal.objects.exists()


def test_the_longest_text_fits(visit: Visit, hold: Hold) -> None:
    text = "钱" * 2_000
    assert visit("alice").post(f"/me/holds/{hold.pk.hex}/appeal", {"text": text}).status == 202
    assert appeal_text(HoldAppeal.objects.get()) == text


def test_decided_money_is_not_appealed(visit: Visit, hold: Hold) -> None:
    hold_release(hold_id=hold.pk, actor="staff:ria", reason="fine")
    answer = visit("alice").post(f"/me/holds/{hold.pk.hex}/appeal", {"text": "why?"})
    assert answer.code == "conflict"
