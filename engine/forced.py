"""Test users: people of an app whose claims answer what its integrators want to see.

Only for an app that allows them, a few hundred at most, and each change is audited. What a claim
does with one is a rule of the claim flow (`packets/claiming/flow.py`).
"""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from engine.lib.ids import participant_digest, subject_is_valid
from engine.models import ClientApp, ForcedOutcome

MAX_PER_APP = 200  # every process keeps them all in memory

Result = ForcedOutcome.Result
Reason = ForcedOutcome.Reason


def forced_outcome_check(*, client_app: ClientApp, subject: str, result: str, reason: str) -> None:
    """What `forced_outcome_set` would refuse."""
    if not subject_is_valid(subject):
        raise ServiceError("subject", "format", _("A user id is 1 to 128 printable characters."))
    if result not in Result.values:
        raise ServiceError(
            "result",
            "choice",
            _("This must be one of %(choices)s."),
            choices=", ".join(Result.values),
        )
    if result == Result.NOT_ELIGIBLE and reason not in Reason.values:
        raise ServiceError("reason", "blank", _("Say why the person is not eligible."))
    if result != Result.NOT_ELIGIBLE and reason:
        raise ServiceError("reason", "not_used", _("Only “not eligible” has a reason."))
    if not client_app.test_users_allowed:
        raise ServiceError("client_app", "not_allowed", _("This client app allows no test users."))
    others = ForcedOutcome.objects.filter(client_app=client_app).exclude(subject=subject)
    if others.count() >= MAX_PER_APP:
        raise ServiceError(
            "subject",
            "too_many",
            _("A client app has at most %(most)s test users."),
            most=MAX_PER_APP,
        )


def _named(app: ClientApp, subject: str) -> str:
    """Of the person in the audit log, which can never be erased: their digest, no name."""
    return f"{app.slug}/{participant_digest(app.pk, subject).hex()}"


def forced_outcome_set(
    *, client_app_id: int, subject: str, result: str, actor: str, reason: str = "", note: str = ""
) -> ForcedOutcome:
    """This person's claims answer `result` from now on (within a second, on every process)."""
    with transaction.atomic():
        # The app's row is locked, so that two at once can't both be the last that fits.
        app = ClientApp.objects.select_for_update(no_key=True).filter(pk=client_app_id).first()
        if app is None:
            raise ServiceError("client_app", "not_found", _("There is no such client app."))
        forced_outcome_check(client_app=app, subject=subject, result=result, reason=reason)
        row, _made = ForcedOutcome.objects.update_or_create(
            client_app=app,
            subject=subject,
            defaults={"result": result, "reason": reason, "note": note},
            create_defaults={"result": result, "reason": reason, "note": note, "created_by": actor},
        )
        audit_record(
            actor=actor,
            action="forced_outcome.set",
            object_type="forced_outcome",
            object_id=_named(app, subject),
            after={"result": result, "reason": reason},
        )
    return row


def forced_outcome_delete(*, forced_outcome_id: int, actor: str) -> None:
    """The person is like everybody again."""
    with transaction.atomic():
        row = (
            ForcedOutcome.objects.select_for_update(of=("self",))
            .select_related("client_app")
            .filter(pk=forced_outcome_id)
            .first()
        )
        if row is None:
            raise ServiceError("forced_outcome", "not_found", _("There is no such test user."))
        audit_record(
            actor=actor,
            action="forced_outcome.delete",
            object_type="forced_outcome",
            object_id=_named(row.client_app, row.subject),
            before={"result": row.result, "reason": row.reason},
        )
        row.delete()


def app_test_users_set(*, client_app_id: int, allowed: bool, actor: str) -> None:
    """Whether the app may have test users. Taken away, those it has are like everybody again."""
    with transaction.atomic():
        app = ClientApp.objects.select_for_update(no_key=True).filter(pk=client_app_id).first()
        if app is None:
            raise ServiceError("client_app", "not_found", _("There is no such client app."))
        before, app.test_users_allowed = app.test_users_allowed, allowed
        app.save(update_fields=["test_users_allowed"])
        audit_record(
            actor=actor,
            action="client_app.test_users",
            object_type="client_app",
            object_id=app.slug,
            before={"allowed": before},
            after={"allowed": allowed},
        )
