"""How many planted farmers the detectors hold, and how many honest people, as a table."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from referrals.growing.world import KINDS, Preset, make_world
from referrals.risk.judged import Judged, judge

# Seeds 1 to 20 were used to find the detectors' numbers; these never were.
FIRST_SEED, LAST_SEED = 101, 110
PEOPLE = 100_000
RECALL_MIN, HONEST_MAX = 0.95, 0.005


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--people", type=int, default=PEOPLE)
        parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
        parser.add_argument("--last-seed", type=int, default=LAST_SEED)
        parser.add_argument("--share", type=float, default=0.01, help="of people, for each kind")

    def handle(self, *args: Any, **options: Any) -> None:
        fails = False
        kinds = [kind.value for kind in KINDS]
        self.stdout.write(
            "| preset | " + " | ".join(kinds) + " | honest people held | hubs held |\n"
            "|---|" + "---:|" * (len(kinds) + 2)
        )
        seeds = range(options["first_seed"], options["last_seed"] + 1)
        for preset in Preset:
            farms = dict.fromkeys(KINDS, options["share"])
            runs = [judge(make_world(options["people"], preset, farms, seed)) for seed in seeds]
            if not runs:
                raise CommandError("no seeds")
            self.stdout.write(_line(preset, runs))
            fails |= any(
                min(run.recall.values()) < RECALL_MIN or run.honest_held > HONEST_MAX
                for run in runs
            )
        if fails:
            raise CommandError(f"a world missed {RECALL_MIN} recall or held too many honest people")


def _line(preset: Preset, runs: list[Judged]) -> str:
    """The mean over the worlds, and the worst one in brackets."""
    cells = []
    for kind in KINDS:
        recalls = [run.recall[kind] for run in runs if kind in run.recall]
        cells.append(f"{sum(recalls) / len(recalls):.3f} ({min(recalls):.3f})")
    honest = [run.honest_held for run in runs]
    cells.append(f"{sum(honest) / len(honest):.3%} ({max(honest):.3%})")
    cells.append(f"{sum(run.hubs_held for run in runs)} of {sum(run.hubs for run in runs)}")
    return f"| {preset} | " + " | ".join(cells) + " |"
