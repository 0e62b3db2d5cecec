"""Statements: one day of one provider account, taken in whole or not at all.

A statement is first read to its end into a file of our own, so that one that can't be read leaves
nothing behind; then its lines are copied into Postgres in short transactions; only then it is
`received` and compared (matching.py). Memory stays flat however long it is. Two readers of one day
meet at a unique index: the second is refused. A reader that dies leaves a lease that ends by the
database's clock; its lines then belong to a statement that failed and count nowhere.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO
from zoneinfo import ZoneInfo

import orjson
import structlog
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from packets.models import ProviderAccount, Statement
from packets.providers.base import (
    CredentialsMissing,
    Provider,
    ProviderUnavailable,
    StatementLine,
)
from packets.reconciling import files

log = structlog.get_logger()

# A reader renews it with every chunk; longer than the slowest call that yields one.
LEASE_S = 180
ROWS_A_CHUNK = 5_000  # copied in some 50 ms
SPOOL_IN_MEMORY_BYTES = 2**20  # a usual day; a longer one goes through a file on disk
# The day's statement is asked for again after so long, doubled each time, up to the longest.
RETRY_FIRST_S = 600
RETRY_LONGEST_S = 6 * 3600
LOOK_BACK_DAYS = 30  # providers keep statements that long (WeChat: three months)
SYSTEM = "system"

State = Statement.State
ProviderOf = Callable[[ProviderAccount], Provider]


class AlreadyReading(ServiceError):
    """Somebody else is reading the same day of the same account."""

    def __init__(self) -> None:
        super().__init__("day", "reading", _("This day's statement is being read right now."))


# --- from a file ----------------------------------------------------------------------------------


def statement_upload(
    *, account: ProviderAccount, day: dt.date, file: BinaryIO, filename: str, actor: str
) -> Statement:
    """Take in a file that somebody downloaded from the provider. The same file again is the same
    statement. Raises ServiceError (StatementUnreadable with its rows), having kept nothing."""
    examined = files.examine(file)
    known = Statement.objects.filter(
        account=account,
        day=day,
        sha256=examined.sha256,
        state__in=(State.RECEIVED, State.MATCHED),
    ).first()
    if known is not None:
        return known
    with _spool(files.lines_of(file, examined.encoding, account.timezone)) as spool:
        spool.check_day(day, account.timezone)
        statement = _begin(
            account, day, Statement.Source.UPLOADED, filename=filename[-200:], uploaded_by=actor
        )
        with _to_its_end(statement):
            _keep(statement, spool, examined.sha256)
    return statement


# --- from the provider ----------------------------------------------------------------------------


def statement_fetch(
    *, account: ProviderAccount, day: dt.date, provider_of: ProviderOf, actor: str = SYSTEM
) -> Statement:
    """Ask the provider for the day. A statement that could not be had is kept as `failed`, with
    the reason; raises AlreadyReading where somebody is at it."""
    statement = _begin(account, day, Statement.Source.FETCHED, uploaded_by=actor)
    try:
        with (
            _to_its_end(statement),
            _spool(_renewing(statement, provider_of(account).statement(day))) as spool,
        ):
            _keep(statement, spool, spool.sha256)
    except (ProviderUnavailable, CredentialsMissing, ServiceError, IntegrityError) as problem:
        log.warning("statement.failed", account=account.name, day=str(day), error=str(problem))
    statement.refresh_from_db()
    return statement


_DUE = """
    WITH days AS (
        SELECT account.id AS account_id, due.day::date AS day
          FROM packets_provideraccount AS account
         CROSS JOIN LATERAL (
            SELECT (min(created_at) AT TIME ZONE account.timezone)::date AS first_day
              FROM packets_payout WHERE account_id = account.id) AS began
         CROSS JOIN LATERAL (
            SELECT (now() AT TIME ZONE account.timezone) - account.statement_after AS ready
         ) AS clock
         CROSS JOIN LATERAL generate_series(
            GREATEST(began.first_day, clock.ready::date - %(look_back)s),
            clock.ready::date - 1, interval '1 day') AS due (day)
         WHERE account.statement_after IS NOT NULL AND began.first_day IS NOT NULL
    )
    SELECT days.account_id, days.day
      FROM days
     WHERE NOT EXISTS (
           SELECT FROM packets_statement AS known
            WHERE known.account_id = days.account_id AND known.day = days.day
              AND (known.state IN ('matched', 'received')
                   OR (known.state = 'reading' AND known.lease_until > clock_timestamp())))
       AND NOT EXISTS (
           SELECT FROM packets_statement AS failed
            WHERE failed.account_id = days.account_id AND failed.day = days.day
              AND failed.state = 'failed' AND failed.source = 'fetched'
           HAVING max(failed.created_at) + make_interval(secs => LEAST(
                    %(first)s * 2 ^ LEAST(count(*) - 1, 20), %(longest)s)) > clock_timestamp())
     ORDER BY days.day DESC, days.account_id
