"""A statement against our payouts, both ways, in SQL over ranges of lines.

What differs is written as rows whose key is the same whenever they are found again, so comparing
twice, or two workers at once, makes one row. The statement counts for its day from the moment when
its last range is done; the version before it is replaced then. Differences that both sides have
come to agree about close themselves. Nothing here moves money: a line that knows more than we do
only makes us ask the provider sooner.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction

from engine.lib.audit import audit_record
from packets.models import Difference, Statement
from packets.reconciling.statements import SYSTEM

LINES_A_RANGE = 5_000  # lines, or payouts, compared in some 100 ms: no transaction is long
OPEN_A_RANGE = 1_000  # open differences looked at once more in some 100 ms
TURN_ASK_S = 0.1
_TURN = "hashtext('laisee.statement.match'), %s"
State = Statement.State

# Found again, a difference is the same row. One that had closed itself is open again; what a person
# has decided stays decided.
_INSERT = """
    INSERT INTO packets_difference (account_id, day, kind, key, out_number, statement_id, line_id,
           payout_id, ours_fen, theirs_fen, ours_state, theirs_state,
           state, resolution, reason, resolved_by)
"""
_AGAIN = """
        ON CONFLICT (account_id, kind, key) DO UPDATE
       SET state = 'open', resolution = '', reason = '', resolved_by = '', resolved_at = NULL
     WHERE packets_difference.resolution = 'agrees'
"""
_LINES = f"""{_INSERT}
    SELECT statement.account_id, statement.day, found.kind, found.key, found.out_number,
           statement.id, found.line_id, found.payout_id, found.ours_fen, found.theirs_fen,
           found.ours_state, found.theirs_state, 'open', '', '', ''
      FROM packets_statement AS statement
     CROSS JOIN LATERAL laisee_statement_findings(statement.id, %s, %s) AS found
     WHERE statement.id = %s
     ORDER BY found.kind, found.key
{_AGAIN}"""
_UNLISTED = f"""{_INSERT}
    SELECT statement.account_id, found.day, 'missing_there', found.payout_id::text,
           found.out_number, statement.id, NULL, found.payout_id, found.amount_fen, NULL, 'paid',
           '', 'open', '', '', ''
      FROM packets_statement AS statement
     CROSS JOIN LATERAL laisee_payouts_unlisted(
           statement.id, %(day)s, %(from_at)s, %(to_at)s) AS found
     WHERE statement.id = %(statement)s
     ORDER BY found.payout_id::text
{_AGAIN}"""
_FIRST_AT = """
    SELECT %(day)s::timestamp AT TIME ZONE account.timezone - interval '10 minutes'
      FROM packets_provideraccount AS account WHERE account.id = %(account)s
"""
# Where the next range of payouts begins.
_NEXT_AT = """
    SELECT ended_at FROM packets_payout
     WHERE account_id = %(account)s AND state = 'paid' AND ended_at > %(from_at)s
     ORDER BY ended_at OFFSET %(rows)s LIMIT 1
"""

# A line that says more than we know: the payout is asked about now, by whoever is next. One that is
# being asked about at this moment needs no second question.
_WAKE = """
    WITH known_there AS (
        SELECT payout.id FROM packets_difference AS difference
          JOIN packets_payout AS payout ON payout.id = difference.payout_id
          JOIN packets_payoutnumber AS number
            ON number.payout_id = payout.id AND number.number = difference.out_number
         WHERE difference.statement_id = %s AND difference.kind = 'state'
           AND difference.state = 'open' AND number.state = 'live'
           AND payout.state IN ('submitting', 'accepted', 'user_action', 'unknown')
           AND (payout.lease_until IS NULL OR payout.lease_until < now())
           FOR NO KEY UPDATE OF payout SKIP LOCKED
    )
    UPDATE packets_payout AS payout SET step = 'query', next_attempt_at = now()
      FROM known_there WHERE payout.id = known_there.id
