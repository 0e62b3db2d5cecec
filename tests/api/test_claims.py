"""POST /packets/{id}/claims: winning, losing, asking again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from campaign import services
from campaign.models import Campaign
from engine import forced
from engine.lib import clock, ids
from engine.models import ClientApp
from packets import services as packet_services
from packets.claiming import sync
from packets.claiming.effects import Outcome, Result, Unavailable
from packets.models import Claim, Lane, Packet
from tests import world
from tests.api.doors import DOORS, Door, Visitor, forget_packets
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]


@pytest.fixture(params=sorted(DOORS))
def door(request: pytest.FixtureRequest) -> Door:
    """The contract of the hot routes is one: each story runs through every door."""
    return DOORS[request.param]()


@pytest.fixture
def campaign(app: ClientApp) -> Campaign:
    return stage.live(app)


@pytest.fixture
def packet(campaign: Campaign) -> Packet:
    return stage.first_packet(campaign)


def route(packet: Packet) -> str:
    return f"/packets/{packet.public_id}/claims"


def test_alice_wins_and_hears_the_same_when_she_asks_again(visit: Visit, packet: Packet) -> None:
    first, again = visit("alice").post(route(packet), {}), visit("alice").post(route(packet))

    assert first.status == again.status == 200
    row = Claim.objects.get()
    assert first.json == {
        "result": "won",
        "packet": {"left_count": 9, "state": "open"},
        "claim": {
            "id": row.pk.hex,
            "packet": packet.public_id,
            "amount_fen": row.amount_fen,
            "currency": "CNY",
            "lane": 0,
            "epoch": 1,
            "index": 0,
            "status": "committed",
            "claimed_at": clock.rfc3339(row.committed_at),
        },
        "replayed": False,
    }
    assert again.json["replayed"] is True
    assert {**again.json["claim"], "claimed_at": ""} == {**first.json["claim"], "claimed_at": ""}
    assert first.headers["Cache-Control"] == "no-store"
    assert Claim.objects.count() == 1


def test_the_moment_of_a_claim_is_the_same_in_every_answer(visit: Visit, packet: Packet) -> None:
    first, again = visit("alice").post(route(packet)), visit("alice").post(route(packet))
    listed = visit("alice").get("/me/claims").json["results"][0]

    moments = [a.json["claim"]["claimed_at"] for a in (first, again)] + [listed["claimed_at"]]
    assert len({moment[:23] for moment in moments}) == 1  # to the millisecond


def test_losing_is_not_an_error(visit: Visit, packet: Packet) -> None:
    answers = [visit(f"user{i}").post(route(packet)) for i in range(12)]

    assert {answer.status for answer in answers} == {200}
    assert [answer.json["result"] for answer in answers] == ["won"] * 10 + ["sold_out"] * 2
    assert sum(a.json["claim"]["amount_fen"] for a in answers[:10]) == 10_000
    assert answers[-1].json == {
        "result": "sold_out",
        "packet": {"left_count": 0, "state": "sold_out"},
    }


def test_a_win_is_told_also_after_the_end(visit: Visit, campaign: Campaign, packet: Packet) -> None:
    won = visit("alice").post(route(packet)).json["claim"]

    services.campaign_pause(campaign_id=campaign.pk, actor="x")
    paused = visit("alice").post(route(packet)), visit("bob").post(route(packet))
    services.campaign_end(campaign_id=campaign.pk, actor="x")
    ended = visit("alice").post(route(packet)), visit("bob").post(route(packet))

    assert [a.json["result"] for a in (*paused, *ended)] == ["won", "paused", "won", "ended"]
    assert {a.json["claim"]["id"] for a in (paused[0], ended[0])} == {won["id"]}
    assert {a.json["claim"]["amount_fen"] for a in (paused[0], ended[0])} == {won["amount_fen"]}


def test_before_it_opens(visit: Visit, app: ClientApp) -> None:
    campaign = stage.draft(app)
    later = clock.now() + dt.timedelta(minutes=10)
    packet = stage.add_packet(campaign, opens_at=later)
    stage.launch(campaign)

    answer = visit("alice").post(route(packet))

    assert answer.json == {
        "result": "not_started",
        "packet": {"left_count": 10, "state": "scheduled"},
        "opens_at": clock.rfc3339(later),
    }
    assert answer.headers["Retry-After"] == "30"  # it may be moved to an earlier time


@pytest.mark.parametrize(
    ("rules", "token", "reason"),
    [
        ({"new_only": True}, {}, "not_new"),
        ({"new_only": True}, {"new": False}, "not_new"),
        ({"group": "family"}, {"grp": "work"}, "not_in_group"),
        ({"group": "family"}, {}, "not_in_group"),
        ({"min_account_age_days": 30}, {"acct": 29}, "too_young_account"),
        ({"targeted": True}, {}, "not_targeted"),
    ],
)
def test_who_is_not_meant_hears_why(
    visit: Visit, campaign: Campaign, rules: dict[str, Any], token: dict[str, Any], reason: str
) -> None:
    mine = stage.draft(campaign.client_apps.get())
    packet = stage.add_packet(mine, **rules)
    if packet.targeted:
        packet_services.packet_targets_add(packet_id=packet.pk, participants=[bytes(16)])
    stage.launch(mine)

    answer = visit("alice", **token).post(route(packet))

    assert (answer.status, answer.json["result"], answer.json["reason"]) == (
        200,
        "not_eligible",
        reason,
    )
    assert Claim.objects.count() == 0


@pytest.mark.parametrize(
    ("rules", "token"),
    [
        ({"new_only": True}, {"new": True}),
        ({"group": "family"}, {"grp": "family"}),
        ({"min_account_age_days": 30}, {"acct": 30}),
    ],
)
def test_who_is_meant_wins(
    visit: Visit, campaign: Campaign, rules: dict[str, Any], token: dict[str, Any]
) -> None:
    packet = stage.add_packet(campaign, **rules)
    assert visit("alice", **token).post(route(packet)).json["result"] == "won"


def test_a_targeted_packet_is_for_those_on_its_list(
    visit: Visit, app: ClientApp, campaign: Campaign
) -> None:
    listed = stage.draft(campaign.client_apps.get())
    packet = stage.add_packet(listed, targeted=True)
    packet_services.packet_targets_add(
        packet_id=packet.pk, participants=[ids.participant_digest(app.pk, "alice")]
    )
    stage.launch(listed)

    assert visit("alice").post(route(packet)).json["result"] == "won"
    assert visit("bob").post(route(packet)).json["reason"] == "not_targeted"


def test_a_password_is_tried_five_times(visit: Visit, campaign: Campaign) -> None:
    # Of a campaign of its own: a pass phrase isn't written into a top-up's request.
    secret = stage.draft(campaign.client_apps.get())
    packet = stage.add_packet(secret, password="恭喜发财")
    stage.launch(secret)

    answers = [visit("bob").post(route(packet), {"password": f"guess{i}"}) for i in range(6)]

    assert [a.json["result"] for a in answers[:4]] == ["wrong_password"] * 4
    assert answers[-1].json["result"] == "blocked"
    assert visit("bob").post(route(packet), {"password": "恭喜发财"}).json["result"] == "blocked"
    assert visit("alice").post(route(packet), {"password": "恭喜发财"}).json["result"] == "won"
    assert visit("carol").post(route(packet)).json["result"] == "wrong_password"


def test_there_is_no_such_packet(visit: Visit, app: ClientApp) -> None:
    draft = stage.add_packet(stage.draft(app))
    for packet_id in ("0" * 32, "nonsense", "A" * 32, draft.public_id, "0" * 33):
        answer = visit("alice").post(f"/packets/{packet_id}/claims", {})
        assert (answer.status, answer.code) == (404, "not_found")


def test_another_apps_people_are_not_meant(visit: Visit, packet: Packet) -> None:
    stranger = visit("alice", of=stage.make_app())

    assert stranger.post(route(packet)).json["reason"] == "not_targeted"
    assert stranger.get(f"/packets/{packet.public_id}").code == "not_found"
    assert Claim.objects.count() == 0


def test_busy_carries_retry_after(
    visit: Visit, packet: Packet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has no portion, Postgres has: somebody may have reserved it and left."""
    from engine.lib.redis import stock as stock_client
    from packets import stock

    visit("alice").post(route(packet))
    stock_client().hset(stock.meta_key(packet.pk, 0), "left_count", 0)

    answer = visit("bob").post(route(packet))

    assert (answer.status, answer.json["result"]) == (200, "busy")
    assert answer.headers["Retry-After"] == "1"
    assert answer.json["packet"]["state"] == "open"


