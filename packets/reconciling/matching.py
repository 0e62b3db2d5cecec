"""A statement against our payouts, both ways, in SQL over ranges of lines.

What differs is written as rows whose key is the same whenever they are found again, so comparing
twice, or two workers at once, makes one row. The statement counts for its day from the moment when
its last range is done; the version before it is replaced then. Differences that both sides have
come to agree about close themselves. Nothing here moves money: a line that knows more than we do
only makes us ask the provider sooner.
"""

from __future__ import annotations

import time

from django.db import connection, transaction

from engine.lib.audit import audit_record
from packets.models import Difference, Statement
from packets.reconciling.statements import LOCK, SYSTEM

LINES_A_RANGE = 5_000  # compared in some 100 ms, so that no transaction is long
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
     WHERE statement.id = %s {{only}}
     ORDER BY found.kind, found.key
{_AGAIN}"""
_UNLISTED = f"""{_INSERT}
    SELECT %(account)s, found.day, 'missing_there', found.payout_id::text, found.out_number,
           %(statement)s, NULL, found.payout_id, found.amount_fen, NULL, 'paid', '',
           'open', '', '', ''
      FROM laisee_payouts_unlisted(%(account)s, %(day)s) AS found
     ORDER BY found.payout_id::text
{_AGAIN}"""

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


def statement_match(*, statement_id: int) -> bool:
    """Compare all lines of a received (or, once more, of a compared) statement.

    True: it was received and counts from now on. May be called at any time, by any number.
    """
    statement = Statement.objects.get(pk=statement_id)
    if statement.state not in (State.RECEIVED, State.MATCHED):
        return False
    last = statement.rows.order_by("-line_no").values_list("line_no", flat=True).first() or 0
    for first in range(0, last + 1, LINES_A_RANGE):
        with transaction.atomic(), connection.cursor() as cursor:
            to = first + LINES_A_RANGE - 1
            cursor.execute(_LINES.format(only=""), [first, to, statement.pk])
            cursor.execute(
                "UPDATE packets_statement SET done_lines = GREATEST(done_lines, LEAST(lines, %s))"
                " WHERE id = %s",
                [to, statement.pk],
            )
    finished = _finish(statement)
    with connection.cursor() as cursor:
        cursor.execute(_WAKE, [statement.pk])
    return finished


def _finish(statement: Statement) -> bool:
    """From here on this version counts for its day, with everything that follows from it."""
    with transaction.atomic(), connection.cursor() as cursor:
        # One day of an account after the other: what two days together tell is seen by the later.
        cursor.execute(LOCK, [statement.account_id])
        replaced = Statement.objects.filter(
            account_id=statement.account_id, day=statement.day, state=State.MATCHED
        ).exclude(pk=statement.pk)
        old = replaced.values_list("pk", flat=True).first()
        # The one before has to go first: of a day at most one counts.
        replaced.update(state=State.REPLACED)
        cursor.execute(
            "UPDATE packets_statement SET state = 'matched', matched_at = now(),"
            " done_lines = lines WHERE id = %s AND state = 'received'",
            [statement.pk],
        )
        finished = bool(cursor.rowcount == 1)
        for day in {statement.day, *(_days_of(old, statement) if old else ())}:
            cursor.execute(
                _UNLISTED,
                {"account": statement.account_id, "statement": statement.pk, "day": day},
            )
        if old:
            _lines_beside(old, statement)
        _close_after(statement, old)
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


def _lines_beside(old: int, statement: Statement) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_BESIDE, [old, statement.pk, statement.account_id])


def _days_of(old: int, statement: Statement) -> list[object]:
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
     WHERE difference.state = 'open' AND {changed}
       AND NOT EXISTS (
           SELECT FROM packets_statement AS waiting
            WHERE waiting.account_id = difference.account_id AND waiting.state = 'received')
       AND CASE WHEN difference.kind = 'missing_there' THEN EXISTS (
           SELECT FROM packets_statementline AS line
             JOIN packets_statement AS day ON day.id = line.statement_id
            WHERE line.out_number = difference.out_number AND day.state = 'matched'
              AND day.account_id = difference.account_id)
       ELSE NOT EXISTS (
           SELECT FROM packets_statementline AS line
             JOIN packets_statement AS day ON day.id = line.statement_id
            CROSS JOIN LATERAL
                  laisee_statement_findings(day.id, line.line_no, line.line_no) AS found
            WHERE line.out_number = difference.out_number AND day.state = 'matched'
              AND day.account_id = difference.account_id
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
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE.format(changed=_LEARNT))
        return int(cursor.rowcount)


def _close_after(statement: Statement, old: int | None) -> None:
    """Close what this statement, or the end of the one before it, has made agree."""
    said_by = [statement.pk, old or statement.pk]
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE.format(changed=_SAID), [statement.account_id, statement.pk, said_by])


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