"""


def statements_match_due(*, for_s: float) -> int:
    """Compare what was received, the oldest first; how many were finished."""
    until, count = time.monotonic() + for_s, 0
    waiting = Statement.objects.filter(state=State.RECEIVED).order_by("id")
    for pk in list(waiting.values_list("pk", flat=True)[:100]):
        if time.monotonic() >= until:
            break
        count += statement_match(statement_id=pk)
    return count


def statement_match(*, statement_id: int, wait_s: float = 0) -> bool:
    """Compare all lines of a received (or, once more, of a compared) statement.

    True: it was received and counts from now on. May be called at any time, by any number; one
    statement of an account is compared after the other, and who comes meanwhile waits for so long.
    """
    statement = Statement.objects.get(pk=statement_id)
    with _turn(statement.account_id, wait_s) as mine:
        statement.refresh_from_db()
        if not mine or statement.state not in (State.RECEIVED, State.MATCHED):
            return False
        old = _version_before(statement)
        _compare_lines(statement)
        for day in {statement.day, *(_days_of(old, statement) if old else ())}:
            _compare_payouts(statement, day)
        finished = _finish(statement, old)
        _close_after(statement, old)
        with connection.cursor() as cursor:
            cursor.execute(_WAKE, [statement.pk])
        return finished


@contextlib.contextmanager
def _turn(account_id: int, wait_s: float) -> Iterator[bool]:
    """Whether it is our turn with the account. What two days together tell is seen by the later of
    them, so no two are compared at once; a session that dies gives its turn back."""
    until = time.monotonic() + wait_s
    with connection.cursor() as cursor:
        while not (mine := _try(cursor, account_id)) and time.monotonic() < until:
            time.sleep(TURN_ASK_S)
        try:
            yield mine
        finally:
            if mine:
                cursor.execute(f"SELECT pg_advisory_unlock({_TURN})", [account_id])


def _try(cursor: Any, account_id: int) -> bool:
    cursor.execute(f"SELECT pg_try_advisory_lock({_TURN})", [account_id])
    return bool(cursor.fetchone()[0])


def _version_before(statement: Statement) -> int | None:
    """The statement that counts for the day now, where it isn't this one."""
    known = Statement.objects.filter(
        account_id=statement.account_id, day=statement.day, state=State.MATCHED
    ).exclude(pk=statement.pk)
    return known.values_list("pk", flat=True).first()


def _compare_lines(statement: Statement) -> None:
    last = statement.rows.order_by("-line_no").values_list("line_no", flat=True).first() or 0
    for first in range(0, last + 1, LINES_A_RANGE):
        with transaction.atomic(), connection.cursor() as cursor:
            to = first + LINES_A_RANGE - 1
            cursor.execute(_LINES, [first, to, statement.pk])
            cursor.execute(
                "UPDATE packets_statement SET done_lines = GREATEST(done_lines, LEAST(lines, %s))"
                " WHERE id = %s",
                [to, statement.pk],
            )


def _compare_payouts(statement: Statement, day: dt.date) -> None:
    """Payouts that must be named by now: range after range of the time when they ended."""
    values: dict[str, Any] = {
        "statement": statement.pk,
        "account": statement.account_id,
        "day": day,
        "rows": LINES_A_RANGE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FIRST_AT, values)
        values["from_at"] = cursor.fetchone()[0]
        while values["from_at"] is not None:
            cursor.execute(_NEXT_AT, values)
            following = (cursor.fetchone() or [None])[0]
            cursor.execute(_UNLISTED, {**values, "to_at": following or "infinity"})
            values["from_at"] = following


def _finish(statement: Statement, old: int | None) -> bool:
    """From here on this version counts for its day."""
    with transaction.atomic(), connection.cursor() as cursor:
        if old:
            # The one before goes first: of a day at most one counts.
            Statement.objects.filter(pk=old).update(state=State.REPLACED)
        cursor.execute(
            "UPDATE packets_statement SET state = 'matched', matched_at = now(),"
            " done_lines = lines WHERE id = %s AND state = 'received'",
            [statement.pk],
        )
        finished = bool(cursor.rowcount == 1)
        if old:
            cursor.execute(_BESIDE, [old, statement.pk, statement.account_id])
        if finished:
            _record(statement, old)
    return finished


# Lines of other days about numbers that the replaced version named: what it said about them may
# have been all that made them agree.
_BESIDE = f"""{_INSERT}
    SELECT other.account_id, other.day, found.kind, found.key, found.out_number, other.id,
           found.line_id, found.payout_id, found.ours_fen, found.theirs_fen, found.ours_state,
           found.theirs_state, 'open', '', '', ''
      FROM (SELECT DISTINCT twin.statement_id, twin.line_no
              FROM packets_statementline AS gone
              JOIN packets_statementline AS twin ON twin.out_number = gone.out_number
             WHERE gone.statement_id = %s AND twin.statement_id <> %s) AS beside
      JOIN packets_statement AS other
        ON other.id = beside.statement_id AND other.state = 'matched' AND other.account_id = %s
     CROSS JOIN LATERAL laisee_statement_findings(other.id, beside.line_no, beside.line_no) AS found
     ORDER BY found.kind, found.key
{_AGAIN}"""


