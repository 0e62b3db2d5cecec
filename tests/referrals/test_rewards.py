"""Rewards: earned by the friend's first claim or an event, granted once, never beyond a budget."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest
from django.db import transaction
from django.db.models import Sum

from campaign.models import CampaignGrowth
from engine.lib import clock
from engine.models import EventKind, OutboxEvent
from engine.run.paths import CHECKOUT
from engine.webhooks.shapes import SHAPES
from packets import services
from packets.models import Claim, Ticket
from referrals.events.receiving import Event, events_receive
from referrals.models import Qualification, Reward
from referrals.rewarding import granting, qualifying, running
from tests import world
from tests.referrals.rewarding import (
    claims,
    due_again,
    known,
    open_to_all,
    qualified,
    rewarding,
    sweep,
    ticketed,
)
from tests.referrals.stage import app_of, bind
from tests.webhooks import stage as webhooks

pytestmark = pytest.mark.django_db(transaction=True)

DUPLICATES = 200


def given(growth: CampaignGrowth) -> dict[tuple[str, str], str]:
    """(person's digest, side) → how it ended, by the names of whom this campaign knows."""
    rows = Reward.objects.filter(referral__campaign=growth.campaign)
    return {(bytes(row.participant).hex(), row.side): row.state for row in rows}


def who(growth: CampaignGrowth, name: str) -> str:
    return world.person(name, app_of(growth.campaign)).participant.hex()


def reports(growth: CampaignGrowth, user: str, kind: str = "joined", **at: Any) -> None:
    """The app says so; `at` is given where the same event is sent again."""
    moment = at.get("at") or clock.now()
    event = Event(f"{user}:{kind}", user, kind, moment, growth.campaign.slug)
    [answer] = events_receive(client_app_id=app_of(growth.campaign), events=[event])
    assert answer.fault is None


# --- what qualifies -------------------------------------------------------------------------------


def test_the_friends_first_claim_rewards_both() -> None:
    growth = rewarding()
    known(growth, "ann")
    bind(growth, "bob", "ann")
    sweep()
    assert given(growth) == {}

    claims(growth, "bob")
    sweep()

    assert given(growth) == {
        (who(growth, "ann"), "inviter"): "granted",
        (who(growth, "bob"), "invitee"): "granted",
    }
    claim = Claim.objects.get(packet=open_to_all(growth))
    for row in Reward.objects.all():
        assert row.qualified_by == f"claim:{claim.pk.hex}"
        assert row.claim.amount_fen == 100
        assert bytes(row.claim.participant) == bytes(row.participant)
    sweep()
    assert Reward.objects.count() == 2


def test_a_claim_from_before_counts_only_where_it_brought_the_code(superuser_dsn: str) -> None:
    growth = rewarding()
    known(growth, "ann")
    for name in ("old", "with-code"):
        claims(growth, name)
        bind(growth, name, "ann")
    with psycopg.connect(superuser_dsn) as link:  # rows that nobody else may change
        link.execute("SET session_replication_role = replica")
        link.execute("UPDATE packets_claim SET committed_at = committed_at - interval '1 hour'")
        link.execute(
            "UPDATE referrals_referral SET source = 'claim' WHERE invitee = %s",
            [bytes.fromhex(who(growth, "with-code"))],
        )

    sweep()

    assert set(given(growth)) == {
        (who(growth, "ann"), "inviter"),
        (who(growth, "with-code"), "invitee"),
    }
    claims(growth, "old")  # answered again: no new claim
    sweep()
    assert Reward.objects.count() == 2


def test_an_event_qualifies_whichever_comes_first() -> None:
    growth = rewarding(qualifying="event", qualifying_event="joined")
    known(growth, "ann")
    reports(growth, "early")
    for name in ("early", "late", "other"):
        bind(growth, name, "ann")
    sweep()
    now = clock.now()
    reports(growth, "late", at=now)
    reports(growth, "other", "active")
    claims(growth, "other")
    for _ in range(2):  # sent again: nothing more
        reports(growth, "late", at=now)
    sweep()

    inviter = Reward.objects.filter(side="inviter").count()
    friends = {
        name
        for name in ("early", "late", "other")
        if (who(growth, name), "invitee") in given(growth)
    }
    assert (inviter, friends) == (2, {"early", "late"})
    app = app_of(growth.campaign)
    assert set(Reward.objects.values_list("qualified_by", flat=True)) == {
        f"event:{app}:early:joined",
        f"event:{app}:late:joined",
    }


def test_an_event_under_way_and_a_new_edge_do_not_miss_each_other() -> None:
    """The event is stored while the edge is bound: whoever looks at the edge waits for it."""
    assert _meet() == 2


@pytest.mark.control
def test_without_waiting_for_events_under_way_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualifying, "EVENTS", "nobody else's")
    monkeypatch.setattr(qualifying, "events_coming", lambda cursor: None)

    assert _meet() == 0


