"""What a reviewer does to a whole case: release all, forfeit all, or ban all.

    release  everybody is let go for good: nothing more is held or kept waiting because of this
             case, and what is held goes to its people
    forfeit  what was held when it was asked for goes back to whoever funded it; the case stays
    ban      everybody is banned in this campaign, with all that a ban does

Asked for in one transaction, carried out in many small ones by a worker. Whoever is killed leaves
it due, and what was done isn't done again: a hold ends once, a person is banned once.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import assert_never

from django.db import IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from packets.holds.resolving import hold_forfeit, hold_release
from packets.models import Hold
from referrals import due
from referrals.forest.bans import person_ban
from referrals.models import Ban, RiskAct, RiskCase, RiskMember
from referrals.risk.standing import wake

REASON_MAX_CHARS = 200
# Seconds for which a run goes on; then others have the worker, and the act is due again.
RUN_S = 5.0
CLEARED_AT_ONCE = 500  # people let go in one transaction
LEASED_AT_ONCE = 5  # acts
STEP = 20  # holds or bans between two looks at the time
LEASE = dt.timedelta(seconds=60)

_CLEAR = """
UPDATE referrals_riskmember AS member
   SET cleared_at = clock_timestamp(), cleared_by = %(actor)s
  FROM (SELECT id FROM referrals_riskmember
         WHERE case_id = %(case)s AND cleared_at IS NULL
         ORDER BY id LIMIT %(most)s FOR UPDATE) AS freed
 WHERE member.id = freed.id
RETURNING member.campaign_id, member.participant
"""


def holds_of(case: RiskCase) -> QuerySet[Hold]:
    """What waits for a decision because of this case."""
    return Hold.objects.filter(risk__member__case=case, state=Hold.State.OPEN).order_by("id")


def act_ask(*, case: RiskCase, kind: RiskAct.Kind, actor: str, reason: str) -> RiskAct:
    """Write down what is to be done to all of a case. Raises ServiceError."""
    reason = reason.strip()
    if not reason:
        raise ServiceError("reason", "blank", _("Say why: the people may ask."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError("reason", "too_long", _("The reason is too long."))
    of = case.members.count() if kind is RiskAct.Kind.BAN else holds_of(case).count()
    try:
        with transaction.atomic():
            act = RiskAct.objects.create(
                case=case, kind=kind, reason=reason, actor=actor[:150], of=of
            )
            audit_record(
                actor=actor,
                action=f"risk_case.{kind}",
                object_type="risk_case",
                object_id=str(case.pk),
                after={"act": act.pk, "of": of},
                reason=reason,
            )
    except IntegrityError:
        raise ServiceError(
            "", "running", _("Another act on this case is still being carried out.")
        ) from None
    return act


def acts_run() -> int:
    """Go on with what is due; how many acts were worked on."""
    taken = due.lease(RiskAct, "done_at IS NULL", LEASED_AT_ONCE)
    for act_id in taken:
        act_run(act_id)
    return len(taken)


def act_run(act_id: int, run_s: float = RUN_S) -> None:
    act = RiskAct.objects.select_related("case__campaign").get(pk=act_id)
    mine = RiskAct.objects.filter(pk=act_id, done_at=None)
    until = time.monotonic() + run_s
    done = 0
    for _one in _steps(act):
        done += 1
        if done % STEP == 0:
            mine.update(done=F("done") + STEP, next_attempt_at=Now() + LEASE)
            if time.monotonic() > until:
                mine.update(next_attempt_at=Now(), attempts=0)
                return
    mine.update(done=F("done") + done % STEP, done_at=Now(), next_attempt_at=None)


def _steps(act: RiskAct) -> Iterator[None]:
    """Does one small thing in a transaction of its own, and says so; until nothing is left."""
    kind = RiskAct.Kind(act.kind)
    match kind:
        case RiskAct.Kind.RELEASE:
            while _clear(act):
                pass
            yield from _resolve(act, holds_of(act.case))
        case RiskAct.Kind.FORFEIT:
            yield from _resolve(act, holds_of(act.case).filter(opened_at__lte=act.asked_at))
        case RiskAct.Kind.BAN:
            yield from _ban(act)
        case unknown:
            assert_never(unknown)


def _clear(act: RiskAct) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLEAR, {"actor": act.actor, "case": act.case_id, "most": CLEARED_AT_ONCE})
        freed = [(campaign, bytes(person)) for campaign, person in cursor.fetchall()]
        wake(cursor, freed)
    return len(freed)


def _resolve(act: RiskAct, holds: QuerySet[Hold]) -> Iterator[None]:
    end = hold_release if act.kind == RiskAct.Kind.RELEASE else hold_forfeit
    for hold in list(holds.values_list("pk", flat=True)):
        try:
            end(hold_id=hold, actor=act.actor, reason=act.reason)
        except TransitionRefused:
            continue  # somebody decided about this one meanwhile
        yield


def _ban(act: RiskAct) -> Iterator[None]:
    banned = Ban.objects.filter(campaign=act.case.campaign, lifted_at=None)
    known = {bytes(one) for one in banned.values_list("participant", flat=True)}
    members = RiskMember.objects.filter(case=act.case).order_by("id")
    for member in list(members.values_list("participant", flat=True)):
        if bytes(member) in known:
            continue
        try:
            person_ban(
                participant=bytes(member),
                campaign=act.case.campaign,
                actor=act.actor,
                reason=act.reason,
            )
        except ServiceError:
            continue  # banned meanwhile
        yield
