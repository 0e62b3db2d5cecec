"""Switching a channel: by staff, with a reason; heeded by every process within five seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from campaign.channel_rules import RULES
from campaign.models import CampaignChannel, Channel, Vehicle
from campaign.services import channels_acknowledge
from engine.models import AuditEvent
from engine.run.paths import CHECKOUT
from referrals.forest.joining import Lead, friend_join
from referrals.forest.touches import touches_bind_due
from referrals.linking import clicks, complaints, spread
from referrals.linking.selectors import way_counts
from referrals.models import Visit
from tests import world
from tests.admin import desk
from tests.campaign import stage as campaigns
from tests.referrals.stage import app_of, bind, link_of, sharing
from tests.referrals.test_sharing import complain, look, open_to

pytestmark = pytest.mark.django_db(transaction=True)

EVERYWHERE_S = 5.0
PROCESSES = 2
# Looks at the way and at the complaints through the process's own memory, as the doors do, and says
# what it sees.
WATCH = """
import sys, time, uuid, django
django.setup()
from referrals.linking.complaints import mood_now
from referrals.linking.spread import spread_of
campaign, seen, end = uuid.UUID(sys.argv[1]), None, time.monotonic() + 60
while time.monotonic() < end:
    spread = spread_of(campaign)
    now = ("on" if spread.is_on("wechat", "link") else "off") + " " + mood_now(spread.growth)
    if now != seen:
        seen = now
        print(now, flush=True)
    if seen.startswith("off"):
        break
    time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False
    spread.forget()
    complaints.forget()


def switch(growth: Any, way: str, reason: str = "the platform blocks it") -> Any:
    address = f"/admin/referrals/sharelink/channels/{growth.campaign_id}/"
    return desk.at_desk("operations").post(address, {"way": way, "reason": reason})


def test_a_switch_needs_a_reason_and_is_written_down_once() -> None:
    growth = sharing()

    assert switch(growth, "wechat:link:off", reason="").status_code == 422
    assert not CampaignChannel.objects.exists()
    assert switch(growth, "wechat:link:off").status_code == 302
    assert switch(growth, "wechat:link:off").status_code == 302

    assert not CampaignChannel.objects.get().is_on
    [event] = AuditEvent.objects.filter(action="channel.off")
    assert (event.reason, event.object_id) == ("the platform blocks it", growth.campaign_id.hex)
    # On again wants the platform's rules read.
    assert switch(growth, "wechat:link:on").status_code == 422
    versions = {"wechat": RULES[Channel.WECHAT].version}
    by = campaigns.member("operations")
    channels_acknowledge(campaign_id=growth.campaign_id, versions=versions, by=by)
    assert switch(growth, "wechat:link:on").status_code == 302
    assert not CampaignChannel.objects.filter(is_on=False).exists()
    assert switch(growth, "wechat:pigeon:off").status_code == 422


def test_a_channel_that_was_not_approved_stays_closed_whatever_its_switch_says() -> None:
    growth = sharing(ways=["wechat/link"])
    CampaignChannel.objects.create(campaign=growth.campaign, channel="qq", vehicle="link")
    known = spread.read(growth.campaign_id)
    assert known is not None and known.ways("wechat") == ["link"] and known.ways("qq") == []

    address = f"/admin/referrals/sharelink/channels/{growth.campaign_id}/"
    matrix = desk.at_desk("operations").get(address).content.decode()
    assert matrix.count('name="way"') == 1
    CampaignChannel.objects.update(is_on=False)
    assert switch(growth, "qq:link:on").status_code == 422
    assert not CampaignChannel.objects.get().is_on


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_the_pages_of_channels_links_and_complaints_are_shown(language: str) -> None:
    growth = sharing()
    link = link_of(growth, "ann")
    client = desk.at_desk("risk")
    client.cookies["laisee_language"] = language
    at = "/admin/referrals/sharelink/"

    assert link.code in client.get(at).content.decode()
    assert str(growth.campaign_id) in client.get(f"{at}channels/").content.decode()
    matrix = client.get(f"{at}channels/{growth.campaign_id}/").content.decode()
    assert matrix.count('name="way"') == 9 * 4
    assert ("渠道" in matrix) == (language == "zh-hans")
    assert client.get("/admin/referrals/complaint/").status_code == 200
    assert client.get(f"{at}{link.pk}/change/").status_code == 200


def test_every_process_heeds_a_switch_and_complaints_within_five_seconds() -> None:
    growth, link = open_to(complaint_min_visits=10, complaint_per_mille=50)
    operator = campaigns.member("operations", "olga")
    for number in range(10):
        look(link, REMOTE_ADDR=f"10.0.{number}.1")
    watchers = [
        subprocess.Popen(
            [sys.executable, "-c", WATCH, str(growth.campaign_id)],
            cwd=CHECKOUT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "engine.settings"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]

    def all_see(what: str) -> float:
        since = time.monotonic()
        for watcher in watchers:
            assert watcher.stdout is not None and watcher.stdout.readline() == f"{what}\n"
        return time.monotonic() - since

    try:
        all_see("on open")
        complain(link, REMOTE_ADDR="10.0.1.1")  # one in ten; nobody of the staff does anything
        assert all_see("on slowed") < EVERYWHERE_S
        assert growth.campaign.notices.get(user=operator).details == {"mood": "slowed"}
        assert switch(growth, "wechat:link:off").status_code == 302
        assert all_see("off slowed") < EVERYWHERE_S
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()


def test_the_matrix_says_what_came_by_each_way_by_now() -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    link = link_of(growth, "ann")
    for vehicle, friend in (("qr", "bob"), ("qr", ""), ("poster", "")):
        visit = Visit.objects.create(
            link=link, campaign=growth.campaign, vehicle=vehicle, click_id=uuid.uuid4()
        )
        if friend:
            lead = Lead(click_token=clicks.sign(clicks.Click(visit.click_id, 1)))
            friend_join(campaign=growth.campaign, friend=world.person(friend, app), lead=lead)
    bind(growth, "cem", "ann")
    packet = campaigns.first_packet(growth.campaign)
    world.claim(packet, world.person("dan", app), share_code=link.code)
    touches_bind_due()

    ways = way_counts(growth.campaign_id)
    assert ways.visits == {("wechat", "qr"): 2, ("wechat", "poster"): 1}
    assert ways.joins == {("wechat", "qr"): 1, ("wechat", "text"): 1, ("wechat", ""): 1}
    client = desk.at_desk("risk")
    matrix = client.get(f"/admin/referrals/sharelink/channels/{growth.campaign_id}/")
    said = matrix.content.decode()
    for shown in ("2 → 1", "1 → 0", "0 → 1"):
        assert said.count(f">{shown}<") == 1


def test_unknown_revoked_and_switched_off_look_alike() -> None:
    growth, link = open_to()
    unknown = look("ZZZZZZZZZZ")
    link.revoked_at = link.created_at
    link.save()
    revoked = look(link)
    link.revoked_at = None
    link.save()
    for vehicle in Vehicle.values:
        assert switch(growth, f"wechat:{vehicle}:off").status_code == 302
    spread.forget()
    off = look(link)

    assert {one.status_code for one in (unknown, revoked, off)} == {404}
    assert unknown.content == revoked.content == off.content
    assert not Visit.objects.exists()
