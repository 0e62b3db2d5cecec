"""`manage.py growth_report`: a campaign's growth figures, counted now; docs/growth.md explains."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.models import Campaign
from engine.lib.clock import rfc3339


class Command(BaseCommand):
    help = "Count a campaign's growth figures now and print them (nothing is stored)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("campaign", help="slug")
        parser.add_argument("--json", action="store_true", help="one JSON object, by kind")

    def handle(self, *args: Any, **options: Any) -> None:
        from referrals.analytics.report import database_now, report

        campaign = Campaign.objects.filter(slug=options["campaign"]).first()
        if campaign is None:
            raise CommandError("there is no such campaign")
        until = database_now()
        found = {
            "campaign": campaign.slug,
            "timezone": campaign.timezone,
            "until": rfc3339(until),
            **report(campaign, until),
        }
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        for name, value in _lines("", found):
            self.stdout.write(f"{name:<40} {value}")


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """`cost.sides.invited.fen` and what it is; short lists on one line."""
    if isinstance(value, dict):
        parts = [_lines(f"{name}.{key}" if name else key, one) for key, one in value.items()]
        return [line for part in parts for line in part]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [_lines(f"{name}.{number}", one) for number, one in enumerate(value)]
        return [line for part in parts for line in part]
    return [(name, "–" if value is None else str(value))]
