"""`manage.py erase_person --app APP --user USER [--dry-run]`: a person goes, the books stay.

Refused while money of theirs is on its way; says what must be settled first. Repeating it is
harmless, and needed after a restore from a backup that is older than the erasure.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.lib.errors import ServiceError
from engine.lib.ids import subject_is_valid
from engine.models import ClientApp
from referrals.privacy.erasing import person_erase


class Command(BaseCommand):
    help = "Erases everything that says who a person is; amounts, ids and the ledger stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--app", required=True, help="slug of the client app")
        parser.add_argument("--user", required=True, help="the app's user id")
        parser.add_argument("--reason", default="", help="for the audit log; no names")
        parser.add_argument("--dry-run", action="store_true", help="say what would go")

    def handle(self, *args: Any, **options: Any) -> None:
        app = ClientApp.objects.filter(slug=options["app"]).first()
        if app is None:
            raise CommandError(f"there is no client app {options['app']!r}")
        if not subject_is_valid(options["user"]):
            raise CommandError("a user id is 1 to 128 printable characters")
        try:
            erased = person_erase(
                client_app_id=app.pk,
                subject=options["user"],
                actor="command",
                reason=options["reason"],
                dry_run=options["dry_run"],
            )
        except ServiceError as refusal:
            raise CommandError(str(refusal)) from refusal
        if not erased:
            self.stdout.write("nothing is left of this person that says who they are")
            return
        said = ", ".join(f"{what}: {count}" for what, count in erased.items())
        self.stdout.write(f"{'would erase' if options['dry_run'] else 'erased'}: {said}")
