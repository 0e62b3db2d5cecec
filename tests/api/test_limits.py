"""Limits of the claim path, at both doors: exact at the boundary, and never against a winner."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from campaign.models import Campaign, CampaignGrowth
from engine.lib import lua
from engine.lib.redis import stock as stock_client
from engine.models import ClientApp
from packets import services as packet_services
from packets.claiming import circuit, inviters, limits
from packets.claiming.registry import registry
from packets.limit_rules import Wanted, limit_rule_set
from packets.models import Claim, LimitRule, Packet
from referrals.linking.links import owner_of
from tests import world
from tests.api.answers import Answer
from tests.api.doors import DOORS, Door, Visitor, forget_packets
from tests.campaign import stage
from tests.guards import without_guard
from tests.referrals.stage import link_of

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]
DAY = 86_400


@pytest.fixture(params=sorted(DOORS))
def door(request: pytest.FixtureRequest) -> Door:
    return DOORS[request.param]()


@pytest.fixture(autouse=True)
def _forget_limits() -> None:
    for key in stock_client().scan_iter("limit:*"):
        stock_client().delete(key)


@pytest.fixture
def campaign(app: ClientApp) -> Campaign:
    return stage.live(app)


@pytest.fixture
def packet(campaign: Campaign) -> Packet:
    """Large enough for everybody."""
    return stage.add_packet(campaign, 50_000, 500)


def limit(subject: str, most: int, window_s: int = DAY, **options: Any) -> LimitRule:
    rule = limit_rule_set(
        wanted=Wanted(subject=subject, limit=most, window_s=window_s, **options), actor="test"
    )
    forget_packets()
    return rule


def route(packet: Packet) -> str:
    return f"/packets/{packet.public_id}/claims"


def crowd(visit: Visit, packet: Packet, size: int, **claims: Any) -> list[Answer]:
    """Different people, all at once."""
    visitors = [visit(f"user{number}", **claims) for number in range(size)]
    return world.together(
        [lambda who=who: who.post(route(packet)) for who in visitors],  # type: ignore[misc]
        threads=24,
    )


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


@pytest.mark.parametrize(("subject", "method"), [("device", "window"), ("ip", "pace")])
def test_exact_at_the_boundary_under_two_hundred_at_once(
    visit: Visit, packet: Packet, subject: str, method: str
) -> None:
    pace = {"method": "pace", "burst": 70} if method == "pace" else {}
    limit(subject, 70, **pace)  # a pace of 70 a day with all of them at once

    answers = crowd(visit, packet, 200, dev="one phone")

    assert statuses(answers) == {200: 70, 429: 130}
    assert Claim.objects.count() == 70
    # Every winner hears of the win again; nobody else gets in.
    again = crowd(visit, packet, 40, dev="one phone")
    assert [a.status for a in again] == [a.status for a in answers[:40]]
    assert all(a.json["replayed"] for a in again if a.status == 200)


@pytest.mark.control
@pytest.mark.parametrize("method", ["window", "pace"])
def test_without_the_guard_everybody_gets_in(
    visit: Visit, packet: Packet, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    script = f"limit_{method}"
    text = (lua.ROOT / "packets" / "lua" / f"{script}.lua").read_text()
    open_gate = lua.parse(script, without_guard(text, "limit"), {})
    really = lua.load
    monkeypatch.setattr(
        lua, "load", lambda app, name: open_gate if name == script else really(app, name)
    )
    limit("device", 5, method=method, burst=5 if method == "pace" else 0)
    assert statuses(crowd(visit, packet, 20, dev="one phone")) == {200: 20}


def test_what_is_said_to_whoever_comes_too_often(visit: Visit, packet: Packet) -> None:
    rule = limit("participant", 1, 3_600)
    other = stage.add_packet(stage.live(packet.campaign_link.campaign.client_apps.get()))
    forget_packets()
    assert visit("alice").post(route(packet)).json["result"] == "won"

    answer = visit("alice").post(route(other))

    assert (answer.status, answer.code) == (429, "rate_limited")
    wait_s = int(answer.headers["Retry-After"])
    assert 1 <= wait_s <= 3_600
    assert answer.headers["RateLimit"] == f'"participant-{rule.pk}";r=0;t={wait_s}'
    assert answer.headers["RateLimit-Policy"] == f'"participant-{rule.pk}";q=1;w=3600'
    assert not Claim.objects.filter(packet=other).exists()
    # She has won the first, and hears so.
    assert visit("alice").post(route(packet)).json["replayed"] is True


def test_refusals_give_back_what_they_counted(visit: Visit, packet: Packet) -> None:
    limit("device", 3)
    small = stage.add_packet(packet.campaign_link.campaign, 100, 1)
    packet_services.packet_pause(packet_id=packet.pk, actor="x")
    forget_packets()
    for number in range(5):
        answer = visit(f"early{number}", dev="d").post(route(packet))
        assert answer.json["result"] == "paused"
    packet_services.packet_resume(packet_id=packet.pk, actor="x")
    assert visit("first", dev="e").post(route(small)).json["result"] == "won"
    for number in range(5):  # the process may not know yet that it is over
        assert visit(f"late{number}", dev="d").post(route(small)).json["result"] == "sold_out"
    forget_packets()

    assert statuses(crowd(visit, packet, 5, dev="d")) == {200: 3, 429: 2}


def test_when_one_rule_refuses_the_others_are_given_back(visit: Visit, packet: Packet) -> None:
    limit("device", 2)
    limit("group", 4)
    answers = [visit(f"user{n}", dev="d", grp="g").post(route(packet)) for n in range(6)]
    assert [a.status for a in answers] == [200, 200, 429, 429, 429, 429]
    # Two places are left in the group, for whoever comes with another phone.
    others = [visit(f"other{n}", dev=f"d{n}", grp="g").post(route(packet)) for n in range(4)]
    assert [a.status for a in others] == [200, 200, 429, 429]


def test_a_repeat_whose_record_is_lost_is_not_counted_twice(visit: Visit, packet: Packet) -> None:
    limit("device", 2)
    first = visit("alice", dev="d").post(route(packet)).json
    for key in stock_client().scan_iter("lane:*"):
        stock_client().delete(key)
    for _ in range(3):
        assert visit("alice", dev="d").post(route(packet)).json["claim"] == first["claim"]
        for key in stock_client().scan_iter("lane:*"):
            stock_client().delete(key)
    assert visit("bob", dev="d").post(route(packet)).json["result"] == "won"
    assert visit("carol", dev="d").post(route(packet)).status == 429
    # Over the limit, and Redis knows nothing of her: Postgres does.
    for key in stock_client().scan_iter("lane:*"):
        stock_client().delete(key)
    assert visit("alice", dev="d").post(route(packet)).json["claim"] == first["claim"]


def test_who_names_no_device_meets_no_limit_of_devices(visit: Visit, packet: Packet) -> None:
    limit("device", 1)
    assert statuses(crowd(visit, packet, 5)) == {200: 5}


def test_money_is_refused_once_the_sum_is_reached(visit: Visit, packet: Packet) -> None:
    limit("packet", 1_000, measure="amount")  # ten portions of about 100 fen
    answers = [visit(f"user{number}").post(route(packet)) for number in range(40)]
    won = [a.json["claim"]["amount_fen"] for a in answers if a.status == 200]
    assert sum(won[:-1]) < 1_000 <= sum(won)
    assert {a.status for a in answers[len(won) :]} == {429}


def test_a_rule_acts_where_it_stands_and_as_it_is_edited(
    visit: Visit, app: ClientApp, packet: Packet
) -> None:
    rule = limit("participant", 1, gate=packet.gate)
    elsewhere = stage.add_packet(stage.live(app))
    second = stage.add_packet(packet.campaign_link.campaign)
    forget_packets()
    assert visit("alice").post(route(packet)).status == 200
    assert visit("alice").post(route(elsewhere)).status == 200
    assert visit("alice").post(route(second)).status == 429

    limit_rule_set(
        wanted=Wanted(subject="participant", limit=2, window_s=DAY, gate=packet.gate),
        actor="test",
        rule_id=rule.pk,
    )
    forget_packets()
    assert visit("alice").post(route(second)).status == 200
    LimitRule.objects.update(is_active=False)
    forget_packets()
    assert registry.view(packet.pk).limits == ()  # type: ignore[union-attr]


@pytest.mark.parametrize("when_away", ["refuse", "allow"])
def test_while_redis_is_away(
    visit: Visit, packet: Packet, when_away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit("device", 1, when_away=when_away)
    alice = visit("alice", dev="d")
    first = alice.post(route(packet)).json
    monkeypatch.setattr(circuit.Circuit, "is_open", lambda self: True)

    assert alice.post(route(packet)).json["claim"] == first["claim"]
    answer = visit("bob", dev="d").post(route(packet))

    if when_away == "allow":
        assert answer.json["result"] == "won"
    else:
        assert (answer.status, answer.code) == (503, "unavailable")
        assert Claim.objects.count() == 1


def test_a_day_begins_at_midnight_of_its_time_zone() -> None:
    shanghai = limit("ip", 1, timezone="Asia/Shanghai").rule
    assert shanghai.offset_s == 8 * 3_600
    reply = limits.Charge(shanghai, "limit:{t}").ask().run(stock_client())
    asked = limits.asked(limits.Charge(shanghai, "limit:{t}"), reply)
    now = dt.datetime.now(dt.timezone(dt.timedelta(hours=8)))
    midnight = (now + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert abs(asked.wait_s - (midnight - now).total_seconds()) < 5


def test_an_inviter_is_counted_over_all_their_links(visit: Visit, packet: Packet) -> None:
    growth = CampaignGrowth.objects.create(campaign=packet.campaign_link.campaign)
    first, second = (link_of(growth, "ann", channel).code for channel in ("wechat", "qq"))
    other = link_of(growth, "bob").code
    limit("inviter", 2)

    def by(name: str, **said: str) -> int:
        return visit(name).post(route(packet), said).status

    assert by("a", share_code=first) == by("b", share_code=f" {second.lower()}") == 200
    assert by("c", share_code=first) == by("c", share_code=second) == 429
    assert by("a", share_code=first) == 200, "who has won hears so"
    assert by("d", share_code=other) == by("c") == by("e", share_code="0000000000") == 200
    world.wipe_redis()
    assert by("f", share_code=second) == 200, "counted anew, like every limit"


def test_whose_link_it_is_is_asked_once_and_nobodys_again() -> None:
    asked: list[str] = []

    def owner(code: str) -> bytes | None:
        asked.append(code)
        return b"ann" if code == "hers" else None

    inviters.answer_with(owner)
    try:
        found = [inviters.ask(code) for code in ("hers", "hers", "nobodys", "nobodys")]
        assert (inviters.known("hers"), inviters.known("nobodys")) == (b"ann", None)
    finally:
        inviters.answer_with(owner_of)

    assert found == [b"ann", b"ann", b"", b""]
    assert asked == ["hers", "nobodys", "nobodys"]
