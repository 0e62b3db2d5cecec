"""Pausing, killing and the kill switch hold also where Redis has forgotten them.

A Redis that restarts from an older file, or a replica that is promoted, brings back flags that say
`open`. Postgres was told first and every commit asks it, so nobody wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from campaign import services
from campaign.models import Campaign
from engine.lib.redis import stock as stock_client
from packets import stock
from packets.claiming.effects import Result
from packets.models import Claim, Gate, Packet
from tests import world
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)


def pause(campaign: Campaign) -> None:
    services.campaign_pause(campaign_id=campaign.pk, actor=stage.ACTOR)


def kill(campaign: Campaign) -> None:
    services.campaign_kill(campaign_id=campaign.pk, actor=stage.ACTOR)


def switch(campaign: Campaign) -> None:
    services.kill_switch_all(on=True, actor=stage.ACTOR)


def redis_forgets(packet: Packet) -> None:
    """Redis's flags as they were before anybody stopped anything."""
    stock_client().hset(stock.meta_key(packet.pk, 0), "state", "open")
    world.forget_views()


@pytest.mark.parametrize(
    ("stop", "result"), [(pause, Result.PAUSED), (kill, Result.ENDED), (switch, Result.PAUSED)]
)
def test_nobody_wins_though_redis_has_forgotten(
    stop: Callable[[Campaign], None], result: Result
) -> None:
    campaign = stage.live()
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    stop(campaign)
    redis_forgets(packet)

    answers = [world.claim(packet, world.person(f"user{i}", app=app)) for i in range(3)]

    assert {answer.result for answer in answers} == {result}
    assert Claim.objects.count() == 0


@pytest.mark.control
def test_control_if_postgres_were_not_told_the_forgotten_stop_would_be_a_win() -> None:
    campaign = stage.live()
    packet, app = stage.first_packet(campaign), campaign.client_apps.get().pk
    pause(campaign)
    redis_forgets(packet)
    Gate.objects.filter(pk=campaign.gate_id).update(state="open")

    assert world.claim(packet, world.person("alice", app=app)).result is Result.WON


def test_two_apps_users_of_one_name_are_two_people() -> None:
    """User 1001 of one app is not user 1001 of another: two claims, and not one wallet."""
    one, two = stage.make_app(), stage.make_app()
    campaign = stage.draft(one)
    campaign.client_apps.add(two)
    packet = stage.add_packet(campaign)
    stage.launch(campaign)
    people = [world.person("1001", app=app.pk) for app in (one, two)]

    answers: list[Any] = [world.claim(packet, who) for who in people]

    assert [answer.result for answer in answers] == [Result.WON, Result.WON]
    assert answers[0].claim.id != answers[1].claim.id
    assert not any(answer.replayed for answer in answers)
