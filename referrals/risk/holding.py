"""From cases to held money: what people of a case have earned waits for a reviewer.

Of whoever is in a case that asks for a hold, and whom nobody has let go, what they have earned by
inviting or being invited is held as far as it is still in their wallets, and waits among the other
holds. Nothing is decided by a timer.

What is kept here: a reward is looked at once, so what a reviewer has released is never held again
by this, whoever sweeps at the same time. What a ban holds waits until that is over.
"""

from __future__ import annotations

from django.db import connection, transaction

from packets.holds.rules import RiskReason
from referrals.models import Reward, RiskMember, RiskReward
from referrals.rewarding.freezing import IS_FORFEITED, IS_HELD, HeldAlready, reward_freeze

ACTOR = "system:risk"
BATCH = 500  # rewards held at once, each in a transaction of some ten milliseconds

_REWARDS = f"""
SELECT reward.id, member.id
  FROM referrals_riskmember AS member
  JOIN referrals_riskcase AS found ON found.id = member.case_id
  JOIN referrals_reward AS reward ON reward.participant = member.participant
  JOIN referrals_referral AS edge
    ON edge.id = reward.referral_id AND edge.campaign_id = member.campaign_id
  JOIN packets_claimstate AS state ON state.claim_id = reward.claim_id AND state.state = 'settled'
 WHERE member.cleared_at IS NULL AND found.decision IN ('hold', 'deny')
   AND NOT EXISTS (SELECT FROM referrals_riskreward AS seen WHERE seen.reward_id = reward.id)
   AND NOT {IS_HELD} AND NOT {IS_FORFEITED}
 ORDER BY reward.id
 LIMIT %s
"""


def rewards_hold(batch: int = BATCH) -> int:
    """Hold what people of cases have earned; how many rewards were held."""
    with connection.cursor() as cursor:
        cursor.execute(_REWARDS, [batch])
        due = cursor.fetchall()
    return sum(_hold(reward, member) for reward, member in due)


def _hold(reward_id: int, member_id: int) -> bool:
    with transaction.atomic():
        member = RiskMember.objects.select_for_update(of=("self",)).get(pk=member_id)
        # guard: whoever holds the member's row is the only one who looks at its rewards, and
        # whoever lets the person go has waited for it.
        if member.cleared_at or RiskReward.objects.filter(reward=reward_id).exists():
            return False
        reward = Reward.objects.select_related("claim__packet", "referral__campaign").get(
            pk=reward_id
        )
        case = member.case
        try:
            hold = reward_freeze(
                reward=reward,
                reasons=[RiskReason.FARM],
                evidence=[
                    {"reason": RiskReason.FARM.value, "case": case.pk, "score": case.score},
                    *({"seen": reason, **seen} for reason, seen in case.evidence.items()),
                ],
                actor=ACTOR,
                reason=f"risk_case:{case.pk}",
            )
        except HeldAlready:
            return False
        RiskReward.objects.create(member=member, reward=reward, hold=hold)
    return hold is not None
