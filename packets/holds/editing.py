"""The risk rules as staff write them: each change is a further version, and is audited.

`dry_run` says what a rule would have held among the latest claims, by the same question that
settlement asks.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from engine.lib.money import MAX_FEN, yuan
from packets.holds.rules import CLAIMS_SEEN_MAX, SEEN, rules_current
from packets.models import MAX_RULE_WINDOW_S, RiskRule

MAX_RULES = 10  # active ones: each is asked for every claim
DRY_RUN_CLAIMS = 10_000
DRY_RUN_MS = 4_000
DRY_RUN_PEOPLE = 20  # named, of those it would have held most of
FIELDS = ("version", "kind", "most", "window_s", "is_active", "note")


@dataclass(frozen=True)
class Wanted:
    """A rule as somebody wants it; `most` in fen where the kind counts money."""

    kind: str
    most: int
    window_s: int
    is_active: bool = True
    note: str = ""


def rule_set(*, wanted: Wanted, actor: str, after: RiskRule | None = None) -> RiskRule:
    """Make a rule, or the version `after` this one. Raises ServiceError that names the field.

    Of two who change the same version one is refused, by the unique key (rule, version).
    """
    rule_check(wanted, after.rule if after else None)
    try:
        with transaction.atomic():
            made = RiskRule.objects.create(
                rule=after.rule if after else uuid.uuid4(),
                version=after.version + 1 if after else 1,
                changed_by=actor[:150],
                **asdict(wanted),
            )
            audit_record(
                actor=actor,
                action="risk_rule.set",
                object_type="risk_rule",
                object_id=made.rule.hex,
                before=_picture(after) if after else None,
                after=_picture(made),
                reason=wanted.note,
            )
    except IntegrityError as error:
        if after is None or not RiskRule.objects.filter(rule=after.rule, version=after.version + 1):
            raise
        raise ServiceError(
            "",
            "changed_meanwhile",
            gettext_lazy("The rule was changed meanwhile; look at it again."),
        ) from error
    return made


def rule_check(wanted: Wanted, rule: uuid.UUID | None = None) -> None:
    """Raises ServiceError that names the field. `rule`: the one that is to be changed."""
    if wanted.kind not in RiskRule.Kind.values:
        raise ServiceError("kind", "unknown", gettext_lazy("There is no such kind of rule."))
    if not 1 <= wanted.most <= MAX_FEN:
        raise ServiceError("most", "bounds", gettext_lazy("The number is at least 1."))
    if wanted.kind == RiskRule.Kind.CLAIMS_PER_PERSON and wanted.most >= CLAIMS_SEEN_MAX:
        raise ServiceError(
            "most",
            "bounds",
            gettext_lazy("Of one person at most %(count)s claims are counted."),
            count=CLAIMS_SEEN_MAX - 1,
        )
    if not 1 <= wanted.window_s <= MAX_RULE_WINDOW_S:
        raise ServiceError("window_s", "bounds", gettext_lazy("A window has 1 second to 31 days."))
    others = rules_current().filter(is_active=True)
    if rule is not None:
        others = others.exclude(rule=rule)
    if wanted.is_active and others.count() >= MAX_RULES:
        raise ServiceError(
            "is_active",
            "too_many",
            gettext_lazy("%(count)s rules are active already: each is asked for every claim."),
            count=MAX_RULES,
        )


def _picture(rule: RiskRule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in FIELDS}


def sentence(rule: RiskRule | Wanted) -> str:
    """The rule as one sentence, in the reader's language."""
    window = window_words(rule.window_s)
    match RiskRule.Kind(rule.kind):
        case RiskRule.Kind.CLAIMS_PER_PERSON:
            text, many = (
                _("A claim is held when its person made more than %(many)s within %(window)s."),
                ngettext("%(n)s claim", "%(n)s claims", rule.most) % {"n": f"{rule.most:,}"},
            )
        case RiskRule.Kind.AMOUNT_PER_PERSON:
            text, many = (
                _("A claim is held when its person won more than %(many)s within %(window)s."),
                yuan(rule.most),
            )
        case RiskRule.Kind.WALLETS_PER_PAYEE:
            text, many = (
                _(
                    "A payout waits for a person when more than %(many)s pay out to one account"
                    " within %(window)s."
                ),
                ngettext("%(n)s wallet", "%(n)s wallets", rule.most) % {"n": f"{rule.most:,}"},
            )
        case RiskRule.Kind.AMOUNT_PER_PAYEE:
            text, many = (
                _(
                    "A payout waits for a person when more than %(many)s is paid out to one"
                    " account within %(window)s."
                ),
                yuan(rule.most),
            )
    return capfirst(text % {"many": many, "window": window})