def _meet() -> int:
    """How many rewards there are when an event's transaction began before the edge was bound."""
    growth = rewarding(qualifying="event", qualifying_event="joined")
    known(growth, "ann")
    stored, bound = threading.Event(), threading.Event()

    def report() -> None:
        with transaction.atomic():
            reports(growth, "bob")
            stored.set()
            assert bound.wait(20)
            time.sleep(0.2)  # longer than a look takes; a slower one only finds more

    def look() -> None:
        assert stored.wait(20)
        bind(growth, "bob", "ann")
        bound.set()
        qualifying.edges_look()

    for result in world.together([report, look], threads=2):
        assert not isinstance(result, BaseException), result
    sweep()
    return Reward.objects.count()


# --- caps, depth, refusals ------------------------------------------------------------------------


def test_an_inviter_earns_no_more_than_the_cap() -> None:
    growth = rewarding(inviter_cap=2)
    for name in ("bob", "cem", "dan"):
        qualified(growth, name, "ann")

    sweep()

    states = Counter(Reward.objects.filter(side="inviter").values_list("state", flat=True))
    assert states == {"granted": 2, "capped": 1}
    assert Reward.objects.filter(side="invitee", state="granted").count() == 3


def test_rewards_reach_as_far_up_as_the_campaign_says_and_no_further() -> None:
    growth = rewarding(depth=2)
    known(growth, "top", "ann", "bob")
    bind(growth, "ann", "top")
    bind(growth, "bob", "ann")
    bind(growth, "cem", "bob")
    claims(growth, "cem")

    sweep()

    assert given(growth) == {
        (who(growth, "cem"), "invitee"): "granted",
        (who(growth, "bob"), "inviter"): "granted",
        (who(growth, "ann"), "ancestor"): "granted",
    }


def test_what_is_paused_waits_and_what_is_over_is_said_so() -> None:
    growth = rewarding()
    row = qualified(growth, "bob", "ann")
    assert growth.inviter_packet is not None
    services.packet_pause(packet_id=growth.inviter_packet.pk, actor="test")
    world.forget_views()

    running.qualification_run(referral_id=row.pk)

    row.refresh_from_db()
    assert row.trouble == "inviter: the claim says paused"
    assert row.done_at is None
    services.packet_resume(packet_id=growth.inviter_packet.pk, actor="test")
    world.forget_views()
    due_again()
    sweep()
    row.refresh_from_db()
    assert row.done_at is not None and row.trouble == ""
    assert set(given(growth).values()) == {"granted"}


def test_a_budget_that_is_used_up_is_said_and_nothing_is_paid() -> None:
    growth = rewarding(count=1, total_fen=100)
    for name in ("bob", "cem"):
        qualified(growth, name, "ann")

    sweep()

    states = Counter(Reward.objects.values_list("side", "state"))
    assert states == {
        ("inviter", "granted"): 1,
        ("invitee", "granted"): 1,
        ("inviter", "sold_out"): 1,
        ("invitee", "sold_out"): 1,
    }


