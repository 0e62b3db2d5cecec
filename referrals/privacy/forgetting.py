"""Traces are forgotten by age: phones and networks of people, hashes of visitors and complainers.

Counts stay: a visit is still a visit, a complaint a complaint, only nobody can tell any more
whether two of them were the same person's. Days are whole ones, by Postgres's clock, so what is due
is due from midnight (UTC) on. A batch is a transaction of its own: whoever is killed in between
goes on where it was, and running it twice forgets nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from django.db import connection, transaction

from engine.lib.audit import audit_record

BATCH = 2_000
GONE = "gone:"  # with the row's id, in place of a hash that is unique

_OLD = "(now() AT TIME ZONE 'UTC')::date - %(days)s"
_MIDNIGHT = f"({_OLD})::timestamp AT TIME ZONE 'UTC'"

# By what is forgotten; each forgets one batch.
_STEPS: Mapping[str, str] = {
    "identities": f"""
DELETE FROM referrals_identity WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM referrals_identity WHERE last_seen < {_OLD}
     LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
""",
    "visits": f"""
UPDATE referrals_visit SET network_hash = '', visitor_hash = '' WHERE id = ANY (ARRAY(
    SELECT id FROM referrals_visit
     WHERE at < {_MIDNIGHT} AND (network_hash <> '' OR visitor_hash <> '')
     ORDER BY at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
""",
    "complaints": f"""
UPDATE referrals_complaint SET network_hash = '{GONE}' || id WHERE id = ANY (ARRAY(
    SELECT id FROM referrals_complaint
     WHERE at < {_MIDNIGHT} AND network_hash NOT LIKE '{GONE}%%'
     LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
""",
    "circles": f"""
DELETE FROM referrals_circletry WHERE id = ANY (ARRAY(
    SELECT id FROM referrals_circletry WHERE at < {_MIDNIGHT} LIMIT %(batch)s
       FOR UPDATE SKIP LOCKED))
""",
    # Rows of uploaded lists that named nobody: most likely they were meant to.
    "refused_rows": f"""
DELETE FROM campaign_targetuploaderror WHERE id = ANY (ARRAY(
    SELECT fault.id FROM campaign_targetuploaderror AS fault
      JOIN campaign_targetupload AS upload ON upload.id = fault.upload_id
     WHERE upload.created_at < {_MIDNIGHT}
     LIMIT %(batch)s FOR UPDATE OF fault SKIP LOCKED))
""",
}


def identities_forget(
    *,
    older_than_days: int,
    actor: str,
    for_s: float | None = None,
    progress: Callable[[str, int], None] = lambda what, count: None,
) -> dict[str, int]:
    """Forget what is older; how many rows of each kind. `progress` hears of each batch.

    `for_s`: stop after so many seconds (the rest is due at the next call).
    """
    if older_than_days < 1:
        raise ValueError(f"today's traces are in use: {older_than_days} days")
    until = None if for_s is None else time.monotonic() + for_s
    forgotten = dict.fromkeys(_STEPS, 0)
    try:
        for what, statement in _STEPS.items():
            while until is None or time.monotonic() < until:
                count = _batch(statement, older_than_days)
                forgotten[what] += count
                if count < BATCH:
                    break
                progress(what, forgotten[what])
    finally:
        if any(forgotten.values()):
            audit_record(
                actor=actor,
                action="privacy.forget",
                object_type="identities",
                object_id=f"{older_than_days}d",
                after=forgotten,
            )
    return forgotten


def _batch(statement: str, days: int) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, {"days": days, "batch": BATCH})
        return int(cursor.rowcount)
