"""A campaign that rewards invitations, and its sweeps by hand."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now

from campaign.models import CampaignGrowth
from engine.lib import clock
from engine.models import ClientApp
from packets import settlement
from packets.models import Lane, Packet
from referrals.events import issuing
from referrals.events.receiving import Event, events_receive
from referrals.models import Qualification, Referral, Reward, TicketDue
from referrals.rewarding import qualifying, running
from referrals.rewarding.granting import Share, reward_grant
from tests import world
from tests.campaign import stage
from tests.referrals.stage import app_of, bind


def rewarding(
    app: ClientApp | None = None,
    *,
    count: int = 10,
    total_fen: int = 1_000,
    ticketed: dict[str, Any] | None = None,
    **fields: Any,
) -> CampaignGrowth:
    """A live campaign: one packet for everybody, one each for inviters and friends, of fixed
    portions. `ticketed`: a further packet that needs tickets, with these rules."""
    campaign = stage.draft(app)
    stage.add_packet(campaign)
    ours = {"needs_ticket": True, "strategy": Packet.Strategy.FIXED}
    inviters = stage.add_packet(campaign, total_fen, count, **ours)
    friends = stage.add_packet(campaign, total_fen, count, **ours)
    if ticketed is not None:
        stage.add_packet(campaign, needs_ticket=True, **ticketed)
    campaign = stage.launch(campaign)
    fields.setdefault("new_only", False)
    return CampaignGrowth.objects.create(
        campaign=campaign,
        inviter_packet=Packet.objects.get(pk=inviters.pk),
        invitee_packet=Packet.objects.get(pk=friends.pk),
        **fields,
    )


def open_to_all(growth: CampaignGrowth) -> Packet:
    return stage.first_packet(growth.campaign)


def ticketed(growth: CampaignGrowth) -> Packet:
    """The packet that needs tickets and is no reward."""
    return Packet.objects.filter(campaign_link__campaign=growth.campaign).order_by(
        "-campaign_link__order"
    )[0]


def claims(growth: CampaignGrowth, name: str) -> None:
    """This person claims from the packet that is for everybody."""
    world.claim(open_to_all(growth), world.person(name, app_of(growth.campaign)))


def known(growth: CampaignGrowth, *names: str) -> None:
    """People whom the app has told of: their names are known by their digests."""
    events_receive(
        client_app_id=app_of(growth.campaign),
        events=[Event(f"known:{name}", name, "known", clock.now()) for name in names],
    )


def sweep() -> None:
    """All sweeps until nothing is due."""
    while (
        qualifying.edges_look()
        + sum(qualifying.lane_read(lane) for lane in qualifying.lanes_waiting())
        + running.qualifications_run(limit=50)
        + issuing.dues_run(limit=50)
    ):
        pass


def settle(growth: CampaignGrowth) -> None:
    """What was won is in the wallets."""
    for lane in Lane.objects.filter(packet__campaign_link__campaign=growth.campaign):
        while settlement.settle_lane(lane.pk).left:
            pass


def earned(growth: CampaignGrowth, referral: Referral, side: Reward.Side) -> Reward:
    """This side's reward, granted as the sweep grants it, whether the friend has claimed or not."""
    person = referral.invitee if side == Reward.Side.INVITEE else referral.inviter
    packet = growth.invitee_packet if side == Reward.Side.INVITEE else growth.inviter_packet
    assert packet is not None
    share = Share(referral, side, bytes(person), packet, None)
    return reward_grant(share=share, qualified_by="test")


def due_again() -> None:
    """What waits for its next attempt is due now."""
    Qualification.objects.filter(done_at=None).exclude(qualified_by="").update(
        next_attempt_at=Now()
    )
    TicketDue.objects.filter(state="waiting").update(next_attempt_at=Now())


def qualified(growth: CampaignGrowth, friend: str, inviter: str) -> Qualification:
    """An edge whose friend has claimed; its rewards are due and not granted yet."""
    known(growth, inviter)
    bind(growth, friend, inviter)
    claims(growth, friend)
    qualifying.edges_look()
    for lane in qualifying.lanes_waiting():
        qualifying.lane_read(lane)
    invitee = world.person(friend, app_of(growth.campaign)).participant
    return Qualification.objects.get(referral__campaign=growth.campaign, referral__invitee=invitee)