"""


def statements_due() -> list[tuple[int, dt.date]]:
    """(account, day) whose statement is ready at the provider and isn't here, the newest first."""
    _give_up_abandoned()
    with connection.cursor() as cursor:
        cursor.execute(
            _DUE,
            {"look_back": LOOK_BACK_DAYS, "first": RETRY_FIRST_S, "longest": RETRY_LONGEST_S},
        )
        return [(int(account), day) for account, day in cursor.fetchall()]


def statements_fetch_due(*, for_s: float, provider_of: ProviderOf) -> int:
    """Fetch what is due, for so many seconds; how many came. Safe any number of times at once."""
    until, count = time.monotonic() + for_s, 0
    for account_id, day in statements_due():
        if time.monotonic() >= until:
            break
        account = ProviderAccount.objects.get(pk=account_id)
        with contextlib.suppress(AlreadyReading):
            statement = statement_fetch(account=account, day=day, provider_of=provider_of)
            count += statement.state != State.FAILED
    return count


# --- taking in ------------------------------------------------------------------------------------


class _Spool:
    """A statement's lines in a file of our own, read to its end once before anything is kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.lines, self.sum_fen = 0, 0
        self.first_at: dt.datetime | None = None
        self.last_at: dt.datetime | None = None
        self.digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self.digest.hexdigest()

    def fill(self, lines: Iterable[StatementLine]) -> None:
        for line in lines:
            if self.lines >= files.MAX_LINES:
                raise ServiceError(
                    "file", "too_long", _("At most %(most)s lines."), most=files.MAX_LINES
                )
            row = [
                line.line_no, line.out_number, line.provider_ref, line.amount_fen,
                line.state.value, line.at.isoformat(),
            ]  # fmt: skip
            text = orjson.dumps(row) + b"\n"
            self.file.write(text)
            self.digest.update(text)
            self.lines += 1
            self.sum_fen += line.amount_fen if line.state.value == "paid" else 0
            self.first_at = min(self.first_at or line.at, line.at)
            self.last_at = max(self.last_at or line.at, line.at)

    def check_day(self, day: dt.date, zone: str) -> None:
        """Refuse a file of another day; single lines may belong to the days around it."""
        if self.first_at is None or self.last_at is None:
            return
        first, last = (at.astimezone(ZoneInfo(zone)).date() for at in (self.first_at, self.last_at))
        if not first <= day <= last:
            raise ServiceError(
                "day",
                "other_day",
                _("The file is of another day: its lines are from %(first)s to %(last)s."),
                first=first.isoformat(),
                last=last.isoformat(),
            )

    def chunks(self) -> Iterator[list[list[str | int]]]:
        self.file.seek(0)
        rows = (orjson.loads(row) for row in self.file)
        while chunk := list(itertools.islice(rows, ROWS_A_CHUNK)):
            yield chunk


@contextlib.contextmanager
def _spool(lines: Iterable[StatementLine]) -> Iterator[_Spool]:
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY_BYTES) as file:
        spool = _Spool(file)
        spool.fill(lines)
        yield spool


_BEGIN = """
    INSERT INTO packets_statement (account_id, day, number, source, filename, sha256, lines,
           sum_fen, done_lines, state, fault, uploaded_by, lease_until)
    VALUES (%s, %s, 0, %s, %s, '', 0, 0, 0, 'reading', '', %s,
            clock_timestamp() + make_interval(secs => %s))
    ON CONFLICT DO NOTHING RETURNING id
