"""From findings to cases, and from cases to held money.

A sweep looks at each campaign that people share. A cluster from the score of a hold on becomes a
case; what its people have earned by inviting or being invited is held, as far as it is still in
their wallets, for a reviewer among the other holds. Nothing is decided by a timer.

What is kept here: a person is in one case of a campaign, and a reward is looked at once, so what a
reviewer has released is never held again by this, whoever sweeps at the same time.
"""

from __future__ import annotations

import uuid

from django.db import connection, transaction

from campaign.models import CampaignGrowth
from engine.lib.audit import audit_record
from packets.holds.holding import hold_wallet
from packets.holds.rules import RiskReason
from referrals.models import Reward, RiskCase, RiskMember, RiskReward
from referrals.risk.detectors import Finding, find
from referrals.risk.reading import campaign_people

HOLD_AT = 60
ACTOR = "system:risk"
BATCH = 2_000  # rewards held in one sweep

# One sweep at a time writes a campaign's cases.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

_REWARDS = """
SELECT reward.id, member.id
  FROM referrals_riskmember AS member
  JOIN referrals_reward AS reward ON reward.participant = member.participant
  JOIN referrals_referral AS edge
    ON edge.id = reward.referral_id AND edge.campaign_id = member.campaign_id
  JOIN packets_claimstate AS state ON state.claim_id = reward.claim_id AND state.state = 'settled'
 WHERE NOT EXISTS (SELECT FROM referrals_riskreward AS seen WHERE seen.reward_id = reward.id)
 ORDER BY reward.id
 LIMIT %s
"""


def campaigns_sweep() -> int:
    """Look at every campaign that is shared; how many people were added to cases."""
    shared = CampaignGrowth.objects.filter(campaign__state__in=("live", "paused", "ended"))
    return sum(cases_find(one) for one in list(shared.values_list("campaign_id", flat=True)))


def cases_find(campaign_id: uuid.UUID) -> int:
    """Write down the clusters of a campaign; how many people are new in them."""
    people, rows = campaign_people(campaign_id)
    new = 0
    for found in find(rows):
        if found.score >= HOLD_AT:
            new += _case(campaign_id, found, [people[row] for row in found.rows])
    return new


def _case(campaign_id: uuid.UUID, found: Finding, people: list[bytes]) -> int:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [f"risk:{campaign_id}"])
        known = RiskMember.objects.filter(campaign=campaign_id, participant__in=people)
        known_case = known.order_by("id").values_list("case_id", flat=True).first()
        before = {bytes(one) for one in known.values_list("participant", flat=True)}
        new = [person for person in people if person not in before]
        if not new:
            return 0
        evidence = {reason.value: dict(seen) for reason, seen in found.evidence.items()}
        if known_case is None:
            case = RiskCase.objects.create(
                campaign_id=campaign_id, score=found.score, evidence=evidence
            )
        else:
            case = RiskCase.objects.get(pk=known_case)
        RiskMember.objects.bulk_create(
            RiskMember(case=case, campaign_id=campaign_id, participant=person) for person in new
        )
        audit_record(
            actor=ACTOR,
            action="risk.case",
            object_type="risk_case",
            object_id=case.pk,
            after={"people": len(new), "score": found.score, "evidence": evidence},
        )
    return len(new)


def rewards_hold(batch: int = BATCH) -> int:
    """Hold what people of cases have earned; how many rewards were held."""
    with connection.cursor() as cursor:
        cursor.execute(_REWARDS, [batch])
        due = cursor.fetchall()
    return sum(_hold(reward, member) for reward, member in due)


def _hold(reward_id: int, member_id: int) -> bool:
    with transaction.atomic():
        member = RiskMember.objects.select_for_update(of=("self",)).get(pk=member_id)
        # guard: whoever holds the member's row is the only one who looks at its rewards.
        if RiskReward.objects.filter(reward=reward_id).exists():
            return False
        reward = Reward.objects.select_related("claim__packet").get(pk=reward_id)
        claim, case = reward.claim, member.case
        assert claim is not None
        hold = hold_wallet(
            participant=bytes(reward.participant),
            amount_fen=claim.amount_fen,
            funder_id=claim.packet.funder_id,
            reasons=[RiskReason.FARM],
            evidence=[
                {"reason": RiskReason.FARM.value, "case": case.pk, "score": case.score},
                *({"seen": reason, **seen} for reason, seen in case.evidence.items()),
            ],
            actor=ACTOR,
            reason=f"risk_case:{case.pk}",
            currency=claim.packet.currency,
        )
        RiskReward.objects.create(member=member, reward=reward, hold=hold)
    return hold is not None
