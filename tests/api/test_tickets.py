"""Tickets: rights to one claim each, through every door."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from campaign import services
from campaign.models import Campaign
from engine.lib.redis import stock as stock_client
from engine.models import ClientApp
from packets import recovery
from packets.claiming import ticket as texts
from packets.claiming.sync import ticket_keys
from packets.models import Claim, Packet, Ticket
from tests import world
from tests.api.doors import DOORS, Door, Visitor, WebDoor
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]
Server = Callable[..., Visitor]


@pytest.fixture(params=sorted(DOORS))
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]()


@pytest.fixture
def campaign(app: ClientApp) -> Campaign:
    made = stage.draft(app)
    stage.add_packet(made, needs_ticket=True)
    return stage.launch(made)


@pytest.fixture
def packet(campaign: Campaign) -> Packet:
    return stage.first_packet(campaign)


@pytest.fixture
def ask(server: Server, campaign: Campaign, packet: Packet) -> Callable[..., Any]:
    """The app's back end asks for a ticket."""
    back_end = server("tickets")

    def ask(user: str = "alice", key: str = "", **instead: Any) -> Any:
        body = {
            "user": user,
            "packet": packet.public_id,
            "reason": "mission done",
            "id": key or uuid.uuid4().hex,
            **instead,
        }
        return back_end.post(f"/server/campaigns/{campaign.slug}/tickets", body)

    return ask


def route(packet: Packet) -> str:
    return f"/packets/{packet.public_id}/claims"


def test_two_tickets_are_two_claims_and_each_is_answered_again(
    visit: Visit, ask: Callable[..., Any], packet: Packet
) -> None:
    tickets = [ask().json["ticket"] for _ in range(2)]
    alice = visit("alice")

    first = [alice.post(route(packet), {"ticket": ticket}).json for ticket in tickets]
    world.wipe_redis()  # also when Redis has forgotten them
    again = [alice.post(route(packet), {"ticket": ticket}).json for ticket in tickets]

    assert [answer["result"] for answer in first] == ["won", "won"]
    assert [answer["replayed"] for answer in again] == [True, True]
    assert [a["claim"]["id"] for a in again] == [a["claim"]["id"] for a in first]
    assert len({answer["claim"]["id"] for answer in first}) == 2
    assert sorted(Claim.objects.values_list("serial", flat=True)) == [1, 2]
    listed = alice.get("/me/claims").json["results"]
    assert {claim["id"] for claim in listed} == {answer["claim"]["id"] for answer in first}
    seen = alice.get(f"/packets/{packet.public_id}").json
    assert seen["ticket_required"] is True
    assert seen["claim"]["id"] == listed[0]["id"]  # the latest


def test_no_ticket_is_no_claim(visit: Visit, ask: Callable[..., Any], packet: Packet) -> None:
    genuine = ask().json["ticket"]
    other = stage.add_packet(stage.draft(packet.campaigns.get().client_apps.get()))
    alice = visit("alice").authorization
    assert alice is not None
    digest = Ticket.objects.get().participant
    ours = partial(texts.sign, ticket=texts.Ticket(bytes(digest), 1))
    shown = {
        "none": {},
        "nothing": {"ticket": ""},
        "forged": {"ticket": genuine[:-1] + ("A" if genuine[-1] != "A" else "B")},
        "cut": {"ticket": genuine[:-4]},
        "another key": {"ticket": ours(packet.pk, keys={"t1": b"x" * 32})},
        "a key that is gone": {"ticket": ours(packet.pk, keys={"t0": b"x" * 32})},
        "another packet's": {"ticket": ours(other.pk, keys=ticket_keys())},
        "a client token": {"ticket": alice.removeprefix("Bearer ")},
        "serial 0": {
            "ticket": texts.sign(packet.pk, texts.Ticket(bytes(digest), 0), ticket_keys())
        },
    }

    said = {
        name: visit("alice").post(route(packet), body).json["result"]
        for name, body in shown.items()
    }

    assert said == dict.fromkeys(shown, "ticket_required")
    assert Claim.objects.count() == 0
    assert visit("alice").post(route(packet), {"ticket": genuine}).json["result"] == "won"


def test_a_ticket_in_the_wrong_hands(visit: Visit, ask: Callable[..., Any], packet: Packet) -> None:
    """Bob learns whether it is used up; Alice, whose it is, never hears that."""
    shown = {"ticket": ask("alice").json["ticket"]}

    before = visit("bob").post(route(packet), shown).json["result"]
    won = visit("alice").post(route(packet), shown).json
    after = visit("bob").post(route(packet), shown).json
    again = visit("alice").post(route(packet), shown).json

    assert (before, won["result"], after["result"]) == (
        "ticket_required",
        "won",
        "ticket_used",
    )
    assert "claim" not in after
    assert (again["result"], again["claim"]["id"]) == ("won", won["claim"]["id"])
    assert Claim.objects.count() == 1


def test_a_ticket_shown_two_hundred_times_at_once_is_one_claim(
    visit: Visit, ask: Callable[..., Any], packet: Packet
) -> None:
    shown = {"ticket": ask().json["ticket"]}
    alice = visit("alice")

    answers = world.together([partial(alice.post, route(packet), shown)] * 200, threads=16)

    assert not [a for a in answers if isinstance(a, BaseException)]
    told = [a.json for a in answers if not isinstance(a, BaseException) and a.status == 200]
    assert len(told) > 100  # the others heard 503, and may ask again
    assert {answer["result"] for answer in told} == {"won"}
    assert {answer["claim"]["id"] for answer in told} == {Claim.objects.get().pk.hex}


