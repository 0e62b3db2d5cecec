"""Commits a batch of one lane's claims through `laisee_commit_claims`, and asks for the truth.

Autocommit on connections of its own, with a lock timeout: one locked lane delays only its own
batch. A connection lost in mid-commit leaves the outcome unknown; the same batch is simply sent
again, because the function answers `exists` for what was committed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connections
from psycopg.abc import RV, PQGen
from psycopg.rows import tuple_row

from packets.claiming import direct
from packets.claiming.effects import (
    ClaimDirect,
    Claimed,
    Commit,
    Committed,
    Portion,
    Slot,
    Truth,
    Unavailable,
    Verdict,
)

LOCK_TIMEOUT_MS = 200  # a lane held longer is somebody's trouble, and its clients hear 503
STATEMENT_TIMEOUT_MS = 3000
# A process that stops between cutting and committing must not keep the lane's lock.
IDLE_TIMEOUT_MS = 1000
CONNECT_TIMEOUT_S = 2
TCP_TIMEOUT_MS = 4000
# For one answer: longer than any statement may take. A peer that acknowledges every byte and
# answers none (a frozen machine behind a proxy) is noticed by nothing else.
ANSWER_TIMEOUT_S: float | None = STATEMENT_TIMEOUT_MS / 1000 + 1.0
RETRY_FOR_S = (
    1.5  # how long a batch with an unknown outcome is sent again before the client is told
)
RETRY_PAUSE_S = 0.05

_COMMIT = """
SELECT verdict, claim_id, epoch, index, amount_fen, tier, committed_at, lane_epoch
  FROM laisee_commit_claims(%s, %s::bytea[], %s::integer[], %s::bigint[], %s::bigint[],
                            %s::bigint[], %s::smallint[])
"""
_REMEMBER = "SELECT laisee_remember_people(%s::bytea[], %s::bigint[], %s::text[])"
_TOUCHED = "SELECT laisee_remember_touches(%s::uuid[], %s::bigint[], %s::text[])"
_TRUTH = """
SELECT c.id, c.epoch, c.index, c.amount_fen, c.tier, c.committed_at,
       s.exhausted, p.state = 'closed' OR l.state = 'closed',
       p.state <> 'open' OR NOT g.is_open,
       p.opens_at > clock_timestamp(), p.closes_at + interval '2 seconds' < clock_timestamp(),
       l.state = 'open', l.epoch, s.left_count, p.closes_at <= clock_timestamp()
  FROM packets_packet p
  JOIN packets_lane l ON l.id = %(lane)s
  CROSS JOIN LATERAL (SELECT bool_and(n.claimed_count >= n.count) AS exhausted,
                             sum(n.count - n.claimed_count)::bigint AS left_count
                        FROM packets_lane n WHERE n.packet_id = p.id) s
  CROSS JOIN LATERAL (SELECT bool_and(k.state = 'open') AS is_open
                        FROM packets_gate k WHERE k.id = p.gate_id OR k.key = 'all') g
  CROSS JOIN unnest(%(claims)s::uuid[]) WITH ORDINALITY AS r(claim_id, o)
  LEFT JOIN packets_claim c ON c.id = r.claim_id
 WHERE p.id = %(packet)s
 ORDER BY r.o
"""

Row = Commit | ClaimDirect


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every wait ends."""

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        kwargs.setdefault("timeout", ANSWER_TIMEOUT_S)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:
                # Not the server's word: the connection is lost, or its answer didn't come in time.
                # Closed here, so that whoever cleans up after the error doesn't wait again.
                self.pgconn.finish()
            raise


def _database() -> dict[str, Any]:
    return connections["default"].settings_dict


def connect() -> _Connection:
    """A connection for committing: autocommit, short timeouts, the database that Django uses."""
    database = _database()
    return _Connection.connect(
        host=database["HOST"],
        port=database["PORT"],
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
        autocommit=True,
        connect_timeout=CONNECT_TIMEOUT_S,
        # A server that vanished without a word is noticed within seconds, not hours.
        tcp_user_timeout=TCP_TIMEOUT_MS,
        keepalives_idle=2,
        keepalives_interval=1,
        keepalives_count=3,
        application_name="laisee-commit",
        options=(
            f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}"
        ),
        row_factory=tuple_row,
        prepare_threshold=1,
    )


