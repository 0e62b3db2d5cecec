"""`manage.py drill_campaign --run NAME --portions 1000 500`: prints one JSON object."""

from __future__ import annotations

import dataclasses
import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.drills import drill_make
from engine.lib.errors import ServiceError


class Command(BaseCommand):
    help = "Makes a campaign for one peak drill, with one open packet for each --portions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--run", required=True, help="the drill's name, part of the slug")
        parser.add_argument("--portions", required=True, type=int, nargs="+")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            drill = drill_make(run=options["run"], portions=options["portions"])
        except ServiceError as refusal:
            raise CommandError(f"{refusal.field}: {refusal.message} ({refusal.code})") from None
        self.stdout.write(json.dumps(dataclasses.asdict(drill)))
