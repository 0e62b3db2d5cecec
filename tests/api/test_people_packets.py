"""POST /packets: people send packets from their own wallets."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from engine.lib import clock
from engine.models import AuditEvent, ClientApp, IdempotencyRecord
from packets import closing, settlement
from packets import services as packet_services
from packets.blocking import block_add, block_remove
from packets.holds.resolving import hold_forfeit
from packets.models import Account, Gate, Hold, Packet, PeoplePacket
from packets.people_packets import MAX_OPEN
from packets.wallets import wallet_of, young_fen
from tests import world
from tests.api.answers import Answer
from tests.api.doors import DOORS, Door, Visitor, forget_packets
from tests.campaign import stage
from tests.packets import holding
from tests.wallets import assert_sound, available_fen, books, digest, fill

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]

LUCKY = {"kind": "lucky", "total_fen": 1_000, "count": 5, "message": "恭喜发财 🧧"}


@pytest.fixture
def alice(visit: Visit, app: ClientApp) -> Visitor:
    """Alice, in the chat group `family`, with ¥100 in her wallet."""
    fill(app, ["alice"], 10_000)
    return visit("alice", grp="family")


def send(sender: Visitor, key: str = "", **changes: Any) -> Answer:
    return sender.post("/packets", {**LUCKY, **changes}, **{"Idempotency-Key": key or new_key()})


def new_key() -> str:
    return uuid.uuid4().hex


def end(packet_id: str) -> None:
    """The window is over."""
    past = clock.now() - dt.timedelta(seconds=30)
    Packet.objects.filter(id=packet_id).update(closes_at=past, opens_at=past - dt.timedelta(days=1))
    closing.packets_expire_due()
    forget_packets()


def settle() -> None:
    for lane in Packet.objects.get(sent__isnull=False).lanes.all():
        settlement.settle_lane(lane.pk)


# --- a packet for the family ----------------------------------------------------------------------


@pytest.mark.parametrize("door", [make() for make in DOORS.values()], ids=list(DOORS))
def test_the_family_claims_and_what_is_left_comes_back_to_alice(
    door: Door, visit: Visit, app: ClientApp, alice: Visitor
) -> None:
    sent = send(alice)

    assert sent.status == 201, sent.json
    assert available_fen(app, "alice") == 9_000
    packet = sent.json
    assert packet | {"id": "", "opens_at": "", "closes_at": "", "seed_commitment": ""} == {
        "id": "",
        "name": "",
        "state": "open",
        "kind": "lucky",
        "currency": "CNY",
        "total_fen": 1_000,
        "count": 5,
        "left_count": 5,
        "opens_at": "",
        "closes_at": "",
        "password_required": False,
        "ticket_required": False,
        "seed_commitment": "",
        "seed": None,
        "claim": None,
        "recent_claims": [],
        "luckiest": None,
        "sender": {"who": "a***e", "you": True, "message": "恭喜发财 🧧"},
    }
    route = f"/packets/{packet['id']}"
    won = [
        visit(name, grp="family").post(f"{route}/claims").json["claim"]["amount_fen"]
        for name in ("bob", "carol", "alice")
    ]
    settle()
    # The portion of her own that Alice has claimed is hers like anybody's.
    assert available_fen(app, "alice") == 9_000 + won[2]
    assert visit("dave").post(f"{route}/claims").json["reason"] == "not_in_group"
    end(packet["id"])

    seen = visit("bob", grp="family").get(route).json
    assert (seen["state"], seen["sender"]) == (
        "closed",
        {"who": "a***e", "you": False, "message": "恭喜发财 🧧"},
    )
    assert available_fen(app, "alice") == 10_000 - won[0] - won[1]
    assert [available_fen(app, name) for name in ("bob", "carol")] == won[:2]
    kinds = [
        (movement["kind"], movement["amount_fen"])
        for movement in alice.get("/me/wallet/transfers").json["results"]
    ]
    assert kinds == [
        ("close", 1_000 - sum(won)),
        ("settle", won[2]),
        ("open", -1_000),
        ("settle", 10_000),
    ]
    opened = AuditEvent.objects.get(action="packet.open", object_id=packet["id"])
    assert opened.actor == f"client:{digest(app, 'alice').hex()}"
    assert_sound()


def test_what_is_forfeited_goes_back_to_alice(visit: Visit, app: ClientApp, alice: Visitor) -> None:
    """Not to a campaign: it was her money."""
    sent = send(alice, kind="fixed", total_fen=1_000, count=2).json
    visit("mallory", grp="family").post(f"/packets/{sent['id']}/claims")
    holding.rule(kind=holding.Kind.AMOUNT_PER_PERSON, most=100)
    settle()
    assert visit("mallory").get("/me/wallet").json["held_fen"] == 500

    hold_forfeit(hold_id=Hold.objects.get().pk, actor="staff:ria", reason="a farm")

    assert available_fen(app, "alice") == 9_500
    (back, *_) = alice.get("/me/wallet/transfers").json["results"]
    assert (back["kind"], back["amount_fen"]) == ("forfeit", 500)
    assert visit("mallory").get("/me/claims").json["results"][0]["status"] == "forfeited"
    assert_sound()


def test_the_others_hear_neither_who_nor_what(visit: Visit, alice: Visitor) -> None:
    route = f"/packets/{send(alice).json['id']}"

    assert visit("bob", grp="family").get(route).json["sender"]["message"] == LUCKY["message"]
    assert visit("bob").get(route).json["sender"] is None
    assert visit("bob", grp="work").get(route).json["sender"] is None
    # Alice herself, wherever she looks from.
    assert visit("alice").get(route).json["sender"]["you"] is True


def test_without_a_group_it_is_for_whoever_of_the_app_knows_its_id(
    visit: Visit, app: ClientApp
) -> None:
    fill(app, ["alice"])
    sent = send(visit("alice"), kind="fixed", total_fen=1_000, count=2).json

    assert visit("bob").post(f"/packets/{sent['id']}/claims").json["claim"]["amount_fen"] == 500
    assert visit("carol", grp="x").post(f"/packets/{sent['id']}/claims").json["result"] == "won"
    stranger = visit("dave", of=stage.make_app())
    assert stranger.get(f"/packets/{sent['id']}").status == 404
    assert visit("dave").post(f"/packets/{sent['id']}/claims").json["result"] == "sold_out"


def test_a_campaigns_packet_has_no_sender(visit: Visit, app: ClientApp) -> None:
    packet = stage.first_packet(stage.live(app))

    assert visit("alice").get(f"/packets/{packet.public_id}").json["sender"] is None


def test_it_lasts_a_day_or_as_long_as_alice_says(alice: Visitor) -> None:
    ends = {
        send(alice).json["id"]: dt.timedelta(days=1),
        send(alice, expires_in_s=60).json["id"]: dt.timedelta(minutes=1),
    }

    for packet in Packet.objects.filter(id__in=ends):
        lasts = packet.closes_at - packet.created_at
        assert abs(lasts - ends[packet.public_id]) < dt.timedelta(seconds=5)


def test_a_process_whose_clock_is_wrong_sends_for_as_long(
    alice: Visitor, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = clock.now
    for minutes in (-4, 4):
        tokens = visit("alice", grp="family")
        skew = dt.timedelta(minutes=minutes)
        monkeypatch.setattr(packet_services.clock, "now", lambda skew=skew: real() + skew)
        sent = send(tokens, expires_in_s=60)
        monkeypatch.undo()

        assert sent.status == 201, sent.json
        packet = Packet.objects.get(id=sent.json["id"])
        assert dt.timedelta(seconds=30) < packet.closes_at - real() <= dt.timedelta(seconds=60)
        bob = visit("bob", grp="family").post(f"/packets/{packet.public_id}/claims")
        assert bob.json["result"] == "won"


# --- what can't be sent ---------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"total_fen": 0}, "/total_fen", "out_of_range"),
    "less than nothing": ({"total_fen": -1}, "/total_fen", "out_of_range"),
    "everything": ({"total_fen": 10**18}, "/total_fen", "out_of_range"),
    "more than 2^63": ({"total_fen": 10**30}, "/total_fen", "out_of_range"),
    "too much for anybody": ({"total_fen": 2_000_001}, "/total_fen", "out_of_range"),
    "a part of a fen": ({"total_fen": 0.1}, "/total_fen", "wrong_type"),
    "a whole float": ({"total_fen": 100.0}, "/total_fen", "wrong_type"),
    "a text": ({"total_fen": "1000"}, "/total_fen", "wrong_type"),
    "null": ({"total_fen": None}, "/total_fen", "wrong_type"),
    "true": ({"total_fen": True}, "/total_fen", "wrong_type"),
    "more than she has": ({"total_fen": 10_001}, "/total_fen", "insufficient_funds"),
    "for nobody": ({"count": 0}, "/count", "out_of_range"),
    "for too many": ({"count": 501, "total_fen": 5_000}, "/count", "out_of_range"),
    "portions of nothing": ({"count": 11, "total_fen": 10}, "/total_fen", "portions_too_small"),
    "tiers": ({"kind": "tiers"}, "/kind", "unknown_choice"),
    "over before it is seen": ({"expires_in_s": 59}, "/expires_in_s", "out_of_range"),
    "for ever": ({"expires_in_s": 86_401}, "/expires_in_s", "out_of_range"),
    "a long speech": ({"message": "长" * 81}, "/message", "wrong_length"),
    "two lines": ({"message": "a\nb"}, "/message", "unprintable"),
    "text that runs backwards": ({"message": "\u202eabc"}, "/message", "unprintable"),
    "somebody else's wallet": ({"wallet": "bob"}, "/wallet", "unknown_field"),
    "somebody else": ({"sub": "bob"}, "/sub", "unknown_field"),
}


def test_what_cant_be_sent_moves_nothing(alice: Visitor) -> None:
    before = books()

    for name, (changes, pointer, code) in REFUSED.items():
        answer = send(alice, **changes)
        assert answer.status == 422, (name, answer.json)
        assert answer.pointers == [(pointer, code)], name
    assert books() == before
    assert PeoplePacket.objects.count() == 0


def test_a_family_of_emoji_is_a_message(alice: Visitor) -> None:
    assert send(alice, message="👨‍👩‍👧 ❤️").json["sender"]["message"] == "👨‍👩‍👧 ❤️"


def test_who_has_no_wallet_has_no_money(visit: Visit, app: ClientApp) -> None:
    assert send(visit("nobody")).pointers == [("/total_fen", "insufficient_funds")]
    assert not Account.objects.filter(kind="wallet").exists()


@pytest.mark.usefixtures("alice")
def test_a_token_is_needed_and_names_whose_money_it_is(
    visit: Visit, door: Door, app: ClientApp
) -> None:
    before = books()

    assert send(Visitor(door)).status == 401
    assert send(visit("mallory", grp="family")).status == 422
    assert books() == before


def test_only_so_many_unfinished_packets_a_person(
    alice: Visitor, app: ClientApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_OPEN == 100
    monkeypatch.setattr("packets.people_packets.MAX_OPEN", 2)
    first, _ = send(alice, count=1), send(alice)

    assert send(alice).json["errors"][0]["code"] == "too_many_open"
    alice.post(f"/packets/{first.json['id']}/claims")
    # One that is claimed to the end doesn't count any more.
    assert send(alice).status == 201


def test_whoever_is_banned_everywhere_sends_nothing(alice: Visitor, app: ClientApp) -> None:
    block_add(gate_key=Gate.ALL, participant=digest(app, "alice"))
    before = books()

    assert send(alice).json["errors"][0]["code"] == "blocked"
    assert books() == before

    block_remove(gate_key=Gate.ALL, participant=digest(app, "alice"))
    assert send(alice).status == 201


def test_money_that_has_just_come_in_stays_for_a_while(
    alice: Visitor, app: ClientApp, settings: Any
) -> None:
    settings.PEOPLE_MONEY_AGE_H = 24
    before = books()
    refused = send(alice)
    assert refused.pointers == [("/total_fen", "money_too_young")]
    assert books() == before

    settings.PEOPLE_MONEY_AGE_H = 0
    closing.packet_close(packet_id=uuid.UUID(send(alice).json["id"]), actor="test")
    # Her own money that came back isn't new money, and what is old may go.
    wallet = wallet_of(digest(app, "alice"))
    assert wallet is not None
    assert young_fen(wallet, 1) == 10_000


# --- again ----------------------------------------------------------------------------------------


def test_the_same_request_again_sends_nothing(alice: Visitor) -> None:
    first, again = send(alice, "k1"), send(alice, "k1")

    assert (again.status, again.json) == (201, first.json)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert PeoplePacket.objects.count() == 1
    other = send(alice, "k1", total_fen=2_000)
    assert (other.status, other.code) == (422, "idempotency_key_reused")


def test_a_key_sends_once_also_after_a_day(alice: Visitor) -> None:
    send(alice, "k1")
    IdempotencyRecord.objects.update(created_at=clock.now() - dt.timedelta(hours=25))
    before = books()

    late = send(alice, "k1")

    assert (late.status, late.code) == (409, "key_spent")
    assert books() == before


def test_without_a_key_nothing_is_sent(alice: Visitor) -> None:
    before = books()
    answer = alice.post("/packets", LUCKY)

    assert (answer.status, answer.code) == (400, "idempotency_key_required")
    assert books() == before


def test_keys_are_each_persons_own(alice: Visitor, visit: Visit, app: ClientApp) -> None:
    fill(app, ["bob"])

    assert send(alice, "k1").status == send(visit("bob"), "k1").status == 201


# --- all of them stopped --------------------------------------------------------------------------


def test_staff_stop_all_of_them_at_once(visit: Visit, alice: Visitor) -> None:
    sent = send(alice).json
    gate = Gate.objects.get(key="people")
    packet_services.gate_set(gate_id=gate.pk, state="paused", actor="test", reason="fraud")
    forget_packets()

    bob = visit("bob", grp="family")
    assert bob.post(f"/packets/{sent['id']}/claims").json["result"] == "paused"
    before = books()
    refused = send(alice, "later")
    assert (refused.status, refused.code) == (409, "conflict")
    assert books() == before
    packet_services.gate_set(gate_id=gate.pk, state="open", actor="test")
    world.forget_views()
    assert bob.post(f"/packets/{sent['id']}/claims").json["result"] == "won"
    assert send(alice, "later").status == 201
