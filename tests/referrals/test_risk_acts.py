"""What follows from a case: challenges, refusals, and a reviewer's acts on all of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from campaign.models import CampaignGrowth
from engine.lib import clock
from engine.lib.errors import ServiceError
from engine.models import AuditEvent, EventKind, OutboxEvent
from packets.holds.resolving import hold_forfeit
from packets.models import Hold
from packets.selectors import wallet_balance
from referrals.events.receiving import Event, events_receive
from referrals.models import (
    Decision,
    Qualification,
    Reward,
    RiskAct,
    RiskCase,
    RiskMember,
    RiskPolicy,
)
from referrals.risk import acts, cases
from referrals.tasks import risk_work
from tests import wallets, world
from tests.referrals import rewarding
from tests.referrals.farming import CHAIN, farm_and_family, pay_out, sweep, who
from tests.referrals.stage import app_of
from tests.webhooks import stage as webhooks

pytestmark = pytest.mark.django_db(transaction=True)
Kind = RiskAct.Kind


def suspected(growth: CampaignGrowth, decision: Decision, *names: str) -> RiskCase:
    """A case that the sweep has just found."""
    found = RiskCase(
        campaign=growth.campaign, score=50, decision=decision, policy=RiskPolicy.objects.get()
    )
    cases._write(found, [who(growth, name) for name in names])
    return RiskCase.objects.get()


def sides() -> dict[str, str]:
    return dict(Reward.objects.values_list("side", "state"))


def passed(growth: CampaignGrowth, name: str, key: str = "1") -> None:
    app = app_of(growth.campaign)
    events_receive(client_app_id=app, events=[Event(key, name, "challenge_passed", clock.now())])


def test_a_challenged_person_is_rewarded_once_they_have_passed() -> None:
    growth = rewarding.rewarding()
    app = growth.campaign.client_apps.get()
    webhooks.make_endpoint(app, kinds=[EventKind.CHALLENGE_ASKED])
    rewarding.qualified(growth, "bob", "ann")
    passed(growth, "ann", "before she was asked")
    case = suspected(growth, Decision.CHALLENGE, "ann")

    rewarding.sweep()

    assert sides() == {"invitee": "granted"}, "bob was asked nothing"
    assert "risk: challenge" in Qualification.objects.get().trouble
    [told] = OutboxEvent.objects.all()
    assert told.payload == {"campaign": growth.campaign.slug, "user": "ann"}

    passed(growth, "bob", "another")
    rewarding.sweep()
    assert sides() == {"invitee": "granted"}

    passed(growth, "ann")
    rewarding.sweep()

    assert sides() == {"invitee": "granted", "inviter": "granted"}
    member = case.members.get()
    assert member.cleared_at is not None and member.cleared_by == "challenge"
    risk_work()
    assert not Hold.objects.exists()


def test_who_is_denied_gets_nothing_until_a_reviewer_lets_them_go() -> None:
    growth = rewarding.rewarding()
    rewarding.qualified(growth, "bob", "ann")
    case = suspected(growth, Decision.DENY, "ann")

    rewarding.sweep()
    passed(growth, "ann")
    rewarding.due_again()
    rewarding.sweep()
    assert sides() == {"invitee": "granted"}
    assert "risk: deny" in Qualification.objects.get().trouble

    acts.act_ask(case=case, kind=Kind.RELEASE, actor="staff:eva", reason="a real friend")
    risk_work()
    rewarding.sweep()

    assert sides() == {"invitee": "granted", "inviter": "granted"}
    assert case.members.get().cleared_by == "staff:eva"


def test_a_case_gets_harder_and_never_milder_by_itself() -> None:
    growth = rewarding.rewarding()
    rewarding.qualified(growth, "bob", "ann")
    suspected(growth, Decision.CHALLENGE, "ann")
    suspected(growth, Decision.HOLD, "ann", "bob")

    case = suspected(growth, Decision.CHALLENGE, "ann", "bob")

    assert case.decision == Decision.HOLD and case.members.count() == 2
    told = AuditEvent.objects.filter(action="risk.case").order_by("id")
    assert [one.after["decision"] for one in told] == ["challenge", "hold"]
    assert told[1].before["decision"] == "challenge" and told[1].after["people"] == 1
    passed(growth, "ann")
    assert not RiskMember.objects.exclude(cleared_at=None).exists()


@pytest.fixture
def case() -> RiskCase:
    """A chain of eight whose rewards are held."""
    growth = farm_and_family()
    pay_out(growth, "purse-1", *CHAIN)
    sweep()
    assert Hold.objects.filter(state="open").count() == len(CHAIN)
    return RiskCase.objects.get()


def balances(case: RiskCase) -> tuple[int, int]:
    """What the people of the case have, and what of theirs is held."""
    found = [wallet_balance(bytes(one.participant)) for one in case.members.all()]
    return sum(one.available_fen for one in found), sum(one.held_fen for one in found)


def test_all_of_a_case_is_released_and_left_alone_from_then_on(case: RiskCase) -> None:
    _, held_fen = balances(case)
    act = acts.act_ask(case=case, kind=Kind.RELEASE, actor="staff:eva", reason="a school class")
    with pytest.raises(ServiceError) as refusal:
        acts.act_ask(case=case, kind=Kind.FORFEIT, actor="staff:tom", reason="a farm")
    assert refusal.value.code == "running"

    risk_work()
    sweep()

    act.refresh_from_db()
    assert (act.of, act.done, act.done_at is None) == (len(CHAIN), len(CHAIN), False)
    assert balances(case) == (held_fen, 0)
    assert not case.members.filter(cleared_at=None).exists()
    assert set(Hold.objects.values_list("state", "resolved_by")) == {("released", "staff:eva")}
    told = AuditEvent.objects.get(action="risk_case.release")
    assert told.reason == "a school class" and told.after["of"] == len(CHAIN)
    assert AuditEvent.objects.filter(action="hold.release").count() == len(CHAIN)
    wallets.assert_sound()


def test_whoever_is_killed_or_has_worked_for_long_leaves_the_rest_due(
    case: RiskCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acts, "STEP", 2)
    monkeypatch.setattr(acts, "hold_forfeit", dying := Dying(after=3))
    act = acts.act_ask(case=case, kind=Kind.FORFEIT, actor="staff:eva", reason="a farm")
    forfeited = Hold.objects.filter(state="forfeited")

    with pytest.raises(KeyboardInterrupt):
        acts.act_run(act.pk)
    assert forfeited.count() == 3
    dying.after = 100
    acts.act_run(act.pk, run_s=-1)
    act.refresh_from_db()
    assert forfeited.count() == 5 and act.done_at is None
    for answer in world.together([lambda: acts.act_run(act.pk)] * 3, 3):
        assert not isinstance(answer, BaseException), answer

    act.refresh_from_db()
    assert forfeited.count() == len(CHAIN) and act.done_at is not None
    assert balances(case) == (0, 0)
    wallets.assert_sound()


class Dying:
    """Forfeits, and is killed before the one after so many."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, **said: Any) -> Hold:
        if self.after == 0:
            raise KeyboardInterrupt
        self.after -= 1
        return hold_forfeit(**said)
