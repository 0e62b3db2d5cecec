"""`manage.py grow`: fills a campaign with people who don't exist.

Through the real services, or (`--bulk`) with the rows that those would have written.
"""

from __future__ import annotations

import json
import uuid
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.models import CampaignGrowth
from engine.lib.errors import ServiceError
from engine.lib.ids import parse_hex_id
from engine.models import ClientApp
from referrals.growing.bulk import MAX_PEOPLE as MAX_BULK_PEOPLE
from referrals.growing.bulk import claims_make, world_write
from referrals.growing.cast import Cast
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
        parser.add_argument(
            "--bulk",
            action="store_true",
            help=f"write rows instead of calling services, with the world's own times; needed "
            f"beyond {MAX_PEOPLE:,} people",
        )
        parser.add_argument("--truth", type=Path, help="a JSON file that says who is a farmer")

    def handle(self, *args: Any, **options: Any) -> None:
        growth, cast = self._growth(options["campaign"]), self._cast(options)
        packet = self._packet(growth, options["packet"])
        try:
            outcomes = self._grow(growth, cast, packet, options)
        except ServiceError as refusal:
            raise CommandError(f"{refusal.field}: {refusal.message} ({refusal.code})") from None
        if options["truth"]:
            options["truth"].write_text(json.dumps(cast.truth(), indent=1), encoding="utf-8")
        summary = summary_of(forest_of(cast.world.inviter))
        said = {
            "people": summary.people,
            "invited": summary.invited,
            "largest": summary.largest,
            "virality": round(summary.virality, 3),
            "farmers": int(cast.world.is_farmer.sum()),
            "outcomes": dict(sorted(outcomes.items())),
        }
        self.stdout.write(json.dumps(said))

    def _grow(
        self,
        growth: CampaignGrowth,
        cast: Cast,
        packet: uuid.UUID | None,
        options: dict[str, Any],
    ) -> Counter[str]:
        if not options["bulk"]:
            return Walk(cast, growth, packet, options["per_second"]).run()
        outcomes = world_write(cast=cast, growth=growth, say=self.stderr.write)
        if packet is not None:
            outcomes += claims_make(cast=cast, packet=packet, say=self.stderr.write)
        return outcomes

    def _growth(self, slug: str) -> CampaignGrowth:
        growth = (
            CampaignGrowth.objects.select_related("campaign").filter(campaign__slug=slug).first()
        )
        if growth is None:
            raise CommandError("there is no such campaign, or it doesn't spread")
        if ShareLink.objects.filter(campaign=growth.campaign).exists():
            raise CommandError("people share this campaign already; made-up ones can't be told out")
        return growth

    def _cast(self, options: dict[str, Any]) -> Cast:
        app = ClientApp.objects.filter(campaigns__slug=options["campaign"]).order_by("pk").first()
        most = MAX_BULK_PEOPLE if options["bulk"] else MAX_PEOPLE
        if app is None or not 1 <= options["users"] <= most or options["per_second"] <= 0:
            raise CommandError(
                f"it needs an app, 1 to {most:,} people ({MAX_BULK_PEOPLE:,} with --bulk), and a "
                "speed above 0"
            )
        try:
            farms = farms_of(options["farms"])
        except ValueError as error:
            raise CommandError(str(error)) from None
        world = make_world(options["users"], Preset(options["preset"]), farms, options["seed"])
        return Cast(world, app.pk, f"grown-{options['seed']}")

    def _packet(self, growth: CampaignGrowth, said: str | None) -> uuid.UUID | None:
        if said is None:
            return None
        packet = parse_hex_id(said)
        if packet is None or not growth.campaign.packets.filter(pk=packet).exists():
            raise CommandError("the campaign has no such packet")
        return packet
