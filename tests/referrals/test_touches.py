"""Claiming with a friend's code binds, after the claim and without costing it anything."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from campaign import services
from engine.lib import ids
from packets.claiming import flow
from packets.claiming.effects import ClaimDirect, Committed, Result, Verdict
from packets.claiming.journal import Journal
from packets.claiming.registry import registry
from packets.models import Claim, Packet, ShareTouch
from referrals.forest import touches
from referrals.forest.binding import BindResult
from referrals.models import Referral
from tests import world
from tests.campaign import stage as campaigns
from tests.referrals.stage import app_of, bind, link_of, sharing

pytestmark = pytest.mark.django_db(transaction=True)


def due_again() -> None:
    """As if every lease were over."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE packets_sharetouch SET due_at = at")


def test_a_winner_with_a_code_is_bound() -> None:
    growth = sharing(new_only=True)
    app = app_of(growth.campaign)
    packet = Packet.objects.get(campaigns=growth.campaign)
    code = link_of(growth, "ann").code

    for name, share_code in (("bob", code.lower()), ("cem", None), ("ann", code), ("dan", "no")):
        won = world.claim(packet, world.person(name, app), share_code=share_code)
        assert won.result is Result.WON

    assert ShareTouch.objects.count() == 3  # nothing was written for the claim without a code
    assert touches.touches_bind_due() == 1
    [row] = Referral.objects.all()
    assert bytes(row.invitee) == world.person("bob", app).participant
    assert bytes(row.inviter) == world.person("ann", app).participant
    assert row.source == Referral.Source.CLAIM
    assert not ShareTouch.objects.exists()


def test_a_repeat_changes_nothing() -> None:
    """Neither a second code for a claim, nor a sweep that was killed before it dropped the row."""
    growth = sharing()
    app = app_of(growth.campaign)
    packet = Packet.objects.get(campaigns=growth.campaign)
    for name in ("ann", "cem"):
        world.claim(packet, world.person("bob", app), share_code=link_of(growth, name).code)
        world.wipe_redis()  # the repeat goes through the commit again
    [touch] = ShareTouch.objects.all()

    assert touches.touches_bind_due() == 1
    touch.save(force_insert=True)
    assert touches.touches_bind_due() == 0
    due_again()
    assert touches.touches_bind_due() == 0

    assert bytes(Referral.objects.get().inviter) == world.person("ann", app).participant
    assert not ShareTouch.objects.exists()


@pytest.mark.parametrize("stop", [services.campaign_pause, services.campaign_end])
def test_a_campaign_that_stops_after_the_claim_costs_nobody_their_friend(stop: Any) -> None:
    growth = sharing()
    app, code = app_of(growth.campaign), link_of(growth, "ann").code
    world.claim(
        Packet.objects.get(campaigns=growth.campaign), world.person("bob", app), share_code=code
    )
    stop(campaign_id=growth.campaign.pk, actor=campaigns.ACTOR)

    assert touches.touches_bind_due() == 1
    growth.campaign.refresh_from_db()
    assert bind(growth, "cem", "ann") is BindResult.EXPIRED


def test_without_redis_too() -> None:
    growth = sharing()
    app, code = app_of(growth.campaign), link_of(growth, "ann").code
    packet = Packet.objects.get(campaigns=growth.campaign)
    view = registry.view(packet.id)
    assert view is not None
    bob = world.person("bob", app)
    journal, slot = Journal(), flow.slot_of(view, bob.participant)

    row = ClaimDirect(slot, app, "bob", blind=True, share_code=code)
    [answer] = journal.commit(slot.lane_id, [row])
    journal.close()

    assert isinstance(answer, Committed)
    assert answer.verdict is Verdict.WON
    assert touches.touches_bind_due() == 1


def test_whoever_won_before_is_not_new() -> None:
    app = campaigns.make_app()
    growth = sharing(app, new_only=True)
    first = Packet.objects.get(campaigns=growth.campaign)
    other = sharing(app, new_only=True)
    bob = world.person("bob", app.pk)
    world.claim(first, bob)
    world.claim(
        Packet.objects.get(campaigns=other.campaign), bob, share_code=link_of(other, "ann").code
    )

    assert touches.touches_bind_due() == 0
    assert not Referral.objects.exists()


def test_a_code_of_another_campaign_binds_nobody() -> None:
    app = campaigns.make_app()
    here, there = sharing(app), sharing(app)
    packet = Packet.objects.get(campaigns=here.campaign)

    world.claim(packet, world.person("bob", app.pk), share_code=link_of(there, "ann").code)

    assert touches.touches_bind_due() == 0
    assert not ShareTouch.objects.exists()


def test_a_code_whose_claim_was_never_won_is_dropped_in_the_end() -> None:
    claim = ids.claim_id(world.open_packet().id, b"x" * 16, 0)
    ShareTouch.objects.create(claim_id=claim, client_app_id=1, code="0123456789")

    touches.touches_bind_due()
    assert ShareTouch.objects.exists()  # its commit may be on the way
    with connection.cursor() as cursor:
        cursor.execute("UPDATE packets_sharetouch SET at = at - interval '2 hours', due_at = at")
    touches.touches_bind_due()

    assert not ShareTouch.objects.exists()
    assert not Claim.objects.exists()


def test_two_sweeps_take_different_rows() -> None:
    for number in range(4):
        claim = ids.claim_id(world.open_packet().id, bytes([number]) * 16, 0)
        ShareTouch.objects.create(claim_id=claim, client_app_id=1, code="0123456789")

    first, second = touches._take(), touches._take()

    assert (len(first), second) == (4, [])


def test_the_friend_who_typed_first_stays_bound() -> None:
    growth = sharing()
    app = app_of(growth.campaign)
    packet = Packet.objects.get(campaigns=growth.campaign)
    world.claim(packet, world.person("bob", app), share_code=link_of(growth, "ann").code)

    assert bind(growth, "bob", "cem") is BindResult.BOUND
    assert touches.touches_bind_due() == 0
    assert Referral.objects.count() == 1
