"""A day of a hundred thousand lines: the same memory as a day of ten thousand. Nightly."""

from __future__ import annotations

import datetime as dt
import io
import time
import tracemalloc
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from packets.models import Difference, ProviderAccount, Statement
from packets.reconciling import matching, statements
from tests.packets.reconciling.stage import DAY, account, noon

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(600),
]

# What reading and comparing may hold at once, whatever the day's size: a chunk of lines in Python,
# and the spool's megabyte. Measured: 5.0 MB at 10,000 lines, 4.1 MB at 100,000.
MEMORY_MAX_BYTES = 24 * 2**20

_PAYOUTS = """
    WITH made AS (
        INSERT INTO packets_payout (id, account_id, wallet_id, participant, client_app_id, share,
               amount_fen, currency, payee_encrypted, payee_masked, payee_hash, key, state, step,
               fence, submits, queries, cancel_asked, review_reasons, manual_reason, provider_ref,
               failure_code, failure_detail, created_at, first_submitted_at, ended_at)
        SELECT md5(%(name)s || n)::uuid, %(account)s, 1, decode(md5(%(name)s || n), 'hex'), 1, 0,
               100 + n, 'CNY', '', '', '', n::text, 'paid', 'none', 1, 1, 1, false, '[]', '', '',
               '', '', %(at)s, %(at)s, %(at)s + n * interval '0.2 s'
          FROM generate_series(1, %(count)s) AS n
        RETURNING id)
    INSERT INTO packets_payoutnumber
           (payout_id, number, request_encrypted, request_sha256, state, created_at, ended_at)
    SELECT id, replace(id::text, '-', ''), '', '', 'paid', %(at)s, %(at)s FROM made
"""


def many_payouts(dsn: str, rail: ProviderAccount, count: int, at: dt.datetime) -> None:
    """So many paid payouts, without the ledger behind them: only statements are looked at here."""
    with psycopg.connect(dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute(_PAYOUTS, {"account": rail.pk, "name": rail.name, "count": count, "at": at})
    with psycopg.connect(dsn, autocommit=True) as link:
        link.execute("ANALYZE packets_payout, packets_payoutnumber")


class Generated(io.RawIOBase):
    """A CSV that is written while it is read: the file itself takes no memory of ours."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.seek(0)

    def rows(self) -> Iterator[bytes]:
        import hashlib

        yield b"out_number,provider_ref,amount_fen,state,at\r\n"
        for n in range(1, self.count + 1):
            number = hashlib.md5(f"{self.name}{n}".encode(), usedforsecurity=False).hexdigest()
            amount = 100 + n + (1 if n % 10_000 == 0 else 0)  # each ten-thousandth one is wrong
            yield f"{uuid.UUID(number).hex},r{n},{amount},paid,{noon().isoformat()}\r\n".encode()

    def seek(self, offset: int, whence: int = 0) -> int:
        assert offset == 0 and whence == 0
        self.source, self.rest = self.rows(), b""
        return 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while len(self.rest) < len(buffer) and (row := next(self.source, b"")):
            self.rest += row
        part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def measured(rail: ProviderAccount, count: int, day: dt.date) -> int:
    """Bytes that Python held at most while the day was read and compared."""
    tracemalloc.start()
    started = time.process_time()
    made = statements.statement_upload(
        account=rail, day=day, file=Generated(rail.name, count), filename="day.csv", actor="x",  # type: ignore[arg-type]
    )  # fmt: skip
    assert matching.statement_match(statement_id=made.pk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"{count} lines: {peak / 2**20:.1f} MB, {time.process_time() - started:.1f} s of CPU here"
    )
    assert Statement.objects.get(pk=made.pk).lines == count
    return peak


def test_a_hundred_thousand_lines_in_flat_memory(superuser_dsn: str) -> None:
    peaks = []
    for name, count in (("small", 10_000), ("large", 100_000)):
        rail = account(name)
        many_payouts(superuser_dsn, rail, count, noon())
        peaks.append(measured(rail, count, DAY))
        found = Difference.objects.filter(account=rail).values_list("kind", flat=True)
        assert list(found) == ["amount"] * (count // 10_000)
    small, large = peaks
    assert large < MEMORY_MAX_BYTES and large < 2 * small
