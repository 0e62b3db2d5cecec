"""`manage.py audit_money [--json]`: the money check.

Exit code 0: every invariant holds. 1: at least one is broken, and the table says by whom. 2: the
time was over before the answer.
"""

from __future__ import annotations

import sys
from typing import IO, Any, cast

import orjson
from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.table import Table

from engine.lib.clock import rfc3339
from engine.lib.money import CURRENCY, yuan
from packets.invariants import (
    COMMAND_LIMIT_MS,
    AuditUnfinished,
    InvariantReport,
    Totals,
    Verdict,
    invariants_check,
    report_json,
)

EXIT_BROKEN = 1
EXIT_UNFINISHED = 2
PLAIN_WIDTH = 120  # columns where the output isn't a terminal


class Command(BaseCommand):
    help = "Checks every invariant of money and claims in one snapshot; exit 1 if one is broken."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--limit-s",
            type=float,
            default=COMMAND_LIMIT_MS / 1000,
            help="give up after this many seconds (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = invariants_check(limit_ms=int(options["limit_s"] * 1000))
        except AuditUnfinished as problem:
            self.stderr.write(f"audit_money: {problem}. Ask again with a larger --limit-s.")
            sys.exit(EXIT_UNFINISHED)
        if options["json"]:
            self.stdout.write(
                orjson.dumps(report_json(report), option=orjson.OPT_INDENT_2).decode()
            )
        else:
            self._print(report)
        if not report.holds:
            sys.exit(EXIT_BROKEN)

    def _print(self, report: InvariantReport) -> None:
        terminal = self.stdout.isatty()
        # Django's wrapper writes text like a file; only its type doesn't say so.
        console = Console(file=cast(IO[str], self.stdout), width=None if terminal else PLAIN_WIDTH)
        table = Table(title=f"Invariants, {rfc3339(report.taken_at)}", title_justify="left")
        for column in ("", "check", "holds when", "offenders"):
            table.add_column(column)
        for check in report.checks:
            broken = check.verdict is Verdict.BROKEN
            table.add_row(
                str(check.number),
                check.name,
                f"{check.meaning}\n→ {check.detail}" if broken else check.meaning,
                f"✗ {check.value}" if broken else "✓",
                style="bold red" if broken else None,
            )
        console.print(table)
        for totals in report.totals:
            # One line in every terminal: a sum is read and copied whole.
            console.print(money_line(totals), highlight=False, soft_wrap=True)
        progress = report.progress
        console.print(
            f"claims {progress.claims:,} · settled {progress.settled:,} · parked"
            f" {progress.parked:,} · waiting {progress.waiting:,} · held {progress.held:,}"
            f" · lag {progress.lag_s:.1f} s",
            highlight=False,
        )
        broken_count = sum(check.verdict is Verdict.BROKEN for check in report.checks)
        console.print(
            f"[bold red]money check: {broken_count} of {len(report.checks)} checks are broken[/]"
            if broken_count
            else f"[bold green]money check: all {len(report.checks)} checks hold[/]"
            f" ({report.took_ms} ms)",
            highlight=False,
        )


def money_line(totals: Totals) -> str:
    """`CNY: funded ¥… = campaigns … + escrow … + …`, the conservation equation with its numbers."""
    amounts = {
        "campaigns": totals.campaigns_fen,
        "escrow": totals.escrow_fen,
        "wallets": totals.wallets_fen,
        "held": totals.held_fen,
        "clearing": totals.clearing_fen,
        "returned": totals.returned_fen,
        "paid out": totals.paid_out_fen,
    }
    write = yuan if totals.currency == CURRENCY else "{:,} fen".format
    parts = " + ".join(f"{name} {write(amount)}" for name, amount in amounts.items())
    return f"{totals.currency}: funded {write(totals.funded_fen)} = {parts}"
