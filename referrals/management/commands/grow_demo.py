"""`manage.py grow_demo`: a small forest in the demo's campaign, with a farm to find; once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.lib.errors import ServiceError
from referrals.demo import app as demo


class Command(BaseCommand):
    help = "Grows a small made-up forest in the demo's campaign, unless it stands there already."

    def handle(self, *args: Any, **options: Any) -> None:
        from referrals.demo.forest import FARMS, PEOPLE, demo_forest_grow

        app = demo.demo_app()
        growth = demo.shared_campaign(app) if app else None
        if app is None or growth is None:
            raise CommandError("no demo is shared here: it is where `make run` runs")
        try:
            outcomes = demo_forest_grow(app=app, growth=growth, say=self.stderr.write)
        except ServiceError as refusal:
            raise CommandError(f"{refusal.field}: {refusal.message} ({refusal.code})") from None
        if outcomes is None:
            self.stdout.write("the forest stands already")
            return
        self.stdout.write(
            f"{PEOPLE} people ({FARMS}), {outcomes['referrals_referral']} of them invited; "
            f"{outcomes['claim: won']} won something: see Growth in the admin"
        )
