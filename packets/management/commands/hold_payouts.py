"""After Postgres was restored from a backup: nothing new is paid out until a person says so.

The provider may have paid what the restored books have never heard of: reconcile the days since the
backup first, then close the breakers in the admin. (What they do know is safe: its numbers are the
same as before, so the provider recognises them.)
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from engine.lib.audit import audit_record
from packets.payouts.breaker import breakers_open_by_hand
from packets.payouts.sending import payouts_overdue_set_aside


class Command(BaseCommand):
    help = "Opens the breaker of every provider account, until a person closes it."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--reason", default="restored from a backup")

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            held = breakers_open_by_hand()
            aside = payouts_overdue_set_aside()
            audit_record(
                actor="system",
                action="payouts.hold",
                object_type="provideraccount",
                object_id="all",
                after={"accounts": held, "set_aside": aside},
                reason=options["reason"],
            )
        self.stdout.write(f"{held} provider accounts send nothing new until somebody closes them")
