"""Rewards that are due: leased, granted side by side, and asked for again where it isn't decided.

A referral is done when every side that the campaign rewards has its Reward row. Whatever is in the
way (a full queue, a paused packet, a person without a name) leaves it due, with the reason.
"""

from __future__ import annotations

from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from campaign.models import CampaignGrowth
from referrals import due
from referrals.events import dues
from referrals.models import Qualification, Reward
from referrals.rewarding.granting import NotYet, reward_grant, shares_of


def qualification_run(*, referral_id: int) -> list[Reward]:
    """Grant what this referral has earned; what is decided so far. Repeating changes nothing."""
    row = Qualification.objects.select_related("referral").get(pk=referral_id)
    if row.done_at is not None or not row.qualified_by:
        return list(Reward.objects.filter(referral=referral_id))
    growth = CampaignGrowth.objects.select_related("inviter_packet", "invitee_packet").get(
        campaign=row.referral.campaign_id
    )
    with transaction.atomic(), connection.cursor() as cursor:
        dues.of_invites(cursor, [referral_id])
    rewards, troubles = [], []
    for share in shares_of(row.referral, growth):
        try:
            rewards.append(reward_grant(share=share, qualified_by=row.qualified_by))
        except NotYet as trouble:
            troubles.append(f"{share.side}: {trouble}")
        except OperationalError as trouble:
            # A lock or a connection that took too long: one row's, and no other's of the batch.
            troubles.append(f"{share.side}: Postgres: {type(trouble.__cause__).__name__}")
    mine = Qualification.objects.filter(pk=referral_id, done_at=None)
    if troubles:
        mine.update(trouble="; ".join(troubles)[:200])
    else:
        mine.update(done_at=Now(), next_attempt_at=None, trouble="")
    return rewards


def qualifications_run(*, limit: int) -> int:
    """Grant what is due, so many referrals at most; how many were looked at."""
    taken = due.lease(Qualification, "qualified_by <> ''", limit)
    for referral_id in taken:
        qualification_run(referral_id=int(referral_id))
    return len(taken)