def test_the_app_is_told_once() -> None:
    growth = rewarding()
    app = growth.campaign.client_apps.get()
    webhooks.make_endpoint(app, kinds=[EventKind.REWARD_GRANTED])
    row = qualified(growth, "bob", "ann")

    for _ in range(3):
        running.qualification_run(referral_id=row.pk)

    told = list(OutboxEvent.objects.order_by("key").values_list("key", "payload"))
    assert [key for key, _ in told] == [f"{row.pk}:invitee", f"{row.pk}:inviter"]
    for _, payload in told:
        msgspec.convert(payload, SHAPES[EventKind.REWARD_GRANTED])
    assert {payload["user"] for _, payload in told} == {"ann", "bob"}


# --- everybody at once ----------------------------------------------------------------------------


def at_once(work: Iterable[Callable[[], object]], threads: int = 16) -> None:
    for result in world.together(work, threads):
        assert not isinstance(result, BaseException), result


def test_two_hundred_duplicates_at_once_grant_one_reward_a_side() -> None:
    """The event itself is repeated, and so is everything that it sets going."""
    growth = rewarding(qualifying="event", qualifying_event="joined", count=400, total_fen=40_000)
    known(growth, "ann")
    bind(growth, "bob", "ann")
    row = Qualification.objects.get()

    now = clock.now()

    def again() -> None:
        reports(growth, "bob", at=now)
        running.qualification_run(referral_id=row.pk)

    at_once(again for _ in range(DUPLICATES))
    due_again()
    sweep()

    assert sorted(Reward.objects.values_list("side", "state")) == [
        ("invitee", "granted"),
        ("inviter", "granted"),
    ]
    assert Claim.objects.count() == Ticket.objects.count() == 2


@pytest.mark.control
def test_without_a_ticket_that_names_the_side_a_repeat_pays_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What holds is the ticket's key: each try with one of its own is a claim of its own."""
    growth = rewarding()
    row = qualified(growth, "bob", "ann")
    numbers = itertools.count()
    monkeypatch.setattr(
        granting.Share, "key", property(lambda share: f"laisee:reward:0:{next(numbers)}")
    )
    monkeypatch.setattr(granting, "_write", _dies)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            running.qualification_run(referral_id=row.pk)

    assert Claim.objects.filter(packet=growth.invitee_packet).count() == 3


def _dies(*args: Any, **named: Any) -> Reward:
    raise KeyboardInterrupt


def test_who_dies_between_the_claim_and_its_row_is_repeated_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    growth = rewarding()
    row = qualified(growth, "bob", "ann")
    with monkeypatch.context() as dying:
        dying.setattr(granting, "_write", _dies)
        with pytest.raises(KeyboardInterrupt):
            running.qualification_run(referral_id=row.pk)
    assert Reward.objects.count() == 0
    claimed = Claim.objects.get(packet=growth.invitee_packet)
    world.wipe_redis()

    due_again()
    sweep()

    assert Reward.objects.get(side="invitee").claim_id == claimed.pk
    assert set(given(growth).values()) == {"granted"}
    assert Claim.objects.filter(packet=growth.invitee_packet).count() == 1


