"""Campaigns: what is refused changes nothing, what is done moves exactly the money it says."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest

from campaign import selectors, services
from campaign.models import Campaign
from campaign.tasks import campaign_clock
from engine.lib import clock
from engine.lib.errors import ServiceError, TransitionRefused
from packets import ledger, settlement
from packets.claiming.effects import Result
from packets.holds.resolving import hold_forfeit
from packets.models import ClaimState, Gate, Hold, Packet, Transfer
from tests import world
from tests.campaign import stage
from tests.packets.holding import freeze, rule, sound

pytestmark = pytest.mark.django_db(transaction=True)


def refused(act: Any, **arguments: Any) -> ServiceError:
    """The refusal of `act`, after checking that it changed nothing."""
    before = stage.everything()
    with pytest.raises(ServiceError) as caught:
        act(**arguments)
    assert stage.everything() == before
    return caught.value


def moves() -> list[tuple[str, str, str, int]]:
    """Every transfer: kind, from, to, amount."""
    return [
        (t.kind, t.debit_account.kind, t.credit_account.kind, t.amount_fen)
        for t in Transfer.objects.select_related("debit_account", "credit_account").order_by("id")
    ]


# --- making one


@pytest.mark.parametrize(
    ("wrong", "field", "code"),
    [
        ({"slug": "Not A Slug"}, "slug", "invalid"),
        ({"name_zh": "  "}, "name_zh", "blank"),
        ({"budget_fen": 0}, "budget_fen", "out_of_range"),
        ({"budget_fen": 2**53}, "budget_fen", "out_of_range"),
        ({"client_apps": []}, "client_apps", "blank"),
        ({"timezone_name": "Mars/Olympus"}, "timezone", "unknown"),
    ],
)
def test_a_campaign_that_makes_no_sense_is_refused(
    wrong: dict[str, Any], field: str, code: str
) -> None:
    now = clock.now()
    good = {
        "slug": "spring",
        "name_zh": "春节",
        "budget_fen": 1000,
        "starts_at": now,
        "ends_at": now + dt.timedelta(hours=1),
        "client_apps": [stage.make_app().pk],
        "actor": stage.ACTOR,
    }

    refusal = refused(services.campaign_create, **{**good, **wrong})

    assert (refusal.field, refusal.code) == (field, code)


def test_a_campaign_that_ends_before_it_starts_is_refused() -> None:
    now = clock.now()
    refusal = refused(
        services.campaign_create,
        slug="spring",
        name_zh="春节",
        budget_fen=1000,
        starts_at=now,
        ends_at=now,
        client_apps=[stage.make_app().pk],
        actor=stage.ACTOR,
    )
    assert (refusal.field, refusal.code) == ("ends_at", "ends_before_start")
    assert "end before it starts" in refusal.message


def test_a_slug_is_taken_once() -> None:
    app = stage.make_app()
    stage.draft(app, slug="spring")

    with pytest.raises(ServiceError) as caught:
        stage.draft(app, slug="spring")

    assert (caught.value.field, caught.value.code) == ("slug", "taken")
    assert Campaign.objects.count() == 1


HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("wrong", "field", "words"),
    [
        ({"count": 0}, "count", "must be more than zero"),
        ({"count": -3}, "count", "must be more than zero"),
        ({"min_fen": 1001}, "min_fen", "10 portions of at least ¥10.01 need ¥100.10"),
        ({"max_fen": 999}, "max_fen", "10 portions of at most ¥9.99 take ¥99.90"),
        ({"total_fen": 100_001}, "budget_fen", "budget of ¥1,000.00 is below the packets' sum"),
        ({"opens_at": "later", "closes_at": "sooner"}, "closes_at", "close before it opens"),
        ({"closes_at": "too late"}, "closes_at", "within the campaign's"),
        ({"strategy": "roulette"}, "strategy", "must be one of"),
    ],
)
def test_a_packet_that_cannot_be_cut_is_refused(
    wrong: dict[str, Any], field: str, words: str
) -> None:
    campaign = stage.draft(budget_fen=100_000)
    start, end = campaign.starts_at, campaign.ends_at
    moments = {"later": end - HOUR / 2, "sooner": start + HOUR / 4, "too late": end + HOUR}
    wrong = {name: moments.get(value, value) for name, value in wrong.items()}

    refusal = refused(
        services.campaign_packet_add,
        campaign_id=campaign.pk,
        actor=stage.ACTOR,
        **{"total_fen": 10_000, "count": 10, **wrong},
    )

    assert refusal.field == field
    assert words in refusal.message


def test_the_packets_together_never_exceed_the_budget() -> None:
    campaign = stage.draft(budget_fen=25_000)
    stage.add_packet(campaign, 10_000)
    stage.add_packet(campaign, 10_000)

    refusal = refused(
        services.campaign_packet_add,
        campaign_id=campaign.pk,
        actor=stage.ACTOR,
        total_fen=5_001,
        count=10,
    )

    assert (refusal.field, refusal.code) == ("budget_fen", "budget_below_packets")
    assert "¥250.00" in refusal.message and "¥250.01" in refusal.message


def test_a_budget_below_the_packets_sum_is_refused() -> None:
    campaign = stage.draft(budget_fen=25_000)
    stage.add_packet(campaign, 20_000)

    refusal = refused(
        services.campaign_budget_set,
        campaign_id=campaign.pk,
        budget_fen=19_999,
        actor=stage.ACTOR,
    )

    assert (refusal.field, refusal.code) == ("budget_fen", "budget_below_packets")
    changed = services.campaign_budget_set(
        campaign_id=campaign.pk, budget_fen=20_000, actor=stage.ACTOR
    )
    assert changed.budget_fen == 20_000


# --- the life cycle


def test_launching_moves_the_budget_in_and_opens_the_packets() -> None:
    campaign = stage.draft(budget_fen=100_000)
    packet = stage.add_packet(campaign, 30_000, 10)
    assert campaign.gate.state == "paused"

    campaign = stage.launch(campaign)

    assert campaign.state == "live"
    assert Gate.objects.get(pk=campaign.gate_id).state == "open"
    assert moves() == [
        ("fund", "external", "campaign", 100_000),
        ("open", "campaign", "escrow", 30_000),
    ]
    assert ledger.balance_fen(campaign.account_id) == 70_000
    assert world.claim(packet, world.person("alice", app=_app(campaign))).result is Result.WON
    assert stage.audited(campaign) == [
        "campaign.create",
        "campaign.packet_add",
        "campaign.submit",
        "campaign.approve",
        "campaign.launch",
    ]


def _app(campaign: Campaign) -> int:
    return campaign.client_apps.get().pk


def test_a_campaign_is_launched_once() -> None:
    campaign = stage.live()

    refusal = refused(services.campaign_launch, campaign_id=campaign.pk, actor=stage.ACTOR)

    assert isinstance(refusal, TransitionRefused)
    assert (refusal.state, refusal.wanted) == ("live", ("scheduled",))


@pytest.mark.parametrize("state", ["draft", "review", "scheduled"])
def test_what_nobody_has_approved_is_not_launched(state: str) -> None:
    """Not even where its state, by a defect or by hand, says that it may."""
    campaign = stage.draft()
    stage.add_packet(campaign)
    Campaign.objects.filter(pk=campaign.pk).update(state=state)

    refusal = refused(services.campaign_launch, campaign_id=campaign.pk, actor="x")

    assert refusal.code == ("not_approved" if state == "scheduled" else "transition_refused")


def test_a_paused_campaign_gives_nothing_and_a_resumed_one_does() -> None:
    campaign = stage.live()
    packet, app = stage.first_packet(campaign), _app(campaign)
    alice, bob = world.person("alice", app=app), world.person("bob", app=app)
    won = world.claim(packet, alice)

    services.campaign_pause(campaign_id=campaign.pk, actor=stage.ACTOR, reason="a look")

    assert world.claim(packet, bob).result is Result.PAUSED
    assert world.claim(packet, alice).claim == won.claim  # who has won hears so
    services.campaign_resume(campaign_id=campaign.pk, actor=stage.ACTOR)
    assert world.claim(packet, bob).result is Result.WON
    assert stage.audited(campaign)[-2:] == ["campaign.pause", "campaign.resume"]


@pytest.mark.parametrize(
    ("stop", "state"), [(services.campaign_kill, "killed"), (services.campaign_end, "ended")]
)
def test_stopping_returns_what_nobody_claimed(stop: Any, state: str) -> None:
    campaign = stage.live(budget_fen=50_000)
    packet, app = stage.first_packet(campaign), _app(campaign)
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None
    claimed_fen = won.claim.portion.amount_fen

    campaign = stop(campaign_id=campaign.pk, actor=stage.ACTOR, reason="over")

    packet.refresh_from_db()
    assert (campaign.state, packet.state) == (state, "closed")
    assert Gate.objects.get(pk=campaign.gate_id).state == "closed"
    assert moves()[-1] == ("close", "escrow", "campaign", 10_000 - claimed_fen)
    assert ledger.balance_fen(campaign.account_id) == 50_000 - claimed_fen
    assert world.claim(packet, world.person("bob", app=app)).result is Result.ENDED
    for verb in (services.campaign_resume, services.campaign_pause, services.campaign_end):
        refused(verb, campaign_id=campaign.pk, actor=stage.ACTOR)


def test_a_campaign_is_settled_when_every_claim_is_and_refunds_once() -> None:
    campaign = stage.live(budget_fen=50_000)
    packet, app = stage.first_packet(campaign), _app(campaign)
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None
    claimed_fen = won.claim.portion.amount_fen
    assert refused(services.campaign_settle, campaign_id=campaign.pk, actor="x").code == (
        "transition_refused"
    )
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)

    early = refused(services.campaign_settle, campaign_id=campaign.pk, actor=stage.ACTOR)
    assert (early.field, early.code) == ("claims", "claims_unsettled")

    for lane in packet.lanes.all():
        settlement.settle_lane(lane.pk)
    settled = services.campaign_settle(campaign_id=campaign.pk, actor=stage.ACTOR)

    assert settled.state == "settled"
    assert moves()[-1] == ("refund", "campaign", "external", 50_000 - claimed_fen)
    assert ledger.balance_fen(campaign.account_id) == 0
    refused(services.campaign_settle, campaign_id=campaign.pk, actor=stage.ACTOR)


def test_a_parked_claim_keeps_a_campaign_from_being_settled() -> None:
    campaign = stage.live()
    packet, app = stage.first_packet(campaign), _app(campaign)
    world.claim(packet, world.person("alice", app=app))
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)
    lane = packet.lanes.get()
    ClaimState.objects.create(claim=lane.claims.get(), state="parked", reason="refused")
    lane.cursor.settled_count = 1
    lane.cursor.save()

    refusal = refused(services.campaign_settle, campaign_id=campaign.pk, actor=stage.ACTOR)

    assert refusal.code == "claims_parked"


def test_the_kill_switch_stops_every_campaign_and_lets_go_again() -> None:
    one, two = stage.live(), stage.live()
    people = [world.person("alice", app=_app(c)) for c in (one, two)]
    packets = [stage.first_packet(c) for c in (one, two)]

    services.kill_switch_all(on=True, actor=stage.ACTOR, reason="drill")

    assert [world.claim(p, who).result for p, who in zip(packets, people, strict=True)] == [
        Result.PAUSED,
        Result.PAUSED,
    ]
    services.kill_switch_all(on=False, actor=stage.ACTOR)
    assert [world.claim(p, who).result for p, who in zip(packets, people, strict=True)] == [
        Result.WON,
        Result.WON,
    ]


def test_the_database_itself_refuses_nonsense() -> None:
    from django.db import IntegrityError, transaction

    campaign = stage.draft()
    for wrong in (
        {"budget_fen": 0},
        {"ends_at": campaign.starts_at},
        {"state": "party"},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Campaign.objects.filter(pk=campaign.pk).update(**wrong)


def test_an_open_hold_keeps_a_campaign_from_being_settled() -> None:
    """What is forfeited later would land in an account that nobody looks at any more."""
    rule(most=1)
    campaign = stage.live()
    app = _app(campaign)
    for packet in (stage.first_packet(campaign), stage.add_packet(campaign)):
        world.claim(packet, world.person("alice", app=app))
        settlement.settle_lane(packet.lanes.get().pk)
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)
    before = stage.everything()
    with pytest.raises(ServiceError) as refused:
        services.campaign_settle(campaign_id=campaign.pk, actor=stage.ACTOR)
    assert (refused.value.code, "1" in refused.value.message) == ("holds_open", True)
    assert stage.everything() == before

    hold = Hold.objects.get()
    hold_forfeit(hold_id=hold.pk, actor=stage.ACTOR, reason="a farm")
    settled = services.campaign_settle(campaign_id=campaign.pk, actor=stage.ACTOR)
    paid = Transfer.objects.get(kind="settle").amount_fen
    refund = Transfer.objects.get(kind="refund")
    assert (settled.state, refund.amount_fen) == ("settled", campaign.budget_fen - paid)


def test_what_is_forfeited_after_the_end_goes_outside_too() -> None:
    """Held out of a wallet when the campaign was long settled."""
    campaign = stage.live()
    packet, who = stage.first_packet(campaign), world.person("alice", app=_app(campaign))
    world.claim(packet, who)
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)
    settlement.settle_lane(packet.lanes.get().pk)
    services.campaign_settle(campaign_id=campaign.pk, actor=stage.ACTOR)
    assert campaign_clock()["refused"] == 0 and Transfer.objects.filter(kind="refund").count() == 1

    for _ in range(2):
        hold = freeze(who.participant, 10, campaign.account_id)
        assert hold is not None
        hold_forfeit(hold_id=hold.pk, actor=stage.ACTOR, reason="a farm")
        for _again in range(2):
            campaign_clock()
    refunds = Transfer.objects.filter(kind="refund").order_by("id")
    assert [refund.amount_fen for refund in refunds][1:] == [10, 10]
    assert ledger.balance_fen(campaign.account_id) == 0
    assert sound()


def test_what_is_forfeited_while_it_is_returned_is_returned_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It commits between two looks of the one who returns; else its name would be spent on an
    amount without it, and it could never leave."""
    campaign = stage.live()
    packet, who = stage.first_packet(campaign), world.person("alice", app=_app(campaign))
    world.claim(packet, who)
    services.campaign_end(campaign_id=campaign.pk, actor=stage.ACTOR)
    settlement.settle_lane(packet.lanes.get().pk)
    services.campaign_settle(campaign_id=campaign.pk, actor=stage.ACTOR)
    first, second = (freeze(who.participant, fen, campaign.account_id) for fen in (10, 7))
    assert first is not None and second is not None
    hold_forfeit(hold_id=first.pk, actor=stage.ACTOR, reason="a farm")
    look, started, waits = ledger.balance_fen, threading.Event(), threading.Event()

    def forfeits() -> None:
        started.wait(10)
        hold_forfeit(hold_id=second.pk, actor=stage.ACTOR, reason="a farm")
        waits.set()

    def looks(account_id: int) -> int:
        seen = look(account_id)
        started.set()
        waits.wait(0.5)  # it is done by then, or waits for the account
        return seen

    with monkeypatch.context() as slow:
        slow.setattr(ledger, "balance_fen", looks)
        world.together(
            [
                forfeits,
                lambda: services.campaign_return_late(campaign_id=campaign.pk, actor=stage.ACTOR),
            ]
        )
    campaign_clock()
    assert ledger.balance_fen(campaign.account_id) == 0
    assert sound()


def test_money_is_said_in_one_place() -> None:
    campaign = stage.live(budget_fen=50_000)
    packet, app = stage.first_packet(campaign), _app(campaign)
    won = world.claim(packet, world.person("alice", app=app))
    assert won.claim is not None

    money = selectors.campaign_money(Campaign.objects.get(pk=campaign.pk))

    assert money == selectors.CampaignMoney(
        budget_fen=50_000,
        free_fen=40_000,
        claimed_fen=won.claim.portion.amount_fen,
        claimed_count=1,
        unsettled_count=1,
        parked_count=0,
        open_holds=0,
        open_packets=1,
    )
    row: Any = selectors.campaigns_with_spending().get(pk=campaign.pk)
    assert (row.spent_fen, row.packet_count) == (money.claimed_fen, 1)
    assert Packet.objects.count() == 1
