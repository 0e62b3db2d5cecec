"""The risk rules: settlement asks them for each batch, withdrawals for each payout.

`judge` gives for a batch of claims those that must be held, with reasons and what was seen; every
other claim is allowed. It runs inside the settlement's transaction, before any account is locked,
and asks each detector once for the whole batch. Where no rule is active that is one look into a
tiny table.

What is kept here: a claim is judged by what its person had won by the moment of its own commit, so
the answer doesn't depend on how claims fall into batches.
"""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from packets.models import RiskRule

# Of one person's claims, the newest so many are looked at: a person with more of them in a window
# must not cost a batch more than a glance. A rule that counts claims must stay below it.
CLAIMS_SEEN_MAX = 1_000


class RiskReason(enum.StrEnum):
    """Why money is held, or a payout waits. The first four are the kinds of rules."""

    CLAIMS_PER_PERSON = RiskRule.Kind.CLAIMS_PER_PERSON.value
    AMOUNT_PER_PERSON = RiskRule.Kind.AMOUNT_PER_PERSON.value
    WALLETS_PER_PAYEE = RiskRule.Kind.WALLETS_PER_PAYEE.value
    AMOUNT_PER_PAYEE = RiskRule.Kind.AMOUNT_PER_PAYEE.value
    FARM = "farm"
    STAFF = "staff"


REASON_WORDS: dict[RiskReason, str | Promise] = {
    RiskReason.CLAIMS_PER_PERSON: _("More claims in a short time than usual"),
    RiskReason.AMOUNT_PER_PERSON: _("More money won in a short time than usual"),
    RiskReason.WALLETS_PER_PAYEE: _("Many wallets paid out to one account"),
    RiskReason.AMOUNT_PER_PAYEE: _("More money paid out to one account than usual"),
    RiskReason.FARM: _("One of many accounts that seem to belong together"),
    RiskReason.STAFF: _("Held by a person"),
}


def reason_words(codes: Iterable[str]) -> list[str]:
    """The reasons for people, in the reader's language."""
    return [str(REASON_WORDS[RiskReason(code)]) for code in codes]


@dataclass(frozen=True, slots=True)
class Batch:
    """Claims that are about to be settled: positions first..last of one lane."""

    lane_id: int
    first: int
    last: int


@dataclass
class Suspected:
    """Why one claim must be held; `evidence` has an entry for each reason."""

    rule_id: int | None = None
    reasons: list[RiskReason] = field(default_factory=list)
    evidence: list[Mapping[str, Any]] = field(default_factory=list)


class Detector(Protocol):
    """Something that looks at a batch of claims.

    It asks in sets, by indexes, in the transaction of the cursor that it is given, takes no locks,
    and says nothing about claims that it lets pass.
    """

    def suspicions(
        self, cursor: Any, batch: Batch
    ) -> Iterable[tuple[uuid.UUID, RiskReason, int | None, Mapping[str, Any]]]:
        """(claim, reason, the rule's row if there is one, what was seen) of suspicious claims."""
        ...


_ACTIVE = """
SELECT rule.id
  FROM packets_riskrule AS rule
 WHERE rule.is_active AND rule.kind = ANY(%s)
   AND NOT EXISTS (SELECT FROM packets_riskrule AS later
                    WHERE later.rule = rule.rule AND later.version > rule.version)
"""

# What one claim's person had won within the window that ends with this claim. By the index of a
# person's claims, newest first.
SEEN = """
    SELECT count(*) AS claims, COALESCE(sum(won.amount_fen), 0)::bigint AS fen
      FROM (SELECT other.amount_fen
              FROM packets_claim AS other
             WHERE other.participant = claim.participant
               AND (other.committed_at, other.id) <= (claim.committed_at, claim.id)
               AND other.committed_at > claim.committed_at - make_interval(secs => rule.window_s)
             ORDER BY other.committed_at DESC, other.id DESC
             LIMIT {most}) AS won
"""

_JUDGE = f"""
SELECT claim.id, rule.id, rule.kind, rule.most, rule.window_s, seen.claims, seen.fen
  FROM packets_claim AS claim
 CROSS JOIN (SELECT * FROM packets_riskrule WHERE id = ANY(%s)) AS rule
 CROSS JOIN LATERAL ({SEEN.format(most=CLAIMS_SEEN_MAX)}) AS seen
 WHERE claim.lane_id = %s AND claim.position BETWEEN %s AND %s
   AND CASE rule.kind WHEN 'claims_per_person' THEN seen.claims ELSE seen.fen END > rule.most
   AND COALESCE((SELECT known.state = 'parked' FROM packets_claimstate AS known
                  WHERE known.claim_id = claim.id), true)
 ORDER BY claim.position, rule.id
"""

