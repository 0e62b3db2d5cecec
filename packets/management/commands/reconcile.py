"""`manage.py reconcile --account NAME --day YYYY-MM-DD [--file STATEMENT.csv]`

Fetches the day's statement from the provider, or reads the file, and compares it. Doing it again is
harmless. Prints the statement's sums and every open difference of it. Exit code 0: both sides
agree. 1: there are open differences. 2: there is no statement.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from engine.lib.errors import ServiceError
from packets.models import Difference, ProviderAccount, Statement
from packets.providers import provider_of
from packets.reconciling.files import StatementUnreadable
from packets.reconciling.matching import statement_match
from packets.reconciling.statements import statement_fetch, statement_upload

EXIT_DIFFERENT = 1
EXIT_NONE = 2
WAIT_S = 60  # for another statement of the account that is being compared
SHOWN = 200  # differences printed; the admin has all of them


class Command(BaseCommand):
    help = "Compare one day of a provider account with its statement."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="the provider account's name")
        parser.add_argument("--day", required=True, type=dt.date.fromisoformat)
        parser.add_argument("--file", type=Path, help="a downloaded statement, instead of asking")

    def handle(self, *args: Any, **options: Any) -> None:
        account = ProviderAccount.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"there is no provider account {options['account']}")
        try:
            statement = self._statement(account, options["day"], options["file"])
        except StatementUnreadable as refusal:
            for fault in refusal.faults:
                self.stderr.write(f"row {fault.line_no}: {fault.why}")
            sys.exit(EXIT_NONE)
        except ServiceError as refusal:
            self.stderr.write(f"reconcile: {refusal}")
            sys.exit(EXIT_NONE)
        if statement.state == Statement.State.FAILED:
            self.stderr.write(f"reconcile: no statement: {statement.fault}")
            sys.exit(EXIT_NONE)
        statement_match(statement_id=statement.pk, wait_s=WAIT_S)
        self._print(statement)

    def _statement(self, account: ProviderAccount, day: dt.date, path: Path | None) -> Statement:
        actor = f"shell:uid {os.geteuid()}"
        if path is not None:
            with path.open("rb") as file:
                return statement_upload(
                    account=account, day=day, file=file, filename=path.name, actor=actor
                )
        return statement_fetch(account=account, day=day, provider_of=provider_of, actor=actor)

    def _print(self, statement: Statement) -> None:
        found = Difference.objects.filter(
            account=statement.account, day=statement.day, state=Difference.State.OPEN
        ).order_by("kind", "key")
        self.stdout.write(
            f"{statement.account.name} {statement.day}: {statement.lines} lines,"
            f" {statement.sum_fen} fen paid, {found.count()} open differences"
        )
        for one in found[:SHOWN]:
            self.stdout.write(
                f"{one.kind}\t{one.out_number}\there {one.ours_fen} {one.ours_state or '-'}"
                f"\tthere {one.theirs_fen} {one.theirs_state or '-'}"
            )
        if found.exists():
            sys.exit(EXIT_DIFFERENT)
