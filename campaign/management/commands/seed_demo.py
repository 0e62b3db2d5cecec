"""`manage.py seed_demo`: makes the demo campaign and prints one JSON object, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.demo import demo_seed
from engine.lib.errors import ServiceError


class Command(BaseCommand):
    help = "Makes (or repairs) the demo campaign; prints its ids and keys as one JSON object."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            demo = demo_seed()
        except ServiceError as refusal:
            raise CommandError(f"{refusal.field}: {refusal.message} ({refusal.code})") from None
        self.stdout.write(json.dumps(dataclasses.asdict(demo)))
