"""From findings to cases.

A sweep looks at the campaigns that people share. A cluster whose score asks for something by the
policy in force becomes a case; what that means for its people's money is said by `holding.py` and
`standing.py`.

What is kept here: a person is in one case of a campaign, whoever sweeps at the same time, and a
case never gets milder by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction

from engine.lib.audit import audit_record
from engine.lib.outbox import EventKind, outbox_emit
from packets.models import Participant
from referrals.models import Decision, RiskCase, RiskMember, RiskPolicy
from referrals.risk.detectors import Finding, find
from referrals.risk.holding import ACTOR
from referrals.risk.looks import campaigns_due, look
from referrals.risk.policy import Policy, policy_in_force, policy_of
from referrals.risk.reading import campaign_people

# Which decision asks for more.
HARDER = [Decision.CHALLENGE, Decision.HOLD, Decision.DENY]

# One sweep at a time writes a campaign's cases.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


def campaigns_sweep() -> int:
    """Look at the campaigns in which something came; how many people were added to cases."""
    return sum(cases_find(one) for one in campaigns_due())


def cases_find(campaign_id: uuid.UUID) -> int:
    """Write down the clusters of a campaign; how many people are new in them."""
    row = policy_in_force()
    policy = policy_of(row)
    with look(campaign_id, row.pk):
        people, rows = campaign_people(campaign_id)
        return sum(
            _write(case, [people[number] for number in found.rows])
            for found in find(rows)
            if (case := _case(campaign_id, found, policy, row)) is not None
        )


def _case(
    campaign_id: uuid.UUID, found: Finding, policy: Policy, row: RiskPolicy
) -> RiskCase | None:
    """The case that this cluster would be; None: nothing follows from it."""
    score = policy.score(found.reasons)
    decision = policy.decide(score)
    if decision is None:
        return None
    counted = policy.counted(found.reasons)
    return RiskCase(
        campaign_id=campaign_id,
        score=score,
        evidence={reason.value: dict(found.evidence[reason]) for reason in counted},
        decision=decision,
        policy=row,
    )


def _write(found: RiskCase, people: list[bytes]) -> int:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_LOCK, [f"risk:{found.campaign_id}"])
        known = RiskMember.objects.filter(campaign=found.campaign_id, participant__in=people)
        known_case = known.order_by("id").values_list("case_id", flat=True).first()
        before = {bytes(one) for one in known.values_list("participant", flat=True)}
        new = [person for person in people if person not in before]
        case = RiskCase.objects.get(pk=known_case) if known_case else found
        was = None if known_case is None else _picture(case)
        harder = was is not None and _harder(found, case)
        if not new and not harder:
            return 0
        if harder:
            for name in ("score", "evidence", "decision", "policy"):
                setattr(case, name, getattr(found, name))
        if was is None:
            case.save(force_insert=True)
        elif harder:
            case.save(update_fields=["score", "evidence", "decision", "policy"])
        RiskMember.objects.bulk_create(
            RiskMember(case=case, campaign_id=case.campaign_id, participant=person)
            for person in new
        )
        _tell(case, new)
        audit_record(
            actor=ACTOR,
            action="risk.case",
            object_type="risk_case",
            object_id=str(case.pk),
            before=was,
            after={"people": len(new), **_picture(case)},
        )
    return len(new)


def _harder(one: RiskCase, other: RiskCase) -> bool:
    return HARDER.index(Decision(one.decision)) > HARDER.index(Decision(other.decision))


def _picture(case: RiskCase) -> dict[str, Any]:
    return {
        "score": case.score,
        "evidence": case.evidence,
        "decision": str(case.decision),
        "policy": case.policy.version if case.policy else None,
    }


def _tell(case: RiskCase, people: Sequence[bytes]) -> None:
    """The app hears whom it is to challenge."""
    if case.decision != Decision.CHALLENGE:
        return
    for person in Participant.objects.filter(pk__in=people).order_by("pk"):
        outbox_emit(
            EventKind.CHALLENGE_ASKED,
            person.client_app_id,
            {"campaign": case.campaign.slug, "user": person.subject},
            key=f"{case.pk}:{bytes(person.pk).hex()}",
        )
