"""POST /campaigns/{slug}/referral and GET /me/referrals."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from campaign.models import CampaignGrowth
from engine.models import ClientApp
from packets.models import Claim, Packet, ShareTouch
from referrals.forest import binding
from referrals.forest.bans import ban_lift, person_ban
from referrals.linking import clicks
from referrals.models import Referral, Reward, Visit
from tests import world
from tests.api.answers import Answer
from tests.api.doors import DOORS, Visitor, forget_packets
from tests.campaign import stage
from tests.referrals.stage import link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)
Visit_ = Callable[..., Visitor]


@pytest.fixture
def growth(app: ClientApp) -> CampaignGrowth:
    return sharing(app)


def join(who: Visitor, growth: CampaignGrowth, **lead: object) -> Answer:
    return who.post(f"/campaigns/{growth.campaign.slug}/referral", lead)


def click_of(growth: CampaignGrowth, name: str) -> str:
    click = clicks.Click(id=uuid.uuid4(), at=1)
    Visit.objects.create(link=link_of(growth, name), vehicle="link", click_id=click.id)
    return clicks.sign(click)


def test_bob_types_anns_code(visit: Visit_, growth: CampaignGrowth) -> None:
    ann, bob = visit("ann"), visit("bobby")
    code = link_of(growth, "ann").code

    first = join(bob, growth, code=code.lower())
    again = join(bob, growth, code=code)
    herself = join(ann, growth, code=code)

    assert (first.status, first.json) == (200, {"result": "bound"})
    assert again.json == {"result": "already_bound"}
    assert herself.json == {"result": "self"}
    seen = ann.get("/me/referrals").json
    [friend] = seen["results"]
    assert (friend["who"], friend["channel"], friend["rewards"]) == ("b***y", "wechat", [])
    assert friend["campaign"] == growth.campaign.slug
    assert seen["next"] is None
    assert bob.get("/me/referrals").json["results"] == []


def test_bob_opens_anns_link(visit: Visit_, growth: CampaignGrowth) -> None:
    token = click_of(growth, "ann")

    assert join(visit("bob"), growth, click_token=token).json == {"result": "bound"}
    assert join(visit("cem"), growth, click_token=token).json == {"result": "expired"}
    assert join(visit("cem"), growth, click_token="x" * 60).json == {"result": "unknown_code"}
    assert join(visit("ann"), growth, code=link_of(growth, "bob").code).json == {"result": "cycle"}


def test_the_token_says_who_is_new(visit: Visit_, app: ClientApp) -> None:
    growth = sharing(app, new_only=True)
    code = link_of(growth, "ann").code

    assert join(visit("old", new=False), growth, code=code).json == {"result": "not_new"}
    assert join(visit("young", new=True), growth, code=code).json == {"result": "bound"}


def test_links_opened_earlier_are_named_too(visit: Visit_, growth: CampaignGrowth) -> None:
    CampaignGrowth.objects.filter(pk=growth.pk).update(attribution="first")
    earlier, code = click_of(growth, "ann"), link_of(growth, "cem").code

    bound = join(visit("bob"), growth, code=code, earlier_clicks=[earlier])

    assert bound.json == {"result": "bound"}
    assert Referral.objects.get().link == link_of(growth, "ann")


@pytest.mark.parametrize(
    "lead",
    [
        {},
        {"code": "A", "click_token": "b"},
        {"earlier_clicks": ["b"]},
        {"code": "A", "earlier_clicks": ["b"] * 21},
    ],
)
def test_one_lead_not_two(visit: Visit_, growth: CampaignGrowth, lead: dict[str, object]) -> None:
    answer = join(visit("bob"), growth, **lead)

    assert answer.status == 422
    assert not Referral.objects.exists()


def test_what_others_have_is_nobodys_here(visit: Visit_, growth: CampaignGrowth) -> None:
    elsewhere = sharing(stage.make_app())
    code = link_of(elsewhere, "ann").code

    assert join(visit("bob"), elsewhere, code=code).status == 404
    assert join(visit("bob"), growth, code=code).json == {"result": "unknown_code"}
    alone = stage.live(growth.campaign.client_apps.get())
    unshared = visit("bob").post(f"/campaigns/{alone.slug}/referral", {"code": code})
    assert unshared.json == {"result": "unknown_code"}
    assert not Referral.objects.exists()


def test_a_moving_tree_asks_to_come_again(
    visit: Visit_, growth: CampaignGrowth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "ATTEMPTS", 0)

    answer = join(visit("bob"), growth, code=link_of(growth, "ann").code)

    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


def test_an_inviter_sees_what_each_friend_brought(
    visit: Visit_, app: ClientApp, growth: CampaignGrowth
) -> None:
    for name in ("bob", "cem", "dan"):
        join(visit(name), growth, code=link_of(growth, "ann").code)
    packet = Packet.objects.get(campaigns=growth.campaign)
    world.claim(packet, world.person("ann", app.pk))
    ann, claim = world.person("ann", app.pk).participant, Claim.objects.get()
    bob, cem, _ = Referral.objects.order_by("id")
    common = {"side": "inviter", "participant": ann, "qualified_by": "test"}
    Reward.objects.create(referral=bob, state="granted", claim=claim, **common)
    Reward.objects.create(referral=cem, state="capped", **common)

    first = visit("ann").get("/me/referrals?limit=2").json
    rest = visit("ann").get(first["next"].split("/api/v1", 1)[1]).json

    rewards = [one["rewards"] for one in first["results"] + rest["results"]]
    assert rewards[0] == []
    [capped] = rewards[1]
    assert (capped["state"], capped["claim"], capped["amount_fen"]) == ("capped", None, None)
    [granted] = rewards[2]
    assert (granted["state"], granted["status"]) == ("granted", "committed")
    assert (granted["claim"], granted["amount_fen"]) == (claim.pk.hex, claim.amount_fen)
    assert rest["next"] is None


@pytest.mark.parametrize("name", sorted(DOORS))
def test_every_door_writes_down_the_code_of_a_claim(
    name: str, app: ClientApp, growth: CampaignGrowth
) -> None:
    packet = Packet.objects.get(campaigns=growth.campaign)
    bob = Visitor(DOORS[name](), f"Bearer {stage.token(app, 'bob')}")

    won = bob.post(f"/packets/{packet.pk.hex}/claims", {"share_code": 'a{"b\\c'})

    assert won.json["result"] == "won"
    [touch] = ShareTouch.objects.all()
    assert (touch.claim_id.hex, touch.code) == (won.json["claim"]["id"], 'a{"b\\c')
    assert touch.client_app_id == app.pk


def test_a_banned_person_is_blocked_at_both_doors_until_the_ban_is_lifted(
    app: ClientApp, growth: CampaignGrowth
) -> None:
    def claims(user: str, at: Packet) -> list[Any]:
        """What they hear at each door."""
        forget_packets()  # the second is over for which a process shows the same of a packet
        doors = [Visitor(make(), f"Bearer {stage.token(app, user)}") for make in DOORS.values()]
        return [door.post(f"/packets/{at.public_id}/claims").json for door in doors]

    def results(user: str, at: Packet) -> set[str]:
        return {heard["result"] for heard in claims(user, at)}

    here, elsewhere = stage.first_packet(growth.campaign), stage.first_packet(stage.live(app))
    assert results("bob", here) == {"won"}
    bans = [
        person_ban(
            participant=world.person(user, app.pk).participant,
            campaign=None if user == "dan" else growth.campaign,
            actor="staff:eva",
            reason="a farm",
        )
        for user in ("bob", "cem", "dan")
    ]

    assert all("claim" not in heard for heard in claims("cem", here))
    world.wipe_redis()
    assert results("cem", here) == results("dan", here) == results("dan", elsewhere) == {"blocked"}
    assert [heard["replayed"] for heard in claims("bob", here)] == [True, True], "it stays won"
    assert Claim.objects.count() == 1
    assert results("cem", elsewhere) == results("eve", here) == {"won"}

    for ban in bans[1:]:
        ban_lift(ban_id=ban.pk, actor="staff:zoe", reason="a mistake")
    assert results("cem", here) == results("dan", here) == {"won"}
