"""What a person says about their held money: once for each hold, while it is open.

The same text again is the same appeal (an answer may get lost on its way); another text is
refused. The text is encrypted at rest and shown to staff only.
"""

from __future__ import annotations

import uuid

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from engine.lib import crypto
from engine.lib.audit import audit_record
from engine.lib.errors import TransitionRefused
from packets.models import Hold, HoldAppeal

TEXT_MAX_CHARS = 2_000


class AppealedBefore(TransitionRefused):
    """This hold has an appeal with other words."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(hold.pk.hex, "appealed", ("open",), {"appealed": _("appealed already")})


def hold_appeal(*, hold_id: uuid.UUID, participant: bytes, text: str, actor: str) -> HoldAppeal:
    """Raises Hold.DoesNotExist (also where the hold is another's), and TransitionRefused."""
    with transaction.atomic():
        hold = Hold.objects.select_for_update(no_key=True).get(pk=hold_id, participant=participant)
        before = HoldAppeal.objects.filter(hold=hold).first()
        if before is not None:
            if appeal_text(before) == text:
                return before
            raise AppealedBefore(hold)
        if hold.state != Hold.State.OPEN:
            raise TransitionRefused(
                hold.pk.hex, hold.state, (Hold.State.OPEN,), dict(Hold.State.choices)
            )
        appeal = HoldAppeal.objects.create(hold=hold, text_encrypted=crypto.encrypt(text.encode()))
        audit_record(
            actor=actor,
            action="hold.appeal",
            object_type="hold",
            object_id=hold.pk.hex,
            after={"chars": len(text)},
        )
    appeal.refresh_from_db()
    return appeal


def appeal_text(appeal: HoldAppeal) -> str:
    return crypto.decrypt(appeal.text_encrypted).decode()