@dataclass
class Journal:
    """One committing connection, opened when needed and again when lost. Not for two threads."""

    connection: _Connection | None = None

    def _open(self) -> _Connection:
        if self.connection is None or self.connection.closed:
            self.connection = connect()
        return self.connection

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def commit(self, lane_id: int, rows: Sequence[Row]) -> list[Committed | Unavailable]:
        """What is now true for each row, in order. A row that breaks the batch stands alone."""
        until = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                return list(self._commit(lane_id, rows))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
                return [Unavailable("the lane is locked")] * len(rows)
            except psycopg.OperationalError as error:
                # Lost, or refused by a server that is starting: the outcome may be unknown.
                self.close()
                if time.monotonic() > until:
                    lost = Unavailable(f"Postgres: {type(error).__name__}", reserved=True)
                    return [lost] * len(rows)  # perhaps committed, nobody knows
                time.sleep(RETRY_PAUSE_S)
            except (psycopg.Error, UnicodeError) as error:
                if len(rows) == 1:
                    raise
                del error
                half = len(rows) // 2
                return [*self._apart(lane_id, rows[:half]), *self._apart(lane_id, rows[half:])]

    def _apart(self, lane_id: int, rows: Sequence[Row]) -> list[Committed | Unavailable]:
        try:
            return self.commit(lane_id, rows)
        except (psycopg.Error, UnicodeError) as error:
            return [Unavailable(f"a defective row: {type(error).__name__}")]

    def _commit(self, lane_id: int, rows: Sequence[Row]) -> list[Committed]:
        directs = [row for row in rows if isinstance(row, ClaimDirect)]
        if not directs:
            return self._commit_reserved(lane_id, [row for row in rows if isinstance(row, Commit)])
        answers = iter(self._commit_direct(lane_id, directs))
        if len(directs) == len(rows):
            return list(answers)
        # The moment in which Redis was lost, or found again: each in its own transaction.
        reserved = [row for row in rows if isinstance(row, Commit)]
        others = iter(self._commit_reserved(lane_id, reserved))
        return [next(answers if isinstance(row, ClaimDirect) else others) for row in rows]

    def _commit_reserved(self, lane_id: int, rows: Sequence[Commit]) -> list[Committed]:
        connection = self._open()
        # The people first, in a transaction of their own. One after the other costs this process a
        # third less than psycopg's pipeline of the two, and the lane isn't held in between.
        _remember(connection, rows)
        portions = [row.portion for row in rows]
        found = connection.execute(_COMMIT, _values(lane_id, rows, portions)).fetchall()
        return [_committed(row) for row in found]

    def _commit_direct(self, lane_id: int, rows: Sequence[ClaimDirect]) -> list[Committed]:
        """Cut and commit in one transaction; claims that are there already need no lock."""
        connection = self._open()
        plan = direct.prepare(connection, lane_id)
        _remember(connection, rows)
        if self._all_there(rows):
            there = [direct.NO_PORTION] * len(rows)
            found = connection.execute(_COMMIT, _values(lane_id, rows, there)).fetchall()
            return [_committed(row) for row in found]
        with connection.transaction():
            made = direct.cut(connection, lane_id, rows, plan)
            given = [(row, portion) for row, portion in zip(rows, made.portions, strict=True)]
            cut = [(row, portion) for row, portion in given if portion is not None]
            values = _values(lane_id, [row for row, _ in cut], [portion for _, portion in cut])
            found = connection.execute(_COMMIT, values).fetchall() if cut else []
        answers = iter(found)
        return [
            Committed(Verdict.EMPTY, None, made.epoch)
            if portion is None
            else _committed(next(answers))
            for _, portion in given
        ]

    def _all_there(self, rows: Sequence[Row]) -> bool:
        ids = {row.slot.claim_id for row in rows}
        found = (
            self._open()
            .execute("SELECT count(*) FROM packets_claim WHERE id = ANY(%s)", (list(ids),))
            .fetchone()
        )
        return found is not None and found[0] == len(ids)

    def truth(self, slot: Slot) -> Truth:
        """Postgres's word on a slot and its packet."""
        return self.truths([slot])[0]

    def truths(self, slots: Sequence[Slot]) -> list[Truth]:
        """The same for slots of one lane, from one snapshot, in order."""
        names = {
            "lane": slots[0].lane_id,
            "packet": slots[0].packet,
            "claims": [slot.claim_id for slot in slots],
        }
        until = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                rows = self._open().execute(_TRUTH, names).fetchall()
                break
            except psycopg.OperationalError as error:
                self.close()
                if time.monotonic() > until:
                    raise Unavailable(f"Postgres: {type(error).__name__}") from error
                time.sleep(RETRY_PAUSE_S)
        assert len(rows) == len(slots), f"packet {slots[0].packet} has vanished"
        return [_truth(row) for row in rows]


def _remember(connection: _Connection, rows: Sequence[Row]) -> None:
    """Who claims, and by which share codes."""
    connection.execute(_REMEMBER, _people(rows))
    touched = [row for row in rows if row.share_code]
    if touched:
        ids = "{" + ",".join([row.slot.claim_id.hex for row in touched]) + "}"
        apps = _numbers([row.client_app_id for row in touched])
        connection.execute(_TOUCHED, (ids, apps, _texts([row.share_code or "" for row in touched])))


def _people(rows: Sequence[Row]) -> tuple[str, str, str]:
    return (
        _bytes([row.slot.participant for row in rows]),
        _numbers([row.client_app_id for row in rows]),
        _texts([row.subject for row in rows]),
    )


def _values(lane_id: int, rows: Sequence[Row], portions: Sequence[Portion]) -> tuple[Any, ...]:
    return (
        lane_id,
        _bytes([row.slot.participant for row in rows]),
        _numbers([row.slot.serial for row in rows]),
        _numbers([portion.epoch for portion in portions]),
        _numbers([portion.index for portion in portions]),
        _numbers([portion.amount_fen for portion in portions]),
        _numbers([portion.tier for portion in portions]),
    )


# Arrays as Postgres writes them itself: the driver would dump them element by element, which costs
# a claim more than everything else that its commit costs this process.


def _numbers(values: Sequence[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


def _bytes(values: Sequence[bytes]) -> str:
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"


def _texts(values: Sequence[str]) -> str:
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return "{" + ",".join([f'"{value}"' for value in quoted]) + "}"


def _committed(row: tuple[Any, ...]) -> Committed:
    verdict, claim_id, epoch, index, amount_fen, tier, committed_at, lane_epoch = row
    claimed = None
    if verdict in (Verdict.WON, Verdict.EXISTS):
        claimed = Claimed(claim_id, Portion(epoch, index, amount_fen, tier), committed_at)
    return Committed(Verdict(verdict), claimed, lane_epoch)


def _truth(row: tuple[Any, ...]) -> Truth:
    claim_id, epoch, index, amount_fen, tier, committed_at, *rest = row
    claimed = None
    if claim_id is not None:
        claimed = Claimed(claim_id, Portion(epoch, index, amount_fen, tier), committed_at)
    return Truth(claimed, *rest)