def _days_of(old: int, statement: Statement) -> list[dt.date]:
    """The days on which payouts ended that the replaced version named and this one doesn't."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT (payout.ended_at AT TIME ZONE account.timezone)::date"
            "  FROM packets_statementline AS gone"
            "  JOIN packets_payoutnumber AS number ON number.number = gone.out_number"
            "  JOIN packets_payout AS payout ON payout.id = number.payout_id"
            "  JOIN packets_provideraccount AS account ON account.id = payout.account_id"
            " WHERE gone.statement_id = %s AND payout.state = 'paid' AND NOT EXISTS ("
            "       SELECT FROM packets_statementline AS kept"
            "        WHERE kept.statement_id = %s AND kept.out_number = gone.out_number)",
            [old, statement.pk],
        )
        return [row[0] for row in cursor.fetchall()]


# Open differences that would not be found today. Lines are judged where they stand now: in the
# version of the day that counts. While another statement of the account is being compared its own
# findings don't count yet, so closing waits for its turn.
_CLOSE = """
    UPDATE packets_difference AS difference
       SET state = 'resolved', resolution = 'agrees', resolved_by = 'system', resolved_at = now()
     WHERE difference.state = 'open' AND difference.id BETWEEN %s AND %s AND {changed}
       AND NOT EXISTS (
           SELECT FROM packets_statement AS waiting
            WHERE waiting.account_id = difference.account_id AND waiting.state = 'received')
       AND CASE WHEN difference.kind = 'missing_there' THEN EXISTS (
           SELECT FROM (SELECT statement_id FROM packets_statementline
                         WHERE out_number = difference.out_number OFFSET 0) AS line
             JOIN packets_statement AS day ON day.id = line.statement_id
            WHERE day.state = 'matched' AND day.account_id = difference.account_id)
       ELSE NOT EXISTS (
           SELECT FROM (SELECT statement_id, line_no FROM packets_statementline
                         WHERE out_number = difference.out_number OFFSET 0) AS line
             JOIN packets_statement AS day ON day.id = line.statement_id
            CROSS JOIN LATERAL
                  laisee_statement_findings(day.id, line.line_no, line.line_no) AS found
            WHERE day.state = 'matched' AND day.account_id = difference.account_id
              AND found.kind = difference.kind AND found.key = difference.key) END
"""
_LEARNT = """ difference.kind = 'state' AND EXISTS (
           SELECT FROM packets_payoutnumber AS number
            WHERE number.number = difference.out_number
              AND number.ended_at > difference.found_at)"""
# What this statement itself has just found needs no second look.
_SAID = """ difference.account_id = %s AND difference.statement_id <> %s
       AND difference.out_number IN (
           SELECT line.out_number FROM packets_statementline AS line
            WHERE line.statement_id = ANY(%s))"""


def differences_close_agreeing() -> int:
    """Close those whose payout's outcome was learnt since; how many."""
    return _close(_LEARNT, [])


def _close_after(statement: Statement, old: int | None) -> None:
    """Close what this statement, or the end of the one before it, has made agree."""
    _close(_SAID, [statement.account_id, statement.pk, [statement.pk, old or statement.pk]])


def _close(changed: str, values: list[Any]) -> int:
    """Look at the open ones, range after range of their ids."""
    count, first = 0, 0
    sql = _CLOSE.format(changed=changed)
    still_open = Difference.objects.filter(state=Difference.State.OPEN).order_by("id")
    with connection.cursor() as cursor:
        while ids := list(
            still_open.filter(pk__gt=first).values_list("pk", flat=True)[:OPEN_A_RANGE]
        ):
            cursor.execute(sql, [ids[0], ids[-1], *values])
            count, first = count + int(cursor.rowcount), ids[-1]
    return count


def _record(statement: Statement, replaced: int | None) -> None:
    found = Difference.objects.filter(statement=statement)
    audit_record(
        actor=SYSTEM,
        action="statement.matched",
        object_type="statement",
        object_id=statement.pk,
        after={
            "account": statement.account.name,
            "day": statement.day.isoformat(),
            "lines": statement.lines,
            "differences": found.count(),
            "replaces": replaced,
        },
    )
