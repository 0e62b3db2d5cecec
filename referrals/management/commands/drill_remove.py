"""`manage.py drill_remove --campaign SLUG [--yes]`: takes a drill away; a real campaign never.

Runs as the owner of the database. Without `--yes` it counts what would go and changes nothing.
Killed in the middle, it goes on where it stopped when it is started again. Exit 1: refused.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.lib.errors import ServiceError
from referrals.removing.removal import RemovalRefused, drill_counts, drill_remove, scope_of


class Command(BaseCommand):
    help = "Removes everything that a peak drill left, and nothing else."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="slug of the drill's campaign")
        parser.add_argument("--yes", action="store_true", help="do it, not only count")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            scope = scope_of(options["campaign"])
            if options["yes"]:
                counts = drill_remove(scope, progress=self._progress)
            else:
                counts = drill_counts(scope)
        except (RemovalRefused, ServiceError) as refusal:
            raise CommandError(str(refusal)) from refusal
        for table, count in counts.items():
            self.stdout.write(f"{count:>10,}  {table}")
        total = f"{sum(counts.values()):,} rows"
        if options["yes"]:
            self.stdout.write(
                f"removed {total} of {scope.slug}; the audit log knows what they were"
            )
        else:
            self.stdout.write(f"{total} of {scope.slug} would be removed; --yes does it")

    def _progress(self, table: str, count: int) -> None:
        self.stderr.write(f"{table}: {count:,}")
