"""From a chain of accounts with one purse to held rewards, and what a reviewer does with them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from campaign.models import CampaignGrowth
from engine.models import AuditEvent
from packets.holds.resolving import hold_release
from packets.models import Hold
from packets.payouts.withdrawals import payout_create
from packets.selectors import wallet_balance
from referrals.models import Referral, Reward, RiskCase, RiskMember, RiskReward
from referrals.risk.cases import campaigns_sweep, rewards_hold
from referrals.tasks import risk_sweep
from tests import wallets, world
from tests.admin import desk
from tests.referrals.rewarding import earned, known, rewarding, settle
from tests.referrals.stage import app_of, bind

pytestmark = pytest.mark.django_db(transaction=True)

CHAIN = [f"p{number}" for number in range(8)]
FAMILY = ["ann", "bob", "cem", "dan"]


def who(growth: CampaignGrowth, name: str) -> bytes:
    return world.person(name, app_of(growth.campaign)).participant


def earn(growth: CampaignGrowth, *names: str) -> None:
    """Each has earned a reward for whoever they were invited by, or invited first."""
    known(growth, *names)
    for name in names:
        edge = Referral.objects.filter(invitee=who(growth, name)).first()
        mine = edge or Referral.objects.filter(inviter=who(growth, name)).earliest("id")
        side = Reward.Side.INVITEE if edge else Reward.Side.INVITER
        assert earned(growth, mine, side).state == "granted"
    settle(growth)


def pay_out(growth: CampaignGrowth, purse: str, *names: str) -> None:
    """Each of them asks for one fen, to the same account."""
    for name in names:
        payout_create(
            participant=who(growth, name),
            client_app_id=app_of(growth.campaign),
            amount_fen=1,
            provider="bank",
            payee_account=purse,
            key=f"{purse}-{name}",
        )


@pytest.fixture
def growth() -> CampaignGrowth:
    """A chain of eight with one purse, and a family of four with another."""
    wallets.bank()
    growth = rewarding()
    for inviter, friend in pairwise(CHAIN):
        bind(growth, friend, inviter)
    for friend in FAMILY[1:]:
        bind(growth, friend, "ann")
    earn(growth, *CHAIN)
    earn(growth, "ann")
    return growth


def test_a_chain_with_one_purse_is_held_and_a_family_is_not(growth: CampaignGrowth) -> None:
    risk_sweep()
    assert not RiskCase.objects.exists(), "nobody has shown a purse yet"

    pay_out(growth, "purse-1", *CHAIN)
    pay_out(growth, "purse-2", "ann")
    risk_sweep()

    [case] = RiskCase.objects.all()
    assert case.score >= 60
    assert {"cluster", "chain"} <= case.evidence.keys()
    members = {bytes(one) for one in case.members.values_list("participant", flat=True)}
    assert members == {who(growth, name) for name in CHAIN}
    assert Hold.objects.count() == len(CHAIN)
    for name in CHAIN:
        balance = wallet_balance(who(growth, name))
        assert balance.available_fen == 0 and balance.held_fen > 0
    assert wallet_balance(who(growth, "ann")).held_fen == 0
    hold = Hold.objects.first()
    assert hold is not None and hold.reasons == ["farm"]
    assert "purse-1" not in str(hold.evidence)
    assert AuditEvent.objects.filter(action="risk.case").count() == 1
    wallets.assert_sound()


def test_what_a_reviewer_released_stays_released(growth: CampaignGrowth) -> None:
    pay_out(growth, "purse-1", *CHAIN)
    risk_sweep()
    hold = Hold.objects.order_by("id").first()
    assert hold is not None
    hold_release(hold_id=hold.pk, actor="staff:eva", reason="a family business")

    risk_sweep()

    assert Hold.objects.count() == RiskReward.objects.count() == len(CHAIN)
    assert wallet_balance(bytes(hold.participant)).held_fen == 0
    wallets.assert_sound()


def test_sweeps_at_once_write_one_case_and_hold_once(growth: CampaignGrowth) -> None:
    pay_out(growth, "purse-1", *CHAIN)

    for answer in world.together([campaigns_sweep] * 4, 4):
        assert not isinstance(answer, BaseException), answer
    for answer in world.together([rewards_hold] * 4, 4):
        assert not isinstance(answer, BaseException), answer

    assert RiskCase.objects.count() == 1
    assert (
        RiskMember.objects.count()
        == RiskReward.objects.count()
        == Hold.objects.count()
        == len(CHAIN)
    )
    wallets.assert_sound()


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_reviewer_sees_why_as_a_picture_and_opens_a_hold(
    growth: CampaignGrowth, language: str, settings: Any
) -> None:
    settings.REQUIRE_SECOND_FACTOR = False
    pay_out(growth, "purse-1", *CHAIN)
    risk_sweep()
    case = RiskCase.objects.get()
    client = desk.at_desk("risk", lang=language)

    answer = client.get("/admin/referrals/riskcase/")
    assert answer.status_code == 200, answer.headers
    listed = answer.content.decode()
    shown = client.get(f"/admin/referrals/riskcase/{case.pk}/change/").content.decode()

    assert f"/admin/referrals/riskcase/{case.pk}/change/" in listed
    assert ("Each invites exactly the next" in shown) == (language == "en")
    assert shown.count("data-dot=") == len(CHAIN)
    assert shown.count("data-purse") == 1
    assert shown.count("data-hold>") == len(CHAIN)
    hold = Hold.objects.order_by("id").first()
    assert hold is not None and f"/admin/packets/hold/{hold.pk}/change/" in shown
    assert client.get("/admin/referrals/riskcase/77777/change/").status_code == 404
    assert desk.at_desk("support").get("/admin/referrals/riskcase/").status_code == 403
