"""`manage.py mint_token --user alice …`: prints a client token for the demo client app."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.demo import APP_SLUG
from engine.lib.auth import MAX_TTL_S
from engine.lib.errors import ServiceError
from engine.models import ClientApp
from engine.services import mint_client_token


class Command(BaseCommand):
    help = "Prints a client token for one user of the demo client app."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="the app's own id of the person (`sub`)")
        parser.add_argument("--device", default="", help="device id (`dev`)")
        parser.add_argument("--group", default="", help="the chat group they are in (`grp`)")
        parser.add_argument(
            "--new", action="store_true", default=None, help="a person new to the app (`new`)"
        )
        parser.add_argument("--age-days", type=int, help="age of the account in days (`acct`)")
        parser.add_argument(
            "--ttl", type=int, default=MAX_TTL_S, help=f"seconds, at most {MAX_TTL_S}"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        app = ClientApp.objects.filter(slug=APP_SLUG).first()
        if app is None:
            raise CommandError("there is no demo client app yet: run `manage.py seed_demo` first")
        try:
            token = mint_client_token(
                client_app_id=app.pk,
                subject=options["user"],
                device=options["device"],
                group=options["group"],
                is_new=options["new"],
                account_age_days=options["age_days"],
                ttl_s=options["ttl"],
            )
        except ServiceError as refusal:
            raise CommandError(f"--{refusal.field}: {refusal.message}") from None
        self.stdout.write(token)
