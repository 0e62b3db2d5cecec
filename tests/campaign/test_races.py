"""Moves of one campaign at the same time: each state is left once, and nothing leaves the end."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest

from campaign import convergence, services
from campaign.models import Campaign
from campaign.services import life
from campaign.tasks import campaign_clock
from engine.lib import clock
from engine.lib.errors import TransitionRefused
from packets import ledger
from packets.models import Gate, Packet, Transfer
from tests import world
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)


def run(campaign: Campaign, *acts: Callable[..., Campaign]) -> Counter[str]:
    """All `acts` at once on the campaign; how many did and how many were refused."""
    results = world.together(
        [partial(act, campaign_id=campaign.pk, actor=stage.ACTOR) for act in acts],
        threads=len(acts),
    )
    other = [r for r in results if not isinstance(r, Campaign | TransitionRefused)]
    assert not other, other
    return Counter("refused" if isinstance(r, TransitionRefused) else "did" for r in results)


@contextmanager
def without_guard() -> Iterator[None]:
    """The transition as a plain UPDATE after a look, which is what the condition protects from."""

    def unguarded(campaign_id: uuid.UUID, sources: Any, target: Any) -> Campaign:
        Campaign.objects.filter(pk=campaign_id).update(state=target)
        return Campaign.objects.get(pk=campaign_id)

    with mock.patch.object(life, "_transition", unguarded):
        yield


def test_eight_launches_at_once_fund_the_campaign_once() -> None:
    campaign = stage.scheduled(budget_fen=50_000)

    assert run(campaign, *[services.campaign_launch] * 8) == {"did": 1, "refused": 7}

    campaign.refresh_from_db()
    assert campaign.state == "live"
    assert Transfer.objects.filter(kind="fund").count() == 1
    assert Transfer.objects.filter(kind="open").count() == 1
    assert ledger.balance_fen(campaign.account_id) == 40_000
    assert stage.audited(campaign).count("campaign.launch") == 1


def test_end_and_pause_at_once_leave_the_campaign_ended() -> None:
    for _ in range(5):
        campaign = stage.live()

        run(campaign, services.campaign_pause, services.campaign_end)

        campaign.refresh_from_db()
        assert campaign.state == "ended"
        assert Gate.objects.get(pk=campaign.gate_id).state == "closed"
        assert stage.first_packet(campaign).state == "closed"


@pytest.mark.control
def test_control_without_the_condition_an_ended_campaign_comes_back() -> None:
    campaign = stage.live()
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)

    with without_guard():
        services.campaign_pause(campaign_id=campaign.pk, actor=stage.ACTOR)

    campaign.refresh_from_db()
    assert campaign.state == "paused"  # it left a state that has no way out


def test_kill_and_resume_at_once_leave_nothing_open() -> None:
    for _ in range(5):
        campaign = stage.live()
        services.campaign_pause(campaign_id=campaign.pk, actor=stage.ACTOR)

        run(campaign, services.campaign_resume, services.campaign_kill)

        campaign.refresh_from_db()
        assert campaign.state == "killed"
        assert Gate.objects.get(pk=campaign.gate_id).state == "closed"
        assert stage.first_packet(campaign).state == "closed"


def test_two_settlements_at_once_refund_once() -> None:
    campaign = stage.live(budget_fen=50_000)
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)

    assert run(campaign, *[services.campaign_settle] * 4) == {"did": 1, "refused": 3}

    assert [t.amount_fen for t in Transfer.objects.filter(kind="refund")] == [50_000]
    assert ledger.balance_fen(campaign.account_id) == 0


def test_packets_added_at_once_stay_within_the_budget() -> None:
    campaign = stage.draft(budget_fen=35_000)

    results = world.together(
        [lambda: stage.add_packet(campaign, 10_000) for _ in range(8)], threads=8
    )

    made = [r for r in results if isinstance(r, Packet)]
    assert len(made) == 3
    assert sorted(link.order for link in campaign.links.all()) == [1, 2, 3]


def test_people_claim_while_the_campaign_is_ended_and_the_books_agree() -> None:
    campaign = stage.draft(budget_fen=100_000)
    packet = stage.add_packet(campaign, 100_000, 1_000)
    stage.launch(campaign)
    app = campaign.client_apps.get().pk
    work: list[Callable[[], Any]] = [
        partial(world.claim, packet, world.person(f"user{i}", app=app)) for i in range(150)
    ]
    work.insert(60, lambda: services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR))

    results: list[Any] = world.together(work, threads=12)

    assert not [r for r in results if isinstance(r, BaseException)]
    won = sum(r.claim.portion.amount_fen for r in results if getattr(r, "claim", None))
    packet.refresh_from_db()
    assert packet.state == "closed"
    assert packet.escrow_id is not None
    assert ledger.balance_fen(packet.escrow_id) == won  # what waits for settlement, no fen more
    assert ledger.balance_fen(campaign.account_id) == 100_000 - won


def test_two_clocks_end_a_campaign_once() -> None:
    campaign = stage.live()
    Campaign.objects.filter(pk=campaign.pk).update(ends_at=clock.now())

    results = world.together([campaign_clock] * 4, threads=4)

    assert not [r for r in results if isinstance(r, BaseException)]
    campaign.refresh_from_db()
    assert campaign.state == "ended"
    assert stage.audited(campaign).count("campaign.end") == 1
    assert Transfer.objects.filter(kind="close").count() == 1


def test_the_clock_finishes_what_a_dead_process_began() -> None:
    """A process died right after its transition: the gate and the packets lag behind."""
    campaign = stage.live()
    dies = mock.patch.object(life, "campaign_converge", side_effect=KeyboardInterrupt)
    with dies, pytest.raises(KeyboardInterrupt):
        services.campaign_kill(campaign_id=campaign.pk, actor=stage.ACTOR)
    assert Gate.objects.get(pk=campaign.gate_id).state == "open"

    first, second = campaign_clock(), campaign_clock()

    assert (first["converged"], second["converged"]) == (1, 0)
    assert Gate.objects.get(pk=campaign.gate_id).state == "closed"
    assert stage.first_packet(campaign).state == "closed"
    assert ledger.balance_fen(campaign.account_id) == 100_000


def test_a_slow_launch_does_not_open_the_gate_of_a_paused_campaign() -> None:
    """The gate follows the state under its lock, not one that was read earlier."""
    campaign = stage.live()
    follow = convergence._gate_follow
    seen: list[str] = []

    def paused_meanwhile(*arguments: Any) -> None:
        with mock.patch.object(convergence, "_gate_follow", follow):
            if not seen:
                services.campaign_pause(campaign_id=campaign.pk, actor="staff:bob")
        follow(*arguments)
        seen.append(Gate.objects.get(pk=campaign.gate_id).state)

    with mock.patch.object(convergence, "_gate_follow", paused_meanwhile):
        convergence.campaign_converge(campaign_id=campaign.pk, actor=stage.ACTOR)

    assert set(seen) == {"paused"}  # never open, not for a moment
