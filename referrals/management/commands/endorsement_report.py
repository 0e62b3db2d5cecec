"""`manage.py endorsement_report`: the forest's numbers on a real graph; docs/growth-debian.md."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import BaseCommand

from referrals.growing.endorsements import introducers, picture
from referrals.growing.metrics import forest_of, summary_of

DOCS = Path(__file__).resolve().parents[3] / "docs"
FOREST = DOCS / "growth-debian.csv"
PICTURE = DOCS / "pictures" / "growth-debian.svg"
TITLE = "Keys of Debian's developers by the number of introductions above them"


class Command(BaseCommand):
    help = "Print the numbers of Debian's forest of introductions, from docs/growth-debian.csv."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--from-gpg", action="store_true", help="read gpg's list from standard input first"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["from_gpg"]:
            # Names in old keys are in many encodings; none is kept.
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
            inviter = introducers(sys.stdin)
            text = "\n".join(["introducer", *map(str, inviter.tolist()), ""])
            FOREST.write_text(text, encoding="ascii")
        summary = summary_of(forest_of(np.loadtxt(FOREST, np.int64, skiprows=1)))
        if options["from_gpg"]:
            PICTURE.write_text(picture(summary.by_depth, TITLE), encoding="utf-8")
        self.stdout.write(json.dumps(dataclasses.asdict(summary)))
