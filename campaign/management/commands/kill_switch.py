"""`manage.py kill_switch on|off [--campaign SLUG]`: stops claims at once, from a shell.

Without a campaign it pauses the gate before everything; `off` opens it again. With one it pauses
or resumes that campaign. Neither moves money; ending a campaign for good is `kill` in the admin.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign import services
from campaign.models import Campaign
from engine.lib.errors import ServiceError


class Command(BaseCommand):
    help = "Stops all claims (or those of one campaign), or allows them again. No money moves."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("position", choices=["on", "off"])
        parser.add_argument("--campaign", metavar="SLUG", help="only this campaign")
        parser.add_argument("--reason", default="", help="kept in the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        on, slug, reason = options["position"] == "on", options["campaign"], options["reason"]
        actor = f"shell:uid {os.geteuid()}"
        try:
            if slug is None:
                gate = services.kill_switch_all(on=on, actor=actor, reason=reason)
                self.stdout.write(f"all claims: {gate.state}")
                return
            campaign = Campaign.objects.filter(slug=slug).first()
            if campaign is None:
                raise CommandError(f"there is no campaign {slug}")
            move = services.campaign_pause if on else services.campaign_resume
            campaign = move(campaign_id=campaign.pk, actor=actor, reason=reason)
            self.stdout.write(f"{campaign.slug}: {campaign.state}")
        except ServiceError as refusal:
            raise CommandError(refusal.message) from None
