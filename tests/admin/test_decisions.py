"""Decisions by two people, and steps that can't be undone: what is said, asked for and refused."""

from __future__ import annotations

import datetime as dt

import pytest

from campaign import services
from campaign.models import Campaign, TopUp
from engine.lib import clock
from engine.lib.money import yuan
from engine.models import AuditEvent
from packets import settlement
from tests import world
from tests.admin import desk
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)


def submitted() -> Campaign:
    now = clock.now()
    campaign = stage.draft(
        starts_at=now + dt.timedelta(hours=1), ends_at=now + dt.timedelta(hours=2)
    )
    stage.add_packet(campaign)
    return stage.submit(campaign)


def test_killing_says_what_comes_back_and_what_stays() -> None:
    campaign = stage.live(budget_fen=50_000)
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None
    fen = won.claim.portion.amount_fen

    page = desk.at_desk().get(f"{desk.HOME}{campaign.pk}/do/kill/").content.decode()

    assert f"{yuan(fen)} that people have won stays theirs" in page
    assert f"{yuan(10_000 - fen)} that nobody has claimed will return" in page


def test_the_whole_life_by_buttons() -> None:
    campaign = stage.scheduled(budget_fen=50_000)
    ann, carol = desk.at_desk(name="ann"), desk.at_desk("finance", "carol")
    states = []
    for act in ("launch", "pause", "resume", "end"):
        assert desk.step(ann, campaign, act, reason="because").status_code == 302
        campaign.refresh_from_db()
        states.append(campaign.state)
    for lane in stage.first_packet(campaign).lanes.all():
        settlement.settle_lane(lane.pk)
    desk.step(carol, campaign, "settle")
    campaign.refresh_from_db()

    assert [*states, campaign.state] == ["live", "paused", "live", "ended", "settled"]
    assert AuditEvent.objects.get(action="campaign.pause").reason == "because"


@pytest.mark.parametrize("act", ["launch", "end", "kill"])
def test_what_can_not_be_undone_wants_the_name_typed(act: str) -> None:
    campaign = stage.scheduled() if act == "launch" else stage.live()
    ann = desk.at_desk()
    before = stage.everything()

    answer = desk.step(ann, campaign, act, typed="another")

    assert answer.status_code == 422
    assert "short name" in desk.refusals(answer)["typed"]
    assert stage.everything() == before


def test_a_step_that_does_not_exist_from_here_says_so() -> None:
    campaign = stage.live()
    ann = desk.at_desk()
    before = stage.everything()

    answer = ann.post(f"{desk.HOME}{campaign.pk}/do/launch/", follow=True)

    assert any("is live" in str(message) for message in answer.context["messages"])
    assert stage.everything() == before


def test_another_version_than_was_read_is_not_approved() -> None:
    campaign = submitted()
    bob = desk.at_desk("approver", "bob")
    before = stage.everything()

    answer = bob.post(
        f"{desk.HOME}{campaign.pk}/review/", {"then": "approve", "version_hash": "0" * 64}
    )

    assert answer.status_code == 422 and "version that you have read" in answer.content.decode()
    assert stage.everything() == before


def test_sending_back_wants_words_and_the_author_hears_them() -> None:
    campaign = submitted()
    bob = desk.at_desk("approver", "bob")
    address = f"{desk.HOME}{campaign.pk}/review/"
    before = stage.everything()

    silent = bob.post(address, {"then": "back", "reason": ""})
    assert "reason" in desk.refusals(silent) and stage.everything() == before
    bob.post(address, {"then": "back", "reason": "too dear"})

    campaign.refresh_from_db()
    assert campaign.state == "draft"
    assert "too dear" in desk.at_desk(name="ann").get("/admin/").content.decode()


def test_what_changed_since_the_last_approval_is_shown() -> None:
    campaign = stage.scheduled()
    services.campaign_update(
        campaign_id=campaign.pk, actor="staff:ann", name_zh="元宵", budget_fen=200_000
    )
    stage.submit(campaign)

    page = desk.at_desk("approver", "eve").get(f"{desk.HOME}{campaign.pk}/review/")

    changes = {str(row["label"]): (row["before"], row["after"]) for row in page.context["changes"]}
    assert changes["Budget"] == ("¥1,000.00", "¥2,000.00")
    assert changes["Name (Chinese)"] == ("春节红包", "元宵")


def test_more_budget_and_a_packet_by_two_people() -> None:
    campaign = stage.live()
    ann, bob = desk.at_desk(name="ann"), desk.at_desk("approver", "bob")

    ann.post(
        f"{desk.HOME}{campaign.pk}/top-up/",
        {
            "extra": "500",
            "reason": "more people",
            "typed": campaign.slug,
            "with_packet": "on",
            "packet-strategy": "lucky",
            "packet-total": "500",
            "packet-count": "50",
            "packet-evenness": "2",
        },
    )
    asked = TopUp.objects.get()
    address = f"{desk.HOME}top-up/{asked.pk}/"
    own = ann.post(address, {"then": "approve", "typed": campaign.slug})
    page = bob.get(address).content.decode()
    unnamed = bob.post(address, {"then": "approve", "typed": "another"})
    campaign.refresh_from_db()
    assert own.status_code == 403 and "typed" in desk.refusals(unnamed)
    assert campaign.budget_fen == 100_000 and "¥500.00 more will be frozen" in page

    bob.post(address, {"then": "approve", "typed": campaign.slug})

    campaign.refresh_from_db()
    assert campaign.budget_fen == 150_000 and campaign.links.count() == 2


def test_asking_for_nothing_or_without_the_name_changes_nothing() -> None:
    campaign = stage.live()
    ann = desk.at_desk(name="ann")
    address = f"{desk.HOME}{campaign.pk}/top-up/"
    before = stage.everything()

    nothing = ann.post(address, {"reason": "x", "typed": campaign.slug})
    unnamed = ann.post(address, {"extra": "5", "reason": "x"})

    assert "extra" in desk.refusals(nothing) and "typed" in desk.refusals(unnamed)
    assert stage.everything() == before


def test_the_end_moves_only_to_later() -> None:
    campaign = stage.live()
    ann = desk.at_desk(name="ann")
    address = f"{desk.HOME}{campaign.pk}/extend/"
    old = campaign.ends_at

    earlier = ann.post(address, {"ends_at": desk.local(dt.timedelta(minutes=5))})
    ann.post(address, {"ends_at": desk.local(dt.timedelta(hours=30))})

    campaign.refresh_from_db()
    assert "ends_at" in desk.refusals(earlier)
    assert campaign.ends_at > old + dt.timedelta(hours=20)
