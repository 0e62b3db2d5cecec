"""`manage.py demo_link`: a share link of the demo to open, and its owner's page."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from campaign.models import Channel
from referrals.demo import app as demo
from referrals.linking.links import address_of


class Command(BaseCommand):
    help = "Prints somebody's share link of the demo, and the address of their own page."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="alice", help="the app's own id of the person")

    def handle(self, *args: Any, **options: Any) -> None:
        app = demo.demo_app()
        if app is None:
            raise CommandError("the demo's app isn't on here: it is where `make run` runs")
        growth = demo.shared_campaign(app)
        person = demo.caller_of(app, options["user"])
        shared = demo.shared_by(growth.campaign, person, Channel.WECHAT) if growth else None
        if shared is None:
            raise CommandError("nobody can share the demo's campaign now: `manage.py seed_demo`")
        base = settings.BASE_URL.rstrip("/")
        self.stdout.write(f"share link: {address_of(shared.link.code)}")
        self.stdout.write(f"what it earns: {base}{demo.page_of(person.subject)}")