def test_a_dependency_that_is_down_is_a_503(
    visit: Visit, packet: Packet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> Outcome:
        raise Unavailable("commits are late", retry_after_s=2)

    monkeypatch.setattr(sync.SyncDriver, "run", down)

    answer = visit("alice").post(route(packet))

    assert (answer.status, answer.code) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "2"
    monkeypatch.undo()
    assert visit("alice").post(route(packet)).json["result"] == "won"


def test_every_result_of_the_contract_is_one_of_the_flow() -> None:
    assert {str(result) for result in Result} == {
        "won", "sold_out", "not_started", "ended", "paused", "not_eligible", "ticket_required",
        "ticket_used", "wrong_password", "blocked", "busy",
    }  # fmt: skip


def test_forty_people_twice_each_at_once(door: Door, visit: Visit, app: ClientApp) -> None:
    campaign = stage.draft(app)
    packet = stage.add_packet(campaign, 20_000, 20)
    stage.launch(campaign)
    people = [visit(f"user{i % 40}") for i in range(80)]

    answers: list[Any] = world.together(
        [partial(who.post, route(packet)) for who in people], threads=16
    )

    assert not [a for a in answers if isinstance(a, BaseException)]
    assert {a.status for a in answers} == {200}
    wins = [a.json["claim"] for a in answers if a.json["result"] == "won"]
    once = {claim["id"]: claim["amount_fen"] for claim in wins}
    assert len(once) == 20 and sum(once.values()) == 20_000
    lane = Lane.objects.get(packet=packet)
    assert (lane.claimed_count, lane.claimed_fen) == (20, 20_000)


def test_a_test_user_hears_what_was_set_for_them_through_every_door(
    visit: Visit, packet: Packet, app: ClientApp
) -> None:
    forced.app_test_users_set(client_app_id=app.pk, allowed=True, actor="x")
    for subject, result, reason in [("t1", "won", ""), ("t2", "not_eligible", "not_new")]:
        forced.forced_outcome_set(
            client_app_id=app.pk, subject=subject, result=result, reason=reason, actor="x"
        )
    forget_packets()

    won, refused = visit("t1").post(route(packet), {}), visit("t2").post(route(packet), {})

    assert won.json["test"] is refused.json["test"] is True
    assert won.json["claim"]["amount_fen"] == 1_000
    assert won.json["claim"]["claimed_at"] == "2000-01-01T00:00:00Z"
    assert (refused.json["result"], refused.json["reason"]) == ("not_eligible", "not_new")
    assert Claim.objects.count() == 0
    assert visit("t1").get("/me/claims").json["results"] == []
    assert "test" not in visit("alice").post(route(packet), {}).json
