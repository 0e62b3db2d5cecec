"""The policy: what each reason weighs, and what follows from a score.

The highest version in the database is in force, the first being as shipped. A policy is published
only from a dry run: the run's row is the draft, so what was tried and what is published can't
differ.

What is kept here: versions have no gaps and are never changed; a version is published from a run
that is complete, not old, and was compared with the version that it follows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from referrals.models import RiskPolicy, RiskTrial
from referrals.models.risk import Decision, Rules
from referrals.risk.reasons import Reason

SCORE_MAX = 100
REASON_MAX_CHARS = 200
# A dry run says what the newest referrals would have met; after so long they are others.
TRIAL_FRESH = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """From which score what follows (None: never), and the points of each reason (0: off)."""

    challenge_at: int | None
    hold_at: int
    deny_at: int | None
    weights: Mapping[Reason, int]

    def score(self, reasons: Iterable[Reason]) -> int:
        return min(SCORE_MAX, sum(self.weights[reason] for reason in reasons))

    def counted(self, reasons: Iterable[Reason]) -> list[Reason]:
        """Those that aren't switched off."""
        return [reason for reason in reasons if self.weights[reason]]

    def decide(self, score: int) -> Decision | None:
        """None: nothing follows."""
        if self.deny_at is not None and score >= self.deny_at:
            return Decision.DENY
        if score >= self.hold_at:
            return Decision.HOLD
        if self.challenge_at is not None and score >= self.challenge_at:
            return Decision.CHALLENGE
        return None


# As shipped: a hold needs two independent things. Nothing is denied without a person.
SHIPPED = Policy(
    challenge_at=40,
    hold_at=60,
    deny_at=None,
    weights={
        Reason.SELF: 15,
        Reason.CYCLE: 30,
        Reason.STAR_BURST: 25,
        Reason.CHAIN: 20,
        Reason.CLUSTER: 40,
        Reason.FAST: 25,
        Reason.DEAD_CHILDREN: 25,
    },
)


def policy_of(rules: Rules) -> Policy:
    """The rules of a row. A reason that the row doesn't know yet is off."""
    return Policy(
        challenge_at=rules.challenge_at,
        hold_at=rules.hold_at,
        deny_at=rules.deny_at,
        weights={reason: int(rules.weights.get(reason.value, 0)) for reason in Reason},
    )


def as_row(policy: Policy) -> dict[str, Any]:
    """The columns of a row with these rules."""
    return {
        "challenge_at": policy.challenge_at,
        "hold_at": policy.hold_at,
        "deny_at": policy.deny_at,
        "weights": {reason.value: points for reason, points in policy.weights.items()},
    }


def policy_in_force() -> RiskPolicy:
    return RiskPolicy.objects.order_by("-version")[0]


def policy_check(policy: Policy) -> None:
    """Raises ServiceError that names the field."""
    if not 1 <= policy.hold_at <= SCORE_MAX:
        raise ServiceError("hold_at", "bounds", _("A score is from 1 to 100."))
    if policy.challenge_at is not None and not 1 <= policy.challenge_at <= policy.hold_at:
        raise ServiceError(
            "challenge_at", "order", _("A challenge is milder: at most the score of a hold.")
        )
    if policy.deny_at is not None and not policy.hold_at <= policy.deny_at <= SCORE_MAX:
        raise ServiceError(
            "deny_at", "order", _("Denying is harder: from the score of a hold up to 100.")
        )
    for reason, points in policy.weights.items():
        if not 0 <= points <= SCORE_MAX:
            raise ServiceError(reason.value, "bounds", _("Points are from 0 (off) to 100."))
    if not any(policy.weights.values()):
        raise ServiceError("hold_at", "nothing", _("With every reason off nothing is looked for."))


def policy_publish(*, trial_id: int, actor: str, reason: str) -> RiskPolicy:
    """Put the rules that this dry run has tried in force. Raises ServiceError."""
    reason = reason.strip()
    if not reason:
        raise ServiceError("reason", "blank", _("Say why: the next one will ask."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError("reason", "too_long", _("The reason is too long."))
    with transaction.atomic():
        with connection.cursor() as cursor:
            # Publishers come one after the other, and no version is lost between two of them.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('risk_policy', 0))")
        before = policy_in_force()
        trial = RiskTrial.objects.get(pk=trial_id)
        _usable(trial, before)
        made = RiskPolicy.objects.create(
            version=before.version + 1,
            trial=trial,
            reason=reason,
            published_by=actor[:150],
            **as_row(policy_of(trial)),
        )
        audit_record(
            actor=actor,
            action="risk_policy.publish",
            object_type="risk_policy",
            object_id=str(made.version),
            before=as_row(policy_of(before)),
            after={**as_row(policy_of(made)), "trial": trial.pk},
            reason=reason,
        )
    made.refresh_from_db()
    return made


def _usable(trial: RiskTrial, before: RiskPolicy) -> None:
    if trial.done_at is None:
        raise ServiceError("trial", "running", _("The dry run isn't finished yet."))
    if trial.against_id != before.pk:
        raise ServiceError(
            "trial",
            "outdated",
            _("Another version was published meanwhile; try this one against it first."),
        )
    if not RiskTrial.objects.filter(pk=trial.pk, done_at__gt=Now() - TRIAL_FRESH).exists():
        raise ServiceError(
            "trial", "stale", _("The dry run is more than an hour old; run it again.")
        )
