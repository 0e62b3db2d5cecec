"""`manage.py three_way_check [--json]`: Redis stock, Postgres and ledger, provider.

Exit code 0: the three books agree. 1: something doesn't, and is named.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand

from engine.lib.redis import stock as stock_client
from packets.providers import provider_of
from packets.reconciling.three_way import three_way_check

EXIT_DIFFERENT = 1


class Command(BaseCommand):
    help = "Holds Redis, Postgres with the ledger, and the providers' books against each other."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        check = three_way_check(client=stock_client(), provider_of=provider_of)
        report = check.report
        if options["json"]:
            self.stdout.write(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
        else:
            self._print(report)
        if check.found:
            sys.exit(EXIT_DIFFERENT)

    def _print(self, report: dict[str, Any]) -> None:
        self.stdout.write(
            f"{report['packets']} packets, {report['lanes']} lanes: {report['not_loaded']} not in"
            f" Redis ({report['redis']}), {report['under_way']} portions under way"
        )
        for name, facts in report["accounts"].items():
            balance = facts["balance_fen"]
            self.stdout.write(
                f"{name}: clearing {facts['clearing_fen']} fen, paid {facts['paid_fen']},"
                f" statements {facts['statements_fen']}, provider's balance"
                f" {balance if balance is not None else facts['balance_error']}"
            )
        for one in report["found"]:
            self.stdout.write(
                f"! {one['what']} {one['where']}: ours {one['ours']}, theirs {one['theirs']}"
            )
        self.stdout.write(
            "the three books agree" if report["agrees"] else f"{report['differences']} differences"
        )
