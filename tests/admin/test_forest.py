"""The forest on the desk: edges, a person's place as a picture, a ban and its end."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from campaign.models import CampaignGrowth
from engine.lib.money import yuan
from engine.models import AuditEvent
from engine.staff.reauth import SESSION_KEY
from packets import settlement
from packets.holds.resolving import hold_release
from packets.models import Claim, Hold, Packet, Participant
from packets.selectors import wallet_balance
from referrals.forest import pictures
from referrals.forest.bans import person_ban
from referrals.models import Ban, Referral
from tests import world
from tests.admin import desk
from tests.campaign import stage
from tests.referrals.stage import app_of, bind, sharing
from tests.wallets import assert_sound

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/referrals/referral/"


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False


@pytest.fixture
def growth() -> CampaignGrowth:
    """Top invited Ann, who invited Bob, Cem and Dan; Bob invited Eve."""
    growth = sharing()
    for friend, inviter in (
        ("ann", "top"),
        ("bob", "ann"),
        ("cem", "ann"),
        ("dan", "ann"),
        ("eve", "bob"),
    ):
        bind(growth, friend, inviter)
    return growth


def who(growth: CampaignGrowth, name: str) -> bytes:
    return world.person(name, app_of(growth.campaign)).participant


def page_of(growth: CampaignGrowth, name: str) -> str:
    return reverse("admin:referrals_person", args=[growth.campaign.pk, who(growth, name).hex()])


def test_a_person_stands_between_inviter_and_friends(growth: CampaignGrowth) -> None:
    ria = desk.at_desk("risk")

    page = ria.get(page_of(growth, "ann")).content.decode()
    listed = ria.get(LIST, {"q": who(growth, "bob").hex()}).content.decode()
    edge = Referral.objects.get(invitee=who(growth, "eve"))
    row = ria.get(f"{LIST}{edge.pk}/change/").content.decode()

    assert [who(growth, name).hex() in row for name in ("eve", "bob", "top")] == [True] * 3
    assert page.count("data-dot=") == 6 and page.count("<line ") == 5
    for name in ("top", "ann", "bob", "cem", "dan", "eve"):
        assert f'data-dot="{who(growth, name).hex()}"' in page
    # Bob's own row and Eve's, whom he invited; nobody else's.
    assert listed.count(page_of(growth, "bob")) == 2
    assert page_of(growth, "cem") not in listed
    chinese = desk.at_desk("risk", "zoe", lang="zh-hans").get(page_of(growth, "ann"))
    assert "谁邀请了谁" in chinese.content.decode()


def test_the_picture_has_a_bound(growth: CampaignGrowth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BELOW", 2)

    drawn = pictures.picture(growth.campaign.pk, who(growth, "ann"))

    [ann] = [dot for dot in drawn.dots if dot.is_self]
    assert (len(drawn.dots), ann.friends, ann.more) == (4, 3, 1)
    assert len({(dot.x, dot.y) for dot in drawn.dots}) == 4
    alone = pictures.picture(growth.campaign.pk, who(growth, "nobody"))
    assert len(alone.dots) == 1 and not alone.lines


def test_a_ban_wants_a_reason_and_the_password_and_can_be_lifted(growth: CampaignGrowth) -> None:
    ria = desk.at_desk("risk")
    path = page_of(growth, "ann") + "ban/"
    assert "are held." in ria.get(path).content.decode()
    session = ria.session
    session.pop(SESSION_KEY, None)
    session.save()
    for words in ({"reason": "farm"}, {"reason": "farm", "password": "wrong"}, {}):
        assert ria.post(path, words).status_code == 422
    assert not Ban.objects.exists()

    assert ria.post(path, {"reason": "farm", "password": stage.PASSWORD}).status_code == 302
    again = ria.post(path, {"reason": "farm", "password": stage.PASSWORD})
    assert again.status_code == 422 and "banned already" in again.content.decode()
    assert "data-banned" in ria.get(page_of(growth, "ann")).content.decode()
    assert ria.get("/admin/referrals/ban/").status_code == 200
    row = Ban.objects.get()
    lift = f"{LIST}ban/{row.pk}/lift/"
    assert ria.post(lift, {"reason": "shop", "password": stage.PASSWORD}).status_code == 302

    row.refresh_from_db()
    assert (row.banned_by, row.lifted_by, row.lift_reason) == ("staff:risk", "staff:risk", "shop")
    assert "data-banned" not in ria.get(page_of(growth, "ann")).content.decode()
    acts = AuditEvent.objects.filter(object_type="ban").order_by("id")
    assert list(acts.values_list("action", flat=True)) == ["person.ban", "person.unban"]


def test_who_may_not_ban_looks_only(growth: CampaignGrowth) -> None:
    ann = desk.at_desk("operations")
    made = person_ban(
        participant=who(growth, "cem"), campaign=None, actor="staff:eva", reason="farm"
    )

    assert "data-act" not in ann.get(page_of(growth, "ann")).content.decode()
    assert ann.post(f"{LIST}ban/{made.pk}/lift/", {"reason": "x"}).status_code == 403
    assert ann.get(f"{LIST}person/{growth.campaign.pk}/nonsense/").status_code == 404


def test_what_somebody_won_here_is_held_once_and_nothing_else(growth: CampaignGrowth) -> None:
    """Never more than is there, and never what was won elsewhere."""
    ria, app = desk.at_desk("risk"), app_of(growth.campaign)
    packet = Packet.objects.get(campaigns=growth.campaign)
    elsewhere = world.open_packet(500, 1, client_apps=[app])
    for one in (packet, elsewhere):
        world.claim(one, world.person("ann", app))
        while settlement.settle_lane(one.lanes.get().pk).left:
            pass
    won = Claim.objects.get(packet=packet).amount_fen
    path = page_of(growth, "ann") + "hold/"
    assert f"{path}" in ria.get(page_of(growth, "ann")).content.decode()
    assert ria.post(path, {}).status_code == 422

    assert yuan(won) in ria.get(path).content.decode()
    assert ria.post(path, {"reason": "a look"}).status_code == 302
    again = ria.post(path, {"reason": "a look"})

    assert again.status_code == 422 and "in this campaign" in again.content.decode()
    hold = Hold.objects.get()
    assert (hold.amount_fen, hold.reasons, hold.opened_by) == (won, ["staff"], "staff:risk")
    assert hold.funder_id == growth.campaign.account_id
    assert wallet_balance(who(growth, "ann")).available_fen == 500
    hold_release(hold_id=hold.pk, actor="staff:eva", reason="fine")
    assert ria.post(path, {"reason": "another look"}).status_code == 302
    assert desk.at_desk("operations").get(path).status_code == 403
    assert ria.get(path.replace(who(growth, "ann").hex(), "zz")).status_code == 404
    assert_sound()


def test_a_person_is_erased_at_the_desk_or_it_says_what_is_left(growth: CampaignGrowth) -> None:
    ria, app = desk.at_desk("risk"), app_of(growth.campaign)
    path = reverse("admin:referrals_erase")
    world.claim(Packet.objects.get(campaigns=growth.campaign), world.person("ann", app))
    Participant.objects.create(digest=who(growth, "dan"), client_app_id=app, subject="dan")
    words = {"app": app, "reason": "by mail"}

    assert "No money moves" in ria.get(path).content.decode()
    unfinished = ria.post(path, {**words, "user": "ann"})
    unknown = ria.post(path, {**words, "user": "Dan"})
    assert Participant.objects.count() == 2
    assert ria.post(path, {**words, "user": "dan"}).status_code == 302

    assert unfinished.status_code == unknown.status_code == 422
    assert "claims that aren&#x27;t settled (1, ¥" in unfinished.content.decode()
    assert "Nothing that says who they are is kept." in unknown.content.decode()
    assert Participant.objects.get().subject == "ann"
    event = AuditEvent.objects.get(action="person.erase")
    assert (event.actor, event.reason) == ("staff:risk", "by mail")
    chinese = desk.at_desk("risk", "zoe", lang="zh-hans").get(path).content.decode()
    assert "没有资金变动" in chinese
