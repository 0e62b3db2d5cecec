"""What people do about a difference: look at both sides, then say what it was and why.

Resolving moves no money and changes no payout. Where money has to be moved it is moved by the
payout's own acts first (`packets/payouts/manual.py`), and the difference then says so.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from packets.models import Difference

REASON_MAX_CHARS = 300
Resolution = Difference.Resolution
# That both sides agree is seen by the comparison alone; everything else is somebody's decision.
BY_PEOPLE = tuple(one for one in Resolution if one is not Resolution.AGREES)


def difference_resolve(
    *, difference_id: int, resolution: str, reason: str, actor: str
) -> Difference:
    """Close an open difference for good. ServiceError for what can't be meant, TransitionRefused
    where somebody was faster."""
    reason = reason.strip()
    if resolution not in BY_PEOPLE:
        raise ServiceError("resolution", "unknown", _("Choose what it was."))
    if not reason:
        raise ServiceError("reason", "missing", _("Say why."))
    if len(reason) > REASON_MAX_CHARS:
        raise ServiceError(
            "reason", "too_long", _("At most %(most)s characters."), most=REASON_MAX_CHARS
        )
    with transaction.atomic():
        changed = Difference.objects.filter(pk=difference_id, state=Difference.State.OPEN).update(
            state=Difference.State.RESOLVED,
            resolution=resolution,
            reason=reason,
            resolved_by=actor[:150],
            resolved_at=Now(),
        )
        difference = Difference.objects.get(pk=difference_id)
        if changed != 1:
            raise TransitionRefused(
                str(difference),
                difference.state,
                (Difference.State.OPEN,),
                dict(Difference.State.choices),
            )
        audit_record(
            actor=actor,
            action="difference.resolve",
            object_type="difference",
            object_id=difference.pk,
            before={"state": Difference.State.OPEN},
            after={
                "state": difference.state,
                "kind": difference.kind,
                "out_number": difference.out_number,
                "ours_fen": difference.ours_fen,
                "theirs_fen": difference.theirs_fen,
                "resolution": resolution,
            },
            reason=reason,
        )
    return difference
