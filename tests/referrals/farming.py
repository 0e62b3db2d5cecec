"""A campaign with a farm in it, a chain of accounts with one purse, and a family beside it."""

from __future__ import annotations

from itertools import pairwise

from campaign.models import CampaignGrowth
from packets.payouts.withdrawals import payout_create
from referrals.models import Referral, Reward
from referrals.tasks import risk_sweep, risk_work
from tests import wallets, world
from tests.referrals.rewarding import earned, known, rewarding, settle
from tests.referrals.stage import app_of, bind

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


def sweep() -> None:
    """Both of the sweeps, as they are run one after the other."""
    risk_sweep()
    risk_work()


def farm_and_family() -> CampaignGrowth:
    """A chain of eight with one purse, and a family of four with another, before any payout."""
    wallets.bank()
    growth = rewarding()
    for inviter, friend in pairwise(CHAIN):
        bind(growth, friend, inviter)
    for friend in FAMILY[1:]:
        bind(growth, friend, "ann")
    earn(growth, *CHAIN)
    earn(growth, "ann")
    return growth
