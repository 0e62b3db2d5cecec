"""Dry runs: what a draft of the policy would have said of the newest referrals, beside the policy
in force.

The detectors look once; both policies judge what they saw. Nothing is written but the run's own
row, which grows campaign by campaign: whoever is killed is repeated from the start.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import CampaignGrowth
from engine.lib.errors import ServiceError
from referrals import due
from referrals.models import RiskTrial
from referrals.risk.policy import Policy, as_row, policy_check, policy_in_force, policy_of
from referrals.risk.reasons import Reason

# The newest people of all campaigns: some ten seconds, and what is decided about most.
PEOPLE = 200_000
NAMED = 50  # people of each change who are shown with a link
WAITING_MAX = 5
LEASE = dt.timedelta(seconds=60)  # between two steps of a run
ALLOW = "allow"

# What was granted to these people in the campaign.
_GRANTED = """
SELECT count(*), COALESCE(sum(claim.amount_fen), 0)::bigint
  FROM referrals_reward AS reward
  JOIN referrals_referral AS edge ON edge.id = reward.referral_id
  JOIN packets_claim AS claim ON claim.id = reward.claim_id
 WHERE reward.participant = ANY (%s) AND edge.campaign_id = %s
"""
ASKED_AT_ONCE = 2_000  # people of one such question


@dataclass
class Tally:
    """What both policies say so far. Keys of decisions: `allow`, or a Decision's value."""

    people: int = 0
    campaigns: int = 0
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    # By reason: what the draft decides about the people of whom it was seen.
    rules: dict[str, Counter[str]] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)  # "before>after", where they differ
    rewards: Counter[str] = field(default_factory=Counter)  # of such people, by change
    fen: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # campaign, person

    def as_json(self) -> dict[str, Any]:
        return {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self).items()
        }


def trial_ask(*, draft: Policy, actor: str) -> RiskTrial:
    """Write down a draft; a worker tries it. Raises ServiceError."""
    policy_check(draft)
    if RiskTrial.objects.filter(done_at=None).count() >= WAITING_MAX:
        raise ServiceError("", "too_many", _("Several dry runs are under way; wait for one."))
    return RiskTrial.objects.create(
        **as_row(draft), against=policy_in_force(), most=PEOPLE, asked_by=actor[:150]
    )


def trials_run() -> int:
    """Try what is due, one after the other; how many."""
    taken = due.lease(RiskTrial, "done_at IS NULL", 1)
    for trial_id in taken:
        trial_run(trial_id)
    return len(taken)


def trial_run(trial_id: int) -> None:
    trial = RiskTrial.objects.select_related("against").get(pk=trial_id)
    mine = RiskTrial.objects.filter(pk=trial_id, done_at=None)
    if mine.update(seen=0, next_attempt_at=Now() + LEASE) != 1:
        return
    before, after = policy_of(trial.against), policy_of(trial)
    shared = CampaignGrowth.objects.filter(campaign__state__in=("live", "paused", "ended"))
    tally = Tally()
    for campaign in list(
        shared.order_by("-campaign__starts_at", "pk").values_list("campaign_id", flat=True)
    ):
        if tally.people >= trial.most:
            break
        _try(campaign, trial.most - tally.people, before, after, tally, mine)
        mine.update(result=tally.as_json(), next_attempt_at=Now() + LEASE)
    mine.update(result=tally.as_json(), done_at=Now(), next_attempt_at=None)


def _try(
    campaign_id: uuid.UUID, most: int, before: Policy, after: Policy, tally: Tally, row: Any
) -> None:
    # Here, since only whoever looks for farms loads the library of arrays.
    from referrals.risk.detectors import find
    from referrals.risk.reading import campaign_people

    def seen(count: int) -> None:
        row.update(seen=F("seen") + count, next_attempt_at=Now() + LEASE)

    people, rows = campaign_people(campaign_id, most, seen)
    changed: dict[str, list[bytes]] = {}
    suspected = 0
    for found in find(rows):
        was, now = _said(before, found.reasons), _said(after, found.reasons)
        count = len(found.rows)
        suspected += count
        tally.before[was] += count
        tally.after[now] += count
        for reason in after.counted(found.reasons):
            tally.rules.setdefault(reason.value, Counter())[now] += count
        if was != now:
            changed.setdefault(f"{was}>{now}", []).extend(people[number] for number in found.rows)
    tally.people += len(people)
    tally.campaigns += bool(people)
    tally.before[ALLOW] += len(people) - suspected
    tally.after[ALLOW] += len(people) - suspected
    for change, theirs in changed.items():
        _differ(tally, campaign_id, change, theirs)


def _said(policy: Policy, reasons: list[Reason]) -> str:
    return policy.decide(policy.score(reasons)) or ALLOW


def _differ(tally: Tally, campaign_id: uuid.UUID, change: str, people: list[bytes]) -> None:
    tally.changes[change] += len(people)
    named = tally.named.setdefault(change, [])
    named += [(str(campaign_id), person.hex()) for person in people[: NAMED - len(named)]]
    for start in range(0, len(people), ASKED_AT_ONCE):
        with connection.cursor() as cursor:
            cursor.execute(_GRANTED, [people[start : start + ASKED_AT_ONCE], campaign_id])
            count, fen = cursor.fetchone()
        tally.rewards[change] += count
        tally.fen[change] += fen
