"""Which payout is next.

Questions about payouts that are out come by due time. Sends come account by account: between the
campaigns whose people wait, the one served longest ago is next (its oldest payout first), at no
more than the rail's pace, and none while the breaker is open. Rows are taken with SKIP LOCKED and
leased: `next_attempt_at` moves to the lease's end, so a process that dies gives its payout back.
All times are the database's, for a process's clock may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection

from packets.models import Payout
from packets.payouts.breaker import PROBE_S

# Seconds that a rail's pace may be run ahead of, so that a second's worth can go out together.
PACE_AHEAD_S = 1.0
# An estimate says no more than "within this".
ETA_MAX_S = 30 * 24 * 3600
# Seconds a payout usually needs when nobody stands before it.
ETA_LEAST_S = 10
COUNTED = 100_000  # payouts counted for an estimate; more say "at least"

_ASK = """
SELECT id FROM packets_payout
 WHERE step IN ('query', 'cancel') AND next_attempt_at <= now()
 ORDER BY next_attempt_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""

_OPEN_ACCOUNTS = """
SELECT id, rate_per_minute, breaker FROM packets_provideraccount
 WHERE is_active AND (breaker = 'closed' OR breaker_until <= now())
   AND COALESCE(paced_until, now()) <= now() + make_interval(secs => %s)
 ORDER BY random()
"""

# The campaigns whose people wait (a walk over the index: one step for each), by who was served
# longest ago.
_SHARES = """
WITH RECURSIVE waiting (share) AS (
    (SELECT share FROM packets_payout
      WHERE account_id = %(account)s AND step = 'submit' AND next_attempt_at IS NOT NULL
      ORDER BY share LIMIT 1)
    UNION ALL
    SELECT (SELECT further.share FROM packets_payout AS further
             WHERE further.account_id = %(account)s AND further.step = 'submit'
               AND further.next_attempt_at IS NOT NULL AND further.share > waiting.share
             ORDER BY further.share LIMIT 1)
      FROM waiting WHERE waiting.share IS NOT NULL
)
SELECT waiting.share FROM waiting
  LEFT JOIN LATERAL (
       SELECT first_submitted_at FROM packets_payout AS served
        WHERE served.account_id = %(account)s AND served.share = waiting.share
          AND served.first_submitted_at IS NOT NULL
        ORDER BY first_submitted_at DESC LIMIT 1) AS newest ON true
 WHERE waiting.share IS NOT NULL
 ORDER BY newest.first_submitted_at NULLS FIRST, waiting.share
"""

_SEND = """
SELECT id FROM packets_payout
 WHERE account_id = %s AND share = %s AND step = 'submit' AND next_attempt_at <= now()
 ORDER BY created_at
 LIMIT 1
   FOR UPDATE SKIP LOCKED
"""

_PACE = """
UPDATE packets_provideraccount
   SET paced_until = GREATEST(paced_until, now()) + make_interval(secs => %(interval)s)
 WHERE id = %(account)s
   AND COALESCE(paced_until, now()) <= now() + make_interval(secs => %(ahead)s)
"""

_PROBE = """
UPDATE packets_provideraccount SET breaker_until = now() + make_interval(secs => %s)
 WHERE id = %s AND breaker = 'open' AND breaker_until <= now()
"""


def next_to_ask() -> Any | None:
    """The id of a payout whose provider is to be asked, its row locked; None when none is due."""
    with connection.cursor() as cursor:
        cursor.execute(_ASK)
        row = cursor.fetchone()
        return row[0] if row else None