def window_words(seconds: int) -> str:
    """`2 hours`: a time that something happened within."""
    if seconds % 86_400 == 0:
        count, text = seconds // 86_400, ngettext("%(n)s day", "%(n)s days", seconds // 86_400)
    elif seconds % 3_600 == 0:
        count, text = seconds // 3_600, ngettext("%(n)s hour", "%(n)s hours", seconds // 3_600)
    elif seconds % 60 == 0:
        count, text = seconds // 60, ngettext("%(n)s minute", "%(n)s minutes", seconds // 60)
    else:
        count, text = seconds, ngettext("%(n)s second", "%(n)s seconds", seconds)
    return text % {"n": f"{count:,}"}


# --- what would it have held? ---------------------------------------------------------------------


@dataclass(frozen=True)
class DryRun:
    """What a rule says of the latest `claims`; `most`: people with their claims and fen."""

    claims: int
    people: int
    held_claims: int
    held_fen: int
    held_people: int
    most: tuple[tuple[bytes, int, int], ...]


_DRY_RUN = f"""
WITH claim AS MATERIALIZED (
    SELECT id, participant, amount_fen, committed_at
      FROM packets_claim ORDER BY committed_at DESC LIMIT %(claims)s
), held AS MATERIALIZED (
    SELECT claim.participant, claim.amount_fen
      FROM claim
     CROSS JOIN (SELECT %(kind)s::text AS kind, %(most)s::bigint AS most,
                        %(window_s)s::integer AS window_s) AS rule
     CROSS JOIN LATERAL ({SEEN.format(most=CLAIMS_SEEN_MAX)}) AS seen
     WHERE CASE rule.kind WHEN 'claims_per_person' THEN seen.claims ELSE seen.fen END > rule.most
), person AS (
    SELECT participant, count(*) AS claims, sum(amount_fen)::bigint AS fen
      FROM held GROUP BY participant
)
SELECT (SELECT count(*) FROM claim), (SELECT count(DISTINCT participant) FROM claim),
       (SELECT count(*) FROM held), (SELECT COALESCE(sum(amount_fen), 0)::bigint FROM held),
       (SELECT count(*) FROM person), most.participant, most.claims, most.fen
  FROM (SELECT 1) AS one
  LEFT JOIN (SELECT * FROM person ORDER BY fen DESC, participant LIMIT %(people)s) AS most ON true
 ORDER BY most.fen DESC NULLS LAST, most.participant
"""


def dry_run(wanted: Wanted, claims: int = DRY_RUN_CLAIMS) -> DryRun:
    """Only for the kinds that are asked when a claim is settled. Bounded by DRY_RUN_MS."""
    names: dict[str, str | int] = {
        "claims": claims,
        "kind": wanted.kind,
        "most": wanted.most,
        "window_s": wanted.window_s,
        "people": DRY_RUN_PEOPLE,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(DRY_RUN_MS)])
        cursor.execute(_DRY_RUN, names)
        rows = cursor.fetchall()
    claimed, people, held_claims, held_fen, held_people = rows[0][:5]
    return DryRun(
        claims=claimed,
        people=people,
        held_claims=held_claims,
        held_fen=held_fen,
        held_people=held_people,
        most=tuple((bytes(row[5]), int(row[6]), int(row[7])) for row in rows if row[5]),
    )
