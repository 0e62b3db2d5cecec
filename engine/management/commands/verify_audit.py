"""`manage.py verify_audit [--json]`: is the audit log whole? Exit 1 at the first broken link."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from engine.lib.audit import audit_verify


class Command(BaseCommand):
    help = "Walk the hash chain of the audit log and name the first broken link."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        report = audit_verify()
        broken = report.broken
        if options["json"]:
            document = {
                "ok": broken is None,
                "events": report.events,
                "broken": None if broken is None else {"event": broken.event_id, "why": broken.why},
            }
            self.stdout.write(json.dumps(document))
        elif broken is None:
            self.stdout.write(f"audit log whole: {report.events} events")
        else:
            self.stderr.write(f"audit log BROKEN at event {broken.event_id}: {broken.why}")
        if broken is not None:
            sys.exit(1)
