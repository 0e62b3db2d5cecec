"""Switching a channel: by staff, with a reason; heeded by every process within five seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from campaign.models import CampaignChannel
from engine.models import AuditEvent
from engine.run.paths import CHECKOUT
from referrals.linking import spread
from tests.admin import desk
from tests.referrals.stage import link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)

EVERYWHERE_S = 5.0
PROCESSES = 2
# Looks at the way through the process's own memory, as the doors do, and says what it sees.
WATCH = """
import sys, time, uuid, django
django.setup()
from referrals.linking.spread import spread_of
campaign, seen, end = uuid.UUID(sys.argv[1]), None, time.monotonic() + 60
while time.monotonic() < end:
    now = spread_of(campaign).is_on("wechat", "link")
    if now is not seen:
        seen = now
        print("on" if now else "off", flush=True)
    if seen is False:
        break
    time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def _no_second_factor(settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = False
    spread.forget()


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
    assert switch(growth, "wechat:link:on").status_code == 302
    assert CampaignChannel.objects.get().is_on
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


def test_every_process_heeds_a_switch_within_five_seconds() -> None:
    growth = sharing()
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
    try:
        for watcher in watchers:
            assert watcher.stdout is not None and watcher.stdout.readline() == "on\n"
        assert switch(growth, "wechat:link:off").status_code == 302
        since = time.monotonic()
        for watcher in watchers:
            assert watcher.stdout is not None and watcher.stdout.readline() == "off\n"
        assert time.monotonic() - since < EVERYWHERE_S
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()
