"""Whose digest it is: written down when somebody shares or joins, since a reward is a ticket made
out to a name, and who shares may never have claimed anything.
"""

from __future__ import annotations

from engine.lib.auth import Caller
from packets.models import Participant


def name_remember(caller: Caller) -> None:
    person = Participant(
        digest=caller.participant, client_app_id=caller.client_app_id, subject=caller.subject
    )
    Participant.objects.bulk_create([person], ignore_conflicts=True)
