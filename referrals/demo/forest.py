"""A small forest for the demo, with a farm in it, so that growth's pages have something to show.

Its people stand there as if they had come over two weeks (referrals/growing/bulk.py). Then they
claim from the demo's pool as anybody would, and everything after that is the product's own doing:
rewards, settlement, the case of the farm with what it holds, the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from campaign.demo import POOL_NAME
from campaign.models import CampaignGrowth
from engine.models import ClientApp
from packets import settlement
from packets.models import Packet
from referrals import tasks
from referrals.analytics.snapshots import snapshot_take
from referrals.growing.bulk import claims_make, world_write
from referrals.growing.cast import Cast
from referrals.growing.world import Preset, farms_of, make_world
from referrals.models import Referral, ServerEvent
from referrals.rewarding.running import qualification_run
from referrals.risk.cases import cases_find

NAME = "demo-forest"
PEOPLE, FARMS, SEED = 300, "star:0.06", 2  # a star of 18 people, found by its phones
# The rewards of all of them would keep a worker busy while the demo's crowd comes.
HONEST_ONE_IN = 3


def demo_forest_grow(
    *, app: ClientApp, growth: CampaignGrowth, say: Callable[[str], object]
) -> Counter[str] | None:
    """Once for a campaign: None, and nothing done, where it stands already."""
    if ServerEvent.objects.filter(
        campaign=growth.campaign, client_app_id=app.pk, key__startswith=NAME
    ).exists():
        return None
    world = make_world(PEOPLE, Preset.VIRAL, farms_of(FARMS), SEED)
    cast = Cast(world, app.pk, f"{NAME}-{growth.campaign.slug}")
    outcomes = world_write(cast=cast, growth=growth, say=say)
    pool = Packet.objects.filter(campaign_link__campaign=growth.campaign, name=POOL_NAME)
    newest = pool.filter(state=Packet.State.OPEN).order_by("-campaign_link__order").first()
    if newest is not None:
        outcomes += claims_make(cast=cast, packet=newest.pk, say=say, honest_one_in=HONEST_ONE_IN)
    _farm_found(cast, growth)
    snapshot_take(campaign_id=growth.campaign_id)
    return outcomes


def _farm_found(cast: Cast, growth: CampaignGrowth) -> None:
    """What the workers do with every reward and every cluster, for the farm now: its case and what
    it holds would come within five minutes."""
    tasks.growth_claims()
    farmers = [cast.digest(int(row)) for row in cast.world.is_farmer.nonzero()[0]]
    edges = Referral.objects.filter(campaign=growth.campaign, invitee__in=farmers)
    for referral_id in edges.values_list("pk", flat=True):
        qualification_run(referral_id=referral_id)
    settlement.settle_due()
    cases_find(growth.campaign_id)
    tasks.risk_work()