def next_to_send() -> Any | None:
    """The id of a payout to be sent, its row locked and its account's pace paid; None: not now."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_ACCOUNTS, [PACE_AHEAD_S])
        for account_id, rate, breaker in cursor.fetchall():
            payout_id = _oldest(cursor, account_id)
            if payout_id is not None and _admitted(cursor, account_id, rate, breaker):
                return payout_id
    return None


def _oldest(cursor: Any, account_id: int) -> Any | None:
    cursor.execute(_SHARES, {"account": account_id})
    for (share,) in cursor.fetchall():
        cursor.execute(_SEND, [account_id, share])
        row = cursor.fetchone()
        if row is not None:
            return row[0]
    return None


def _admitted(cursor: Any, account_id: int, rate: int | None, breaker: str) -> bool:
    """Whether breaker and pace let one more out; asked last, for it is counted."""
    if breaker == "open":
        cursor.execute(_PROBE, [PROBE_S, account_id])
        if cursor.rowcount != 1:
            return False
    if rate:
        interval = 60.0 / rate
        cursor.execute(_PACE, {"interval": interval, "account": account_id, "ahead": PACE_AHEAD_S})
        return bool(cursor.rowcount == 1)
    return True


# --- how long it takes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Backlog:
    """What waits to be sent through one account, or of one share of it."""

    account_id: int
    share: int
    waiting: int
    waiting_fen: int
    oldest_s: float


_BACKLOG = """
SELECT account_id, share, count(*), COALESCE(sum(amount_fen), 0)::bigint,
       EXTRACT(epoch FROM now() - min(created_at))::float8
  FROM (SELECT account_id, share, amount_fen, created_at FROM packets_payout
         WHERE step = 'submit' AND next_attempt_at IS NOT NULL LIMIT %s) AS counted
 GROUP BY account_id, share ORDER BY account_id, count(*) DESC
"""

# How many stand before it: all of its own share that are older, and from each other share as many
# again at most, for the shares take turns.
_BEFORE = """
WITH counted AS (
    SELECT share, created_at FROM packets_payout
     WHERE account_id = %(account)s AND step = 'submit' AND next_attempt_at IS NOT NULL
     LIMIT %(counted)s
), own AS (
    SELECT count(*) AS older FROM counted WHERE share = %(share)s AND created_at < %(created)s
), others AS (
    SELECT share, count(*) AS waiting FROM counted WHERE share <> %(share)s GROUP BY share
)
SELECT (SELECT older FROM own)
       + COALESCE((SELECT sum(LEAST(others.waiting, (SELECT older + 1 FROM own))) FROM others), 0)
"""

# Sends of the last minutes: what an account without a rate of its own really does.
_RECENT = """
SELECT count(*) FROM packets_payout
 WHERE account_id = %s AND first_submitted_at > now() - interval '5 minutes'
"""


def backlog() -> list[Backlog]:
    """What waits, by account and share, the fullest first within an account."""
    with connection.cursor() as cursor:
        cursor.execute(_BACKLOG, [COUNTED])
        return [Backlog(*row) for row in cursor.fetchall()]


def rate_per_s(account_id: int, rate_per_minute: int | None) -> float:
    """Payouts a second: the rail's rate, or what was sent in the last five minutes; at least 1."""
    if rate_per_minute:
        return rate_per_minute / 60
    with connection.cursor() as cursor:
        cursor.execute(_RECENT, [account_id])
        return float(max(1.0, cursor.fetchone()[0] / 300))


def eta_s(payout: Payout) -> int | None:
    """Seconds until this payout is likely sent and answered; None where it can't be said: it
    waits for a person, for a breaker, or for its owner."""
    if payout.is_terminal or payout.manual_reason or payout.state == Payout.State.USER_ACTION:
        return None
    if payout.step != Payout.Step.SUBMIT:
        return ETA_LEAST_S
    if payout.account.breaker == "open" or not payout.account.is_active:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            _BEFORE,
            {
                "account": payout.account_id,
                "share": payout.share,
                "created": payout.created_at,
                "counted": COUNTED,
            },
        )
        before = int(cursor.fetchone()[0])
    rate = rate_per_s(payout.account_id, payout.account.rate_per_minute)
    return min(ETA_MAX_S, ETA_LEAST_S + int(before / rate))