def test_workers_that_are_killed_after_the_claim_leave_one_reward_a_side() -> None:
    growth = rewarding()
    row = qualified(growth, "bob", "ann")
    for _ in range(2):
        due_again()
        with subprocess.Popen(
            [sys.executable, "-m", "tests.referrals.reward_worker"],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            try:
                assert worker.stdout.readline() == "claimed\n"
            finally:
                worker.send_signal(signal.SIGKILL)
        assert (Reward.objects.count(), Claim.objects.filter(serial__gt=0).count()) == (0, 1)
    row.refresh_from_db()
    assert row.attempts == 2 and row.done_at is None

    due_again()
    sweep()

    assert set(given(growth).values()) == {"granted"}
    assert Claim.objects.filter(serial__gt=0).count() == Reward.objects.count() == 2


def _both_count_before_either_is_admitted(monkeypatch: pytest.MonkeyPatch, meet_s: float) -> None:
    both = threading.Barrier(2)
    real = granting._admitted

    def count(share: granting.Share) -> int:
        found = real(share)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(meet_s)
        return found

    monkeypatch.setattr(granting, "_admitted", count)


def _last_of_the_cap(monkeypatch: pytest.MonkeyPatch, meet_s: float) -> int:
    """Two friends qualify at once, and the inviter may earn one reward."""
    growth = rewarding(inviter_cap=1)
    rows = [qualified(growth, name, "ann") for name in ("bob", "cem")]
    _both_count_before_either_is_admitted(monkeypatch, meet_s)
    runs = [partial(running.qualification_run, referral_id=row.pk) for row in rows]
    at_once(runs, threads=2)
    return Reward.objects.filter(side="inviter", state="granted").count()


def test_two_at_once_do_not_both_get_the_last_reward_of_a_cap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The lock keeps one out while the other waits for it here.
    assert _last_of_the_cap(monkeypatch, meet_s=0.5) == 1


@pytest.mark.control
def test_without_the_persons_lock_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "_alone", lambda share: None)
    assert _last_of_the_cap(monkeypatch, meet_s=30.0) == 2


def _crowd(people: int, portions: int) -> CampaignGrowth:
    """So many friends of as many inviters have qualified."""
    growth = rewarding(
        qualifying="event", qualifying_event="joined", count=portions, total_fen=portions * 7
    )
    names = [f"i{number}" for number in range(people)]
    known(growth, *names)
    for number in range(people):
        bind(growth, f"f{number}", f"i{number}")
    events = [Event(f"e{n}", f"f{n}", "joined", clock.now()) for n in range(people)]
    events_receive(client_app_id=app_of(growth.campaign), events=events)
    return growth


def _budget_holds(people: int, portions: int) -> None:
    growth = _crowd(people, portions)
    rows = list(Qualification.objects.values_list("pk", flat=True))

    at_once((partial(running.qualification_run, referral_id=row) for row in rows), threads=16)
    due_again()
    sweep()

    for packet in (growth.inviter_packet, growth.invitee_packet):
        paid = Claim.objects.filter(packet=packet).aggregate(fen=Sum("amount_fen"))["fen"]
        assert paid == portions * 7
    states = Counter(Reward.objects.values_list("side", "state"))
    for side in ("inviter", "invitee"):
        assert states[side, "granted"] == portions
        assert states[side, "sold_out"] == people - portions
    assert Qualification.objects.filter(done_at=None).count() == 0


def test_more_qualify_at_once_than_the_budget_has_portions() -> None:
    _budget_holds(32, 20)


@pytest.mark.nightly
def test_five_hundred_qualify_at_once_and_not_a_fen_is_paid_too_much() -> None:
    _budget_holds(500, 400)


def test_a_late_reward_from_a_packet_that_was_replaced_earns_nobody_a_reward() -> None:
    """ann ← bob ← cem, and bob claims nothing himself: what he is paid for cem is no act of his."""
    growth = rewarding(ticketed={"total_fen": 5_000, "count": 10, "strategy": "fixed"})
    before = growth.inviter_packet
    assert before is not None
    known(growth, "ann", "bob")
    bind(growth, "bob", "ann")
    bind(growth, "cem", "bob")
    services.packet_pause(packet_id=before.pk, actor="staff:eva")
    claims(growth, "cem")
    sweep()  # bob is admitted to the packet that is paused
    CampaignGrowth.objects.filter(pk=growth.pk).update(inviter_packet=ticketed(growth))
    services.packet_resume(packet_id=before.pk, actor="staff:eva")
    world.forget_views()
    due_again()
    sweep()

    paid = Reward.objects.values_list("referral__invitee", "side", "state")
    cem = world.person("cem", app_of(growth.campaign)).participant
    assert sorted((bytes(friend) == cem, *rest) for friend, *rest in paid) == [
        (True, "invitee", "granted"),
        (True, "inviter", "granted"),
    ]
