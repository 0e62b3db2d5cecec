"""The demo's own app joins and claims for whoever holds a click, and is nowhere else."""

from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from campaign.demo import APP_SLUG, POOL_NAME
from campaign.models import CampaignGrowth
from packets.models import Claim, Hold, Participant
from referrals.demo import forest
from referrals.demo.app import caller_of, page_of
from referrals.linking import spread
from referrals.linking.links import link_share
from referrals.models import (
    GrowthSnapshot,
    Referral,
    Reward,
    RiskCase,
    RiskReward,
    ShareLink,
)
from tests.campaign import stage
from tests.referrals import rewarding

pytestmark = pytest.mark.django_db(transaction=True)
PHONE = "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 MicroMessenger/8.0.49"


@pytest.fixture
def growth(settings: Any) -> CampaignGrowth:
    settings.DEMO_APP = True
    spread.forget()
    return rewarding.rewarding(stage.make_app(APP_SLUG))


def link_of(growth: CampaignGrowth, who: str = "ann") -> ShareLink:
    person = caller_of(growth.campaign.client_apps.get(), who)
    return link_share(campaign=growth.campaign, caller=person, channel="wechat").link


def opened(link: ShareLink, address: str = "127.0.0.1") -> str:
    """Where the button of this link's page leads."""
    client = Client(headers={"User-Agent": PHONE}, REMOTE_ADDR=address)
    text = client.get(f"/s/{link.code}").content.decode()
    found = re.search(r'class="button" href="([^"]*)"', text)
    return found[1].replace("&amp;", "&") if found else ""


def click_of(address: str) -> str:
    [click] = re.findall(r"click=([^&]+)", address)
    return str(click)


def press(click: str, **headers: str) -> Any:
    return Client(headers=headers).post("/demo/app", {"click": click})


def test_a_click_is_one_person_however_often_they_press(growth: CampaignGrowth) -> None:
    click = click_of(opened(link_of(growth)))
    looked = Client().get("/demo/app", {"click": click})
    assert looked.status_code == 200 and not Claim.objects.exists(), "looking claims nothing"

    answers = [press(click) for _ in range(3)]

    amounts = {re.search(r"data-won>([^<]+)<", one.content.decode())[1] for one in answers}  # type: ignore[index]
    assert len(amounts) == 1
    assert Claim.objects.count() == Referral.objects.count() == 1


def test_a_friend_shares_on_with_a_link_of_their_own(growth: CampaignGrowth) -> None:
    first = press(click_of(opened(link_of(growth)))).content.decode()
    shared_on = ShareLink.objects.get(channel="other")
    assert f"/s/{shared_on.code}" in first
    press(click_of(opened(shared_on, "10.1.2.3")))
    assert sorted(Referral.objects.values_list("depth", flat=True)) == [1, 2]

    # Ann is paid too, who has only ever shared.
    rewarding.sweep()
    assert Reward.objects.filter(side="inviter", state="granted").count() == 2


def test_nothing_is_given_for_no_click_a_forged_one_or_from_elsewhere(
    growth: CampaignGrowth,
) -> None:
    click = click_of(opened(link_of(growth)))
    assert press("").status_code == 404
    assert press(click[:-2] + ("AA" if click[-2:] != "AA" else "BB")).status_code == 404
    assert press(click, **{"Sec-Fetch-Site": "cross-site"}).status_code == 404
    assert not Claim.objects.exists() and not Referral.objects.exists()


def test_where_it_is_off_there_is_no_such_page(growth: CampaignGrowth, settings: Any) -> None:
    link, own = link_of(growth), page_of("ann")
    click = click_of(opened(link))
    assert Client().get(own).status_code == 200
    for forged in (own[:-1], "/demo/me/ann"):
        assert Client().get(forged).status_code == 404
    settings.DEMO_APP = False
    assert opened(link) == "", "the campaign names no destination of its own"
    answers = [press(click), Client().get("/demo/app"), Client().get(own)]
    assert [one.status_code for one in answers] == [404] * 3
    assert not Claim.objects.exists()
    with pytest.raises(CommandError, match="isn't on"):
        call_command("demo_link")


def test_other_apps_links_lead_into_their_own_app(settings: Any) -> None:
    settings.DEMO_APP = True
    spread.forget()
    stage.make_app(APP_SLUG)
    other = rewarding.rewarding(
        destination="https://app.example/red", destination_hosts=["app.example"]
    )
    address = opened(link_of(other))
    assert address.startswith("https://app.example/red?click=")
    assert press(click_of(address)).status_code == 404


def test_one_command_prints_a_link_and_its_owners_page(growth: CampaignGrowth) -> None:
    out = io.StringIO()
    call_command("demo_link", user="ann", stdout=out)
    shared, earns = (line.split(": ", 1)[1] for line in out.getvalue().splitlines())
    assert urlsplit(shared).path == f"/s/{ShareLink.objects.get().code}"
    assert Client().get(urlsplit(earns).path).status_code == 200


def test_the_demos_forest_is_grown_once_and_its_farm_is_held(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEMO_APP = True
    spread.forget()
    monkeypatch.setattr(forest, "PEOPLE", 50)
    monkeypatch.setattr(forest, "FARMS", "star:0.4")
    growth = rewarding.rewarding(stage.make_app(APP_SLUG), count=200, total_fen=20_000)
    stage.add_packet(growth.campaign, 5_000, 50, name=POOL_NAME)

    said = [io.StringIO(), io.StringIO()]
    for out in said:
        call_command("grow_demo", stdout=out)

    assert "50 people" in said[0].getvalue() and "already" in said[1].getvalue()
    assert Participant.objects.count() == 50
    assert Reward.objects.filter(state="granted").exists()
    [case] = RiskCase.objects.all()
    assert case.members.count() == 20
    assert Hold.objects.count() == RiskReward.objects.filter(hold__isnull=False).count() > 0
    assert GrowthSnapshot.objects.exists()
    call_command("audit_money", stdout=io.StringIO())
