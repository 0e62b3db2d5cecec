"""`manage.py forget_identities [--older-than DAYS]`: forget hashes of phones, networks, visitors.

The workers do the same by themselves every hour; this is for whoever wants it now, or sooner.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from referrals.privacy.forgetting import identities_forget


class Command(BaseCommand):
    help = "Forgets keyed hashes of phones, networks and visitors that are older than so many days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--older-than",
            type=int,
            default=settings.IDENTITIES_KEPT_DAYS,
            metavar="DAYS",
            help="at least 1; by default IDENTITIES_KEPT_DAYS",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        days = options["older_than"]
        if days < 1:
            raise CommandError("--older-than is at least 1: today's traces are in use")

        def progress(what: str, count: int) -> None:
            self.stdout.write(f"{what}: {count} so far")

        forgotten = identities_forget(older_than_days=days, actor="command", progress=progress)
        self.stdout.write(", ".join(f"{what}: {count}" for what, count in forgotten.items()))
