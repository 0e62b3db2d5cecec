"""After Postgres was restored from a backup: open a new epoch for every lane that isn't closed.

What Redis remembers beyond the restored books is forgotten. Shut the doors first (`make restore`
does all of it).
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from packets import recovery


class Command(BaseCommand):
    help = "Open a new epoch for every open lane, from Postgres alone (after a restore)."

    def handle(self, *args: Any, **options: Any) -> None:
        reopened = recovery.reopen_all()
        for lane_id, epoch in reopened:
            self.stdout.write(f"lane {lane_id}: epoch {epoch}")
        self.stdout.write(f"{len(reopened)} lanes reopened")
