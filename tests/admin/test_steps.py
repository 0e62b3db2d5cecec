"""Every step of a campaign's life says what it costs, is asked once more, and asks who may."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from campaign import services
from campaign.models import Campaign
from campaign.versions import version_hash
from engine.staff import reauth
from packets.models import Gate
from tests import world
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_codes(settings: Any) -> None:
    """Second factors have their own stories."""
    settings.REQUIRE_SECOND_FACTOR = False


def step(campaign: Campaign, name: str) -> str:
    return f"{desk.HOME}{campaign.pk}/do/{name}/"


def ann(language: str = "en") -> Client:
    """Ann of operations, who writes campaigns."""
    return desk.at_desk("operations", "ann", language)


def bob(language: str = "en") -> Client:
    """Bob, who approves them."""
    return desk.at_desk("approver", "bob", language)


def pressed(client: Client, campaign: Campaign, name: str, **fields: str) -> Any:
    campaign.refresh_from_db()
    return client.post(step(campaign, name), {"version": campaign.version, **fields})


def state(campaign: Campaign) -> str:
    return Campaign.objects.get(pk=campaign.pk).state


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "¥1,000.00 will be frozen for this campaign."),
        ("zh-hans", "将为该活动冻结 ¥1,000.00。"),
    ],
)
def test_launching_says_how_much_money_is_frozen(language: str, words: str) -> None:
    campaign = stage.scheduled()

    page = ann(language).get(step(campaign, "launch")).content.decode()

    assert words in page


def test_a_launch_wants_the_campaigns_name_typed() -> None:
    campaign = stage.scheduled()
    author = ann()
    before = stage.everything()

    answer = pressed(author, campaign, "launch", typed="another")
    assert answer.status_code == 422
    assert "short name" in str(answer.context["form"].errors["typed"])
    assert stage.everything() == before

    assert pressed(author, campaign, "launch", typed=campaign.slug).status_code == 302
    assert state(campaign) == "live"


def test_money_wants_the_password_again_when_it_was_typed_long_ago() -> None:
    campaign = stage.scheduled()
    author = ann()
    session = author.session
    session[reauth.SESSION_KEY] -= reauth.FRESH_S + 1
    session.save()
    before = stage.everything()

    without = pressed(author, campaign, "launch", typed=campaign.slug)
    wrong = pressed(author, campaign, "launch", typed=campaign.slug, password="wrong")
    assert "password" in without.context["form"].errors
    assert "password" in wrong.context["form"].errors
    assert stage.everything() == before

    pressed(author, campaign, "launch", typed=campaign.slug, password=stage.PASSWORD)
    assert state(campaign) == "live"


def test_what_has_changed_meanwhile_is_not_confirmed() -> None:
    campaign = stage.live()
    author = ann()
    seen = Campaign.objects.get(pk=campaign.pk).version
    services.campaign_pause(campaign_id=campaign.pk, actor="staff:carol")
    services.campaign_resume(campaign_id=campaign.pk, actor="staff:carol")
    before = stage.everything()

    answer = author.post(step(campaign, "end"), {"version": seen, "typed": campaign.slug})

    assert answer.status_code == 422
    assert stage.everything() == before


def test_pause_resume_end_and_the_remainder_is_back() -> None:
    campaign = stage.live(budget_fen=100_000)
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    won = world.claim(packet, world.person("alice", app=app)).claim
    assert won is not None
    author = ann()

    pressed(author, campaign, "pause", reason="a look")
    assert state(campaign) == "paused"
    pressed(author, campaign, "resume", reason="")
    assert state(campaign) == "live"
    page = author.get(step(campaign, "end")).content.decode()
    left = 10_000 - won.portion.amount_fen
    assert f"¥{left // 100}.{left % 100:02d}" in page
    pressed(author, campaign, "end", typed=campaign.slug, reason="over")

    assert state(campaign) == "ended"
    account = Campaign.objects.get(pk=campaign.pk).account
    assert account.balance_fen == 100_000 - won.portion.amount_fen


@pytest.mark.parametrize("name", ["launch", "pause", "end", "kill", "settle", "submit"])
def test_support_has_no_buttons_and_is_refused(name: str) -> None:
    campaign = stage.live()
    support = desk.at_desk("support")
    before = stage.everything()

    page = support.get(f"{desk.HOME}{campaign.pk}/change/")
    answer = pressed(support, campaign, name, typed=campaign.slug)

    assert page.status_code == 200 and page.context["buttons"] == []
    assert answer.status_code == 403
    assert stage.everything() == before


def test_the_author_cannot_approve_neither_by_button_nor_by_request() -> None:
    """Ann has been made an approver too; her own work stays somebody else's to approve."""
    campaign = stage.draft()
    stage.add_packet(campaign)
    stage.submit(campaign)
    both = stage.member("operations", "ann")
    both.groups.add(Group.objects.get(name="approver"))
    author = ann()
    address = f"{desk.HOME}{campaign.pk}/review/"
    hash_ = version_hash(Campaign.objects.get(pk=campaign.pk))
    before = stage.everything()

    page = author.get(address)
    answer = author.post(address, {"then": "approve", "version_hash": hash_})

    assert page.context["may"] is False and 'value="approve"' not in page.content.decode()
    assert answer.status_code == 422
    assert stage.everything() == before


def test_the_approver_approves_the_version_that_was_read() -> None:
    campaign = stage.draft()
    stage.add_packet(campaign)
    stage.submit(campaign)
    address = f"{desk.HOME}{campaign.pk}/review/"
    read = version_hash(Campaign.objects.get(pk=campaign.pk))
    approver = bob()
    page = approver.get(address)
    assert read in page.content.decode() and page.context["may"] is True

    services.campaign_update(
        campaign_id=campaign.pk, actor=stage.ACTOR, by=stage.member("operations", "ann"),
        name_zh="别的",
    )  # fmt: skip
    services.campaign_submit(campaign_id=campaign.pk, by=stage.member("operations", "ann"))
    before = stage.everything()
    old = approver.post(address, {"then": "approve", "version_hash": read})
    assert old.status_code == 422
    assert stage.everything() == before

    current = version_hash(Campaign.objects.get(pk=campaign.pk))
    approver.post(address, {"then": "approve", "version_hash": current})
    assert state(campaign) in ("scheduled", "live")


def test_an_edit_after_the_approval_voids_it_and_the_approver_is_told() -> None:
    campaign = stage.scheduled()

    services.campaign_update(
        campaign_id=campaign.pk, actor=stage.ACTOR, by=stage.member("operations", "ann"),
        name_zh="别的",
    )  # fmt: skip

    assert state(campaign) == "draft"
    page = bob().get("/admin/").content.decode()
    assert "your approval is void" in page


def test_the_kill_switch_shows_on_every_page_while_it_is_on() -> None:
    approver = bob()
    before = approver.get(desk.HOME).content.decode()
    approver.post(f"{desk.HOME}kill-switch/", {"on": "yes", "reason": "a fraud"})

    pages = [ann().get(address).content.decode() for address in (desk.HOME, "/admin/")]

    assert Gate.objects.get(key=Gate.ALL).state == "paused"
    assert "ls-banner" not in before
    assert all("ls-banner" in page and "a fraud" in page for page in pages)
    refused = ann().post(f"{desk.HOME}kill-switch/", {"on": "no", "reason": "x"})
    assert refused.status_code == 403
    assert Gate.objects.get(key=Gate.ALL).state == "paused"
