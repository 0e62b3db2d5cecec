"""The sandbox's own books: orders, balance, callbacks to send, and a log of every call; in SQLite.

What is kept here: an order is paid at most once, in one transaction with its fen leaving the
balance and its callback being queued; a number stands for one order (unless the check of numbers is
switched off); what was answered is on disk before the answer leaves, so a kill forgets nothing.

One thread uses it, the server's, so that statements of different calls never interleave.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from packets.providers.sandbox.faults import Settings

# What the provider's account holds at first: enough for whatever a demo or a storm pays.
FIRST_BALANCE_FEN = 100_000_000_00
# Seconds after which a callback that wasn't taken is sent again, once each.
CALLBACK_DELAYS_S = (1.0, 5.0, 30.0, 120.0, 600.0)
SHOWN_ROWS = 50  # of calls and orders, where nobody asks for another number
MAX_ROWS = 100_000


class State(StrEnum):
    ACCEPTED = "accepted"
    WAITING = "waiting"  # for the payee to confirm
    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (State.ACCEPTED, State.WAITING)


@dataclass(frozen=True)
class Order:
    """One payment as the provider knows it; times are seconds since the epoch."""

    ref: str
    out_number: str
    body_hash: str
    payee_account: str
    payee_name: str
    amount_fen: int
    currency: str
    notify_url: str
    state: State
    code: str  # why it failed
    fault: str
    seconds: float
    accepted_at: float
    due_at: float  # when an accepted order is paid, or one that waits is closed
    final_at: float
    hidden_until: float  # until then a question is told that there is no such order


@dataclass(frozen=True)
class Callback:
    id: int
    event_id: str
    out_number: str
    notify_url: str
    body: bytes
    attempts: int
    forged: bool


@dataclass(frozen=True)
class Seen:
    """How often a number was sent and asked about, and when it was sent first."""

    first_at: float
    submits: int
    questions: int


_SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY CHECK (id = 1), balance_fen INTEGER NOT NULL CHECK (balance_fen >= 0),
    short_until REAL NOT NULL DEFAULT 0, short_again_at REAL NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS orders (
    ref TEXT PRIMARY KEY, out_number TEXT NOT NULL, body_hash TEXT NOT NULL,
    payee_account TEXT NOT NULL, payee_name TEXT NOT NULL,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0), currency TEXT NOT NULL,
    notify_url TEXT NOT NULL, state TEXT NOT NULL, code TEXT NOT NULL, fault TEXT NOT NULL,
    seconds REAL NOT NULL, accepted_at REAL NOT NULL, due_at REAL NOT NULL, final_at REAL NOT NULL,
    hidden_until REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS orders_by_number ON orders (out_number);
CREATE INDEX IF NOT EXISTS orders_due ON orders (due_at) WHERE state IN ('accepted', 'waiting');
CREATE INDEX IF NOT EXISTS orders_final ON orders (final_at);
CREATE TABLE IF NOT EXISTS seen (
    out_number TEXT PRIMARY KEY, first_at REAL NOT NULL, submits INTEGER NOT NULL,
    questions INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, operation TEXT NOT NULL, out_number TEXT NOT NULL,
    body_hash TEXT NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER,
    status INTEGER, fault TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS callbacks (
    id INTEGER PRIMARY KEY, event_id TEXT NOT NULL, out_number TEXT NOT NULL,
    notify_url TEXT NOT NULL, body BLOB NOT NULL, due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0,
    status INTEGER, forged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS callbacks_due ON callbacks (due_at) WHERE done = 0;
INSERT OR IGNORE INTO account (id, balance_fen) VALUES (1, {balance_fen});
"""
_COLUMNS = ", ".join(field.name for field in fields(Order))