PERSON_KINDS = (RiskRule.Kind.CLAIMS_PER_PERSON, RiskRule.Kind.AMOUNT_PER_PERSON)
PAYEE_KINDS = (RiskRule.Kind.WALLETS_PER_PAYEE, RiskRule.Kind.AMOUNT_PER_PAYEE)


class PersonVelocity:
    """Too many claims, or too much money, of one person within a window."""

    def suspicions(
        self, cursor: Any, batch: Batch
    ) -> Iterable[tuple[uuid.UUID, RiskReason, int | None, Mapping[str, Any]]]:
        cursor.execute(_ACTIVE, [list(PERSON_KINDS)])
        rules = [row[0] for row in cursor.fetchall()]
        if not rules:
            return []
        cursor.execute(_JUDGE, [rules, batch.lane_id, batch.first, batch.last])
        return [
            (
                claim,
                RiskReason(kind),
                rule,
                {
                    "reason": kind,
                    "most": most,
                    "window_s": window_s,
                    "seen": claims if kind == RiskReason.CLAIMS_PER_PERSON else fen,
                },
            )
            for claim, rule, kind, most, window_s, claims, fen in cursor.fetchall()
        ]


# Asked in this order; the first one's rule is the hold's.
DETECTORS: tuple[Detector, ...] = (PersonVelocity(),)


def judge(cursor: Any, batch: Batch) -> dict[uuid.UUID, Suspected]:
    """The claims of the batch that must be held; all others are allowed."""
    found: dict[uuid.UUID, Suspected] = {}
    for detector in DETECTORS:
        for claim, reason, rule_id, evidence in detector.suspicions(cursor, batch):
            suspected = found.setdefault(claim, Suspected(rule_id))
            if reason not in suspected.reasons:
                suspected.reasons.append(reason)
            suspected.evidence.append(evidence)
    return found


def rules_current() -> QuerySet[RiskRule]:
    """The version of each rule that counts, active or not."""
    later = RiskRule.objects.filter(rule=OuterRef("rule"), version__gt=OuterRef("version"))
    return RiskRule.objects.filter(~Exists(later))


# --- withdrawals ----------------------------------------------------------------------------------

_PAID_OUT = """
SELECT count(DISTINCT payout.participant) FILTER (WHERE payout.participant <> %(participant)s) + 1,
       COALESCE(sum(payout.amount_fen), 0)::bigint + %(amount_fen)s
  FROM packets_payout AS payout
 WHERE payout.payee_hash = %(payee_hash)s
   AND payout.created_at > clock_timestamp() - make_interval(secs => %(window_s)s)
   AND payout.state NOT IN ('failed', 'cancelled')
"""


_LOCK_PAYEE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


def payout_reasons(participant: bytes, payee_hash: str, amount_fen: int) -> list[RiskReason]:
    """Why a withdrawal of this person to this payee must wait for a person; empty: it need not.

    Ask inside the transaction that makes the payout, before it, and before any account is locked:
    two withdrawals to one payee are counted one after the other, by a lock that lasts until then.
    """
    rules = list(rules_current().filter(is_active=True, kind__in=PAYEE_KINDS).order_by("id"))
    found: list[RiskReason] = []
    if not rules:
        return found
    names: dict[str, Any] = {
        "participant": participant,
        "payee_hash": payee_hash,
        "amount_fen": amount_fen,
    }
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_PAYEE, [f"payee:{payee_hash}"])
        for rule in rules:
            cursor.execute(_PAID_OUT, {**names, "window_s": rule.window_s})
            wallets, fen = cursor.fetchone()
            reason = RiskReason(rule.kind)
            if (fen if rule.counts_money else wallets) > rule.most and reason not in found:
                found.append(reason)
    return found


def suspected_rows(
    suspected: Mapping[uuid.UUID, Suspected],
) -> tuple[list[uuid.UUID], list[str], list[str], list[int | None]]:
    """As columns for Postgres: claims, reasons, evidence (both as JSON), rules."""
    return (
        list(suspected),
        [json.dumps(one.reasons) for one in suspected.values()],
        [json.dumps(one.evidence) for one in suspected.values()],
        [one.rule_id for one in suspected.values()],
    )