"""


def _begin(
    account: ProviderAccount, day: dt.date, source: str, *, uploaded_by: str, filename: str = ""
) -> Statement:
    _give_up_abandoned()
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, [account.pk, day, source, filename, uploaded_by[:150], LEASE_S])
        found = cursor.fetchone()
    if found is None:
        raise AlreadyReading
    return Statement.objects.get(pk=found[0])


_RENEW = """
    UPDATE packets_statement SET lease_until = clock_timestamp() + make_interval(secs => %s)
     WHERE id = %s AND state = 'reading' AND lease_until > clock_timestamp()
"""


def _renew(statement: Statement) -> None:
    """Keep the lease; whoever lost it must not go on."""
    with connection.cursor() as cursor:
        cursor.execute(_RENEW, [LEASE_S, statement.pk])
        if cursor.rowcount != 1:
            raise AlreadyReading


def _renewing(statement: Statement, lines: Iterable[StatementLine]) -> Iterator[StatementLine]:
    for number, line in enumerate(lines):
        if number % ROWS_A_CHUNK == ROWS_A_CHUNK - 1:
            _renew(statement)
        yield line


_COPY = """
    COPY packets_statementline
         (statement_id, line_no, out_number, provider_ref, amount_fen, state, at) FROM STDIN
"""
# Numbers are given under a lock of the account, so that their order is the order in which others
# see the statements as received (see packets/sql/reconciling.sql).
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('laisee.statement'), %s)"
_RECEIVED = """
    UPDATE packets_statement AS statement
       SET state = 'received', sha256 = %s, lines = %s, sum_fen = %s, lease_until = NULL,
           number = (SELECT COALESCE(max(number), 0) + 1 FROM packets_statement AS other
                      WHERE other.account_id = statement.account_id)
     WHERE id = %s AND state = 'reading'
"""


def _keep(statement: Statement, spool: _Spool, sha256: str) -> None:
    """Copy the lines in short transactions, then say that all of them are there."""
    for chunk in spool.chunks():
        with transaction.atomic(), connection.cursor() as cursor:
            _renew(statement)
            with cursor.copy(_COPY) as copy:
                for row in chunk:
                    copy.write_row([statement.pk, *row])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LOCK, [statement.account_id])
        cursor.execute(_RECEIVED, [sha256, spool.lines, spool.sum_fen, statement.pk])
        if cursor.rowcount != 1:
            raise AlreadyReading
        statement.refresh_from_db()
        _record(statement)


@contextlib.contextmanager
def _to_its_end(statement: Statement) -> Iterator[None]:
    """Whatever stops the reading is written down, so that the day may be begun anew at once."""
    try:
        yield
    except Exception as problem:
        Statement.objects.filter(pk=statement.pk, state=State.READING).update(
            state=State.FAILED, fault=str(problem)[:300], lease_until=None
        )
        raise


def _give_up_abandoned() -> None:
    """Readers that died: their day may be begun anew."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE packets_statement SET state = 'failed', lease_until = NULL,"
            " fault = 'whoever read it did not come to an end'"
            " WHERE state = 'reading' AND lease_until <= clock_timestamp()"
        )


def _record(statement: Statement) -> None:
    audit_record(
        actor=statement.uploaded_by,
        action=f"statement.{statement.source}",
        object_type="statement",
        object_id=statement.pk,
        after={
            "account": statement.account.name,
            "day": statement.day.isoformat(),
            "sha256": statement.sha256,
            "lines": statement.lines,
            "sum_fen": statement.sum_fen,
        },
    )