class Books:
    """The books in the file at `path`, made on first use."""

    def __init__(self, path: Path) -> None:
        # The server's loop may run in another thread than the one that loaded it.
        self._link = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._link.row_factory = sqlite3.Row
        self._link.execute("PRAGMA journal_mode = WAL")
        # What a killed process has written is kept by the kernel; only a power cut could take it.
        self._link.execute("PRAGMA synchronous = NORMAL")
        self._link.execute("PRAGMA busy_timeout = 5000")
        self._link.executescript(_SCHEMA.format(balance_fen=FIRST_BALANCE_FEN))
        self._settings: Settings | None = None

    def close(self) -> None:
        self._link.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._link.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._link.execute("ROLLBACK")
            raise
        self._link.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._link.execute(query, values).fetchall()

    # --- settings and balance -----------------------------------------------------------------

    def settings(self) -> Settings:
        if self._settings is None:
            rows = self._rows("SELECT name, value FROM setting")
            self._settings = Settings(**{row["name"]: json.loads(row["value"]) for row in rows})
        return self._settings

    def settings_set(self, **values: Any) -> None:
        with self.transaction():
            for name, value in values.items():
                self._link.execute(
                    "INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, json.dumps(value))
                )
        self._settings = None

    def balance_fen(self) -> int:
        return int(self._rows("SELECT balance_fen FROM account")[0][0])

    def balance_set(self, balance_fen: int) -> None:
        self._link.execute("UPDATE account SET balance_fen = ?", (balance_fen,))

    def short_for_s(self, now: float) -> float:
        """Seconds that the account stays out of funds, by a fault and not by its balance."""
        return max(0.0, float(self._rows("SELECT short_until FROM account")[0][0]) - now)

    def short_begin(self, now: float, seconds: float, again_s: float) -> None:
        """Out of funds for so long; the next such time doesn't begin before `again_s`."""
        self._link.execute(
            "UPDATE account SET short_until = ?, short_again_at = ? WHERE short_again_at <= ?",
            (now + seconds, now + again_s, now),
        )

    # --- calls ----------------------------------------------------------------------------------

    def call_begin(self, operation: str, out_number: str, body_hash: str, now_ns: int) -> int:
        cursor = self._link.execute(
            "INSERT INTO calls (operation, out_number, body_hash, started_ns) VALUES (?, ?, ?, ?)",
            (operation, out_number, body_hash, now_ns),
        )
        return int(cursor.lastrowid or 0)

    def call_end(self, call_id: int, status: int, fault: str, now_ns: int) -> None:
        """`status` 0: whoever called had left before the answer."""
        self._link.execute(
            "UPDATE calls SET ended_ns = ?, status = ?, fault = ? WHERE id = ?",
            (now_ns, status, fault, call_id),
        )

    def calls(self, out_number: str = "", limit: int = SHOWN_ROWS) -> list[dict[str, Any]]:
        """The newest first."""
        rows = self._rows(
            "SELECT * FROM calls WHERE ? IN ('', out_number) ORDER BY id DESC LIMIT ?",
            out_number,
            limit,
        )
        return [dict(row) for row in rows]

    def seen(self, out_number: str, now: float, *, submit: bool) -> Seen:
        """Count one more sight of this number, and say how many there were with it."""
        self._link.execute(
            "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT (out_number) DO UPDATE"
            " SET submits = submits + excluded.submits, questions = questions + excluded.questions",
            (out_number, now, int(submit), int(not submit)),
        )
        row = self._rows("SELECT * FROM seen WHERE out_number = ?", out_number)[0]
        return Seen(row["first_at"], row["submits"], row["questions"])

    # --- orders ---------------------------------------------------------------------------------

    def order(self, out_number: str) -> Order | None:
        """The order of this number; the first, where the check of numbers let in several."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM orders WHERE out_number = ? ORDER BY accepted_at, ref LIMIT 1",
            out_number,
        )
        return _order(rows[0]) if rows else None

    def order_add(self, order: Order) -> bool:
        """Whether the balance was enough for it; its fen are set aside at once."""
        taken = self._link.execute(
            "UPDATE account SET balance_fen = balance_fen - ?1 WHERE balance_fen >= ?1",
            (order.amount_fen,),
        )
        if taken.rowcount == 0:
            return False
        values = [getattr(order, field.name) for field in fields(Order)]
        marks = ", ".join("?" * len(values))
        self._link.execute(f"INSERT INTO orders ({_COLUMNS}) VALUES ({marks})", values)
        return True

    def order_finish(self, ref: str, state: State, code: str, now: float) -> bool:
        """Whether this call ended it: an order that is final stays as it is."""
        done = self._link.execute(
            "UPDATE orders SET state = ?, code = ?, final_at = ?"
            " WHERE ref = ? AND state IN ('accepted', 'waiting')",
            (state, code, now, ref),
        )
        if done.rowcount == 0:
            return False
        if state is not State.PAID:
            self._link.execute(
                "UPDATE account SET balance_fen = balance_fen +"
                " (SELECT amount_fen FROM orders WHERE ref = ?)",
                (ref,),
            )
        return True

    def orders_due(self, now: float) -> list[Order]:
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM orders WHERE state IN ('accepted', 'waiting') AND due_at <= ?"
            " ORDER BY due_at LIMIT 500",
            now,
        )
        return [_order(row) for row in rows]

    def orders(self, limit: int = SHOWN_ROWS) -> list[Order]:
        """The newest first."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM orders ORDER BY accepted_at DESC, ref LIMIT ?", limit
        )
        return [_order(row) for row in rows]

    def orders_between(self, start: float, end: float) -> list[Order]:
        """Those that became final in [start, end), in that order: what a statement lists."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM orders WHERE final_at >= ? AND final_at < ?"
            " ORDER BY final_at, ref",
            start,
            end,
        )
        return [_order(row) for row in rows]

    def totals(self) -> dict[str, dict[str, int]]:
        """How many orders and fen there are in each state."""
        rows = self._rows("SELECT state, count(*), sum(amount_fen) FROM orders GROUP BY state")
        return {row[0]: {"count": row[1], "amount_fen": row[2]} for row in rows}

    def open_count(self) -> int:
        """Orders whose end is still to come."""
        totals = self.totals()
        return sum(totals[state]["count"] for state in OPEN if state in totals)

    # --- callbacks ------------------------------------------------------------------------------

    def callback_add(
        self,
        order: Order,
        body: bytes,
        event_id: str,
        due_at: float,
        *,
        forged: bool = False,
    ) -> None:
        self._link.execute(
            "INSERT INTO callbacks (event_id, out_number, notify_url, body, due_at, forged)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (event_id, order.out_number, order.notify_url, body, due_at, int(forged)),
        )

    def callbacks_due(self, now: float, limit: int, out_number: str = "") -> list[Callback]:
        rows = self._rows(
            "SELECT * FROM callbacks WHERE done = 0 AND due_at <= ? AND ? IN ('', out_number)"
            " ORDER BY due_at, id LIMIT ?",
            now,
            out_number,
            limit,
        )
        return [
            Callback(
                row["id"],
                row["event_id"],
                row["out_number"],
                row["notify_url"],
                bytes(row["body"]),
                row["attempts"],
                bool(row["forged"]),
            )
            for row in rows
        ]

    def callback_lease(self, callback: Callback, until: float) -> None:
        """Nobody else sends it before `until`; a server that dies sends it again afterwards."""
        self._link.execute(
            "UPDATE callbacks SET attempts = attempts + 1, due_at = ? WHERE id = ?",
            (until, callback.id),
        )

    def callback_tried(self, callback: Callback, status: int, now: float) -> None:
        """Done when it was taken, was forged, or was tried often enough; else due again later."""
        taken = 200 <= status < 300
        last = callback.attempts >= len(CALLBACK_DELAYS_S)
        done = taken or callback.forged or last
        delay_s = 0.0 if done else CALLBACK_DELAYS_S[callback.attempts]
        self._link.execute(
            "UPDATE callbacks SET status = ?, done = ?, due_at = ? WHERE id = ?",
            (status, int(done), now + delay_s, callback.id),
        )

    def callbacks(self, limit: int = SHOWN_ROWS) -> list[dict[str, Any]]:
        """The newest first, without their bodies."""
        rows = self._rows(
            "SELECT id, event_id, out_number, attempts, done, status, forged FROM callbacks"
            " ORDER BY id DESC LIMIT ?",
            limit,
        )
        return [dict(row) for row in rows]


def new_ref() -> str:
    return f"SB{uuid.uuid4().hex[:20].upper()}"


def _order(row: sqlite3.Row) -> Order:
    values = dict(row)
    return Order(**{**values, "state": State(values["state"])})
