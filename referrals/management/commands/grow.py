"""`manage.py grow`: fills a campaign with people who don't exist, through the real services."""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.models import CampaignGrowth
from engine.lib.errors import ServiceError
from engine.lib.ids import parse_hex_id
from referrals.growing.metrics import forest_of, summary_of
from referrals.growing.walking import MAX_PEOPLE, Walk
from referrals.growing.world import Preset, farms_of, make_world
from referrals.models import ShareLink

PER_SECOND = 50.0  # people a second, unless said otherwise: little beside a real crowd


class Command(BaseCommand):
    help = "Grow a made-up forest in a campaign that nobody shares yet, with planted farms."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--campaign", required=True, help="slug; its rows stay for ever")
        parser.add_argument("--users", type=int, default=300)
        parser.add_argument("--preset", choices=[each.value for each in Preset], default="viral")
        parser.add_argument("--farms", default="", help="shares: star:0.01,chain:0.02,…")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--packet", help="id of a packet that they claim; else nobody claims")
        parser.add_argument("--per-second", type=float, default=PER_SECOND)
        parser.add_argument("--truth", type=Path, help="a JSON file that says who is a farmer")

    def handle(self, *args: Any, **options: Any) -> None:
        walk = self._walk(options)
        try:
            outcomes = walk.run()
        except ServiceError as refusal:
            raise CommandError(f"{refusal.field}: {refusal.message} ({refusal.code})") from None
        if options["truth"]:
            options["truth"].write_text(json.dumps(walk.truth(), indent=1), encoding="utf-8")
        summary = summary_of(forest_of(walk.world.inviter))
        said = {
            "people": summary.people,
            "invited": summary.invited,
            "largest": summary.largest,
            "virality": round(summary.virality, 3),
            "farmers": int(walk.world.is_farmer.sum()),
            "outcomes": dict(sorted(outcomes.items())),
        }
        self.stdout.write(json.dumps(said))

    def _walk(self, options: dict[str, Any]) -> Walk:
        growth = (
            CampaignGrowth.objects.select_related("campaign")
            .filter(campaign__slug=options["campaign"])
            .first()
        )
        if growth is None:
            raise CommandError("there is no such campaign, or it doesn't spread")
        if ShareLink.objects.filter(campaign=growth.campaign).exists():
            raise CommandError("people share this campaign already; made-up ones can't be told out")
        app = growth.campaign.client_apps.order_by("pk").first()
        if app is None or not 1 <= options["users"] <= MAX_PEOPLE or options["per_second"] <= 0:
            raise CommandError(f"it needs an app, 1 to {MAX_PEOPLE} people, and a speed above 0")
        try:
            farms = farms_of(options["farms"])
        except ValueError as error:
            raise CommandError(str(error)) from None
        world = make_world(options["users"], Preset(options["preset"]), farms, options["seed"])
        packet = self._packet(growth, options["packet"])
        name = f"grown-{options['seed']}"
        return Walk(world, growth, app.pk, name, packet, options["per_second"])

    def _packet(self, growth: CampaignGrowth, said: str | None) -> uuid.UUID | None:
        if said is None:
            return None
        packet = parse_hex_id(said)
        if packet is None or not growth.campaign.packets.filter(pk=packet).exists():
            raise CommandError("the campaign has no such packet")
        return packet
