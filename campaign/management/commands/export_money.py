"""`manage.py export_money transfers|payouts|paid|differences --from DAY --to DAY [--whole-payees]`

Writes CSV (UTF-8 with a mark, amounts in whole fen) to standard output or to `--out FILE`. The days
are of the staff's time zone, both included. The audit log keeps who took what.
"""

from __future__ import annotations

import datetime as dt
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from campaign.money_exports import Period, What, money_export
from engine.lib.errors import ServiceError

OWNER_ONLY = 0o600  # the file may name people


class Command(BaseCommand):
    help = "Writes transfers, payouts or differences of a period as CSV."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=[one.value for one in What])
        parser.add_argument("--from", dest="first", required=True, type=dt.date.fromisoformat)
        parser.add_argument("--to", dest="last", required=True, type=dt.date.fromisoformat)
        parser.add_argument(
            "--whole-payees", action="store_true", help="accounts and names as they were given"
        )
        parser.add_argument("--out", type=Path, help="a file that isn't there yet")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            pieces = money_export(
                what=options["what"],
                period=Period(options["first"], options["last"]),
                whole=options["whole_payees"],
                actor=f"shell:uid {os.geteuid()}",
            )
        except ServiceError as refusal:
            raise CommandError(str(refusal)) from refusal
        if options["out"] is None:
            for piece in pieces:
                self.stdout.write(piece.decode(), ending="")
            return
        try:
            handle = os.open(options["out"], os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        except FileExistsError:
            raise CommandError(f"{options['out']} is there already") from None
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
