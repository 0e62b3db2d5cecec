"""What the workbench shows: which days agree, which differ, which are missing; both sides of a
difference. Reading only."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from django.db import connection
from django.db.models import Count, QuerySet, Sum

from packets.models import Difference, Statement, StatementLine

DAYS_SHOWN = 35  # five weeks, as a calendar has them


class DayState(StrEnum):
    """What one day of one account is."""

    DONE = "done"  # compared, and nothing is open
    OPEN = "open"  # compared, with open differences
    RUNNING = "running"  # being read or compared
    MISSING = "missing"  # due, and not here
    QUIET = "quiet"  # not ready at the provider, or before the first payout


@dataclass(frozen=True)
class Day:
    day: dt.date
    state: DayState
    statement_id: int | None
    lines: int
    open_differences: int
    failed: str  # why the last attempt failed, where the day is missing


@dataclass(frozen=True)
class AccountDays:
    account_id: int
    name: str
    by_hand: bool  # its statements come by upload alone
    days: tuple[Day, ...]  # the oldest first


_DAYS = """
    SELECT account.id, account.name, account.statement_after IS NULL, due.day::date,
           known.id, COALESCE(known.state, ''), COALESCE(known.lines, 0),
           COALESCE(differs.n, 0), COALESCE(failed.fault, ''),
           began.first_day IS NOT NULL AND due.day::date >= began.first_day
               AND (due.day + interval '1 day' + COALESCE(account.statement_after, '10:00'))
                   <= (now() AT TIME ZONE account.timezone) AS is_due
      FROM packets_provideraccount AS account
     CROSS JOIN LATERAL (
        SELECT (min(created_at) AT TIME ZONE account.timezone)::date AS first_day
          FROM packets_payout WHERE account_id = account.id) AS began
     CROSS JOIN LATERAL generate_series(
        (now() AT TIME ZONE account.timezone)::date - %(days)s + 1,
        (now() AT TIME ZONE account.timezone)::date, interval '1 day') AS due (day)
      LEFT JOIN LATERAL (
        SELECT id, state, lines FROM packets_statement
         WHERE account_id = account.id AND day = due.day::date
           AND state IN ('matched', 'reading', 'received')
         ORDER BY id DESC LIMIT 1) AS known ON true
      LEFT JOIN LATERAL (
        SELECT count(*) AS n FROM packets_difference
         WHERE account_id = account.id AND day = due.day::date AND state = 'open'
      ) AS differs ON true
      LEFT JOIN LATERAL (
        SELECT fault FROM packets_statement
         WHERE account_id = account.id AND day = due.day::date AND state = 'failed'
         ORDER BY id DESC LIMIT 1) AS failed ON true
     -- A drill's payouts are played: there is nothing to reconcile.
     WHERE NOT EXISTS (SELECT FROM engine_clientapp AS app
                        WHERE app.id = ANY (account.client_apps) AND app.is_drill)
     ORDER BY account.name, due.day
"""


def days_by_account(days: int = DAYS_SHOWN) -> list[AccountDays]:
    """The last days of every provider account, today included."""
    with connection.cursor() as cursor:
        cursor.execute(_DAYS, {"days": days})
        rows = cursor.fetchall()
    found: dict[int, tuple[str, bool, list[Day]]] = {}
    for account_id, name, by_hand, day, known, state, lines, differs, fault, due in rows:
        shown = Day(
            day=day,
            state=_state_of(state, differs, due),
            statement_id=known,
            lines=lines,
            open_differences=differs,
            failed=fault,
        )
        found.setdefault(account_id, (name, by_hand, []))[2].append(shown)
    return [
        AccountDays(account_id, name, by_hand, tuple(shown))
        for account_id, (name, by_hand, shown) in found.items()
    ]


def _state_of(statement: str, differs: int, due: bool) -> DayState:
    if statement in Statement.UNDER_WAY:
        return DayState.RUNNING
    if differs:
        return DayState.OPEN
    if statement == Statement.State.MATCHED:
        return DayState.DONE
    return DayState.MISSING if due else DayState.QUIET


@dataclass(frozen=True)
class OpenKind:
    """How many differences of a class are open, and what both sides say they are worth."""

    kind: str
    count: int
    ours_fen: int
    theirs_fen: int


def open_by_kind() -> list[OpenKind]:
    """All five classes, in their order."""
    rows = (
        Difference.objects.filter(state=Difference.State.OPEN)
        .values("kind")
        .annotate(n=Count("id"), ours=Sum("ours_fen"), theirs=Sum("theirs_fen"))
    )
    known = {
        row["kind"]: OpenKind(row["kind"], row["n"], row["ours"] or 0, row["theirs"] or 0)
        for row in rows
    }
    return [known.get(kind, OpenKind(kind, 0, 0, 0)) for kind in Difference.Kind.values]


def lines_of_number(difference: Difference) -> QuerySet[StatementLine]:
    """Every line about the same number in the statements that count, the oldest first."""
    return (
        StatementLine.objects.filter(
            out_number=difference.out_number,
            statement__account_id=difference.account_id,
            statement__state__in=(Statement.State.MATCHED, Statement.State.RECEIVED),
        )
        .select_related("statement")
        .order_by("statement__day", "line_no")
    )


def different_lines(statement: Statement) -> tuple[int, int]:
    """(lines with an open difference, lines whose differences are all resolved) of a statement."""
    rows = Difference.objects.filter(statement=statement, line__isnull=False)
    still_open = rows.filter(state=Difference.State.OPEN)
    found = still_open.values("line_id").distinct().count()
    return found, rows.exclude(line_id__in=still_open.values("line_id")).values(
        "line_id"
    ).distinct().count()