def test_the_last_portion_and_the_end(
    visit: Visit, ask: Callable[..., Any], campaign: Campaign, packet: Packet
) -> None:
    """Tickets are rights to ask: who comes late hears that it is over, who has won hears `won`."""
    tickets = [ask("alice").json["ticket"] for _ in range(11)]
    alice = visit("alice")

    answers = [alice.post(route(packet), {"ticket": ticket}).json for ticket in tickets]
    services.campaign_end(campaign_id=campaign.pk, actor="x")

    assert [answer["result"] for answer in answers] == ["won"] * 10 + ["sold_out"]
    assert sum(answer["claim"]["amount_fen"] for answer in answers[:10]) == 10_000
    again = alice.post(route(packet), {"ticket": tickets[0]}).json
    assert (again["result"], again["claim"]["id"]) == ("won", answers[0]["claim"]["id"])
    proof = alice.get(f"/packets/{packet.public_id}/proof").json
    assert len(proof["claims"]) == 10


def test_what_a_dead_process_reserved_with_a_ticket_is_its_owners(
    visit: Visit, ask: Callable[..., Any], packet: Packet
) -> None:
    from tests.packets.test_tickets import reserve_and_die

    tickets = [ask("alice").json["ticket"] for _ in range(2)]
    assert visit("alice").post(route(packet), {"ticket": tickets[0]}).json["result"] == "won"
    reserve_and_die(packet, "alice", tickets[1])

    assert recovery.adopt(stock_client(), packet.lanes.get(), below_index=2) == 1

    assert sorted(Claim.objects.values_list("serial", "index")) == [(1, 0), (2, 1)]
    answer = visit("alice").post(route(packet), {"ticket": tickets[1]}).json
    assert (answer["result"], answer["replayed"]) == ("won", True)


# --- issuing --------------------------------------------------------------------------------------


class TestIssuing:
    """The back end's route; it has one door."""

    @pytest.fixture
    def door(self) -> Door:
        return WebDoor()

    def test_asked_again_it_is_the_same_ticket(
        self, ask: Callable[..., Any], campaign: Campaign
    ) -> None:
        first, again, another = ask(key="m-1"), ask(key="m-1"), ask(key="m-2")

        assert first.status == again.status == another.status == 200
        assert first.json == again.json != another.json
        assert first.headers["Cache-Control"] == "no-store"
        rows = Ticket.objects.order_by("serial").values_list("key", "serial", "reason")
        assert list(rows) == [("m-1", 1, "mission done"), ("m-2", 2, "mission done")]
        services.campaign_end(campaign_id=campaign.pk, actor="x")
        assert ask(key="m-1").json == first.json
        assert (ask(key="m-3").status, ask(key="m-3").code) == (409, "conflict")

    @pytest.mark.parametrize("instead", [{"user": "bob"}, {"reason": "another"}])
    def test_the_same_id_with_another_body_is_refused(
        self, ask: Callable[..., Any], instead: dict[str, str]
    ) -> None:
        ask(key="m-1")
        answer = ask(key="m-1", **instead)
        assert (answer.status, answer.code) == (422, "invalid")
        assert answer.pointers == [("/id", "reused")]
        assert Ticket.objects.count() == 1

    @pytest.mark.parametrize(
        ("instead", "pointer"),
        [
            ({"user": ""}, "/user"),
            ({"user": "a\nb"}, "/user"),
            ({"reason": "\u0000"}, "/reason"),
            ({"reason": "x" * 201}, "/reason"),
            ({"id": ""}, "/id"),
            ({"id": "laisee:mission-7"}, "/id"),
            ({"id": "x" * 129}, "/id"),
            ({"packet": "nonsense"}, "/packet"),
            ({"when": "now"}, "/when"),
        ],
    )
    def test_bad_input_is_named(
        self, ask: Callable[..., Any], instead: dict[str, str], pointer: str
    ) -> None:
        answer = ask(key="m-1", **instead) if "id" not in instead else ask(**instead)
        assert answer.status == 422
        assert [where for where, _code in answer.pointers] == [pointer]
        assert Ticket.objects.count() == 0

    def test_only_for_packets_that_take_tickets(
        self, server: Server, app: ClientApp, ask: Callable[..., Any]
    ) -> None:
        plain = stage.live(app)
        packet = stage.first_packet(plain).public_id
        body = {"user": "alice", "packet": packet, "reason": "x", "id": "m-1"}
        answer = server("tickets").post(f"/server/campaigns/{plain.slug}/tickets", body)
        assert answer.pointers == [("/packet", "takes_none")]
        for stranger in (packet, "0" * 32):  # another campaign's, nobody's
            assert ask(packet=stranger).code == "not_found"

    def test_who_may_ask(
        self, server: Server, visit: Visit, ask: Callable[..., Any], campaign: Campaign
    ) -> None:
        route = f"/server/campaigns/{campaign.slug}/tickets"
        assert server("tokens").post(route, {}).code == "missing_scope"
        assert visit("alice").post(route, {}).status == 401
        stranger = Visitor(WebDoor(), f"Api-Key {stage.api_key(stage.make_app(), 'tickets')}")
        packet = stage.first_packet(campaign).public_id
        body = {"user": "alice", "packet": packet, "reason": "x", "id": "m-1"}
        assert stranger.post(route, body).code == "not_found"
        draft = stage.draft(campaign.client_apps.get())
        answer = server("tickets").post(f"/server/campaigns/{draft.slug}/tickets", body)
        assert answer.code == "not_found"
        assert Ticket.objects.count() == 0
