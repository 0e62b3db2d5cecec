"""Leasing due rows: by Postgres's clock, past whoever else is at it.

A lease is the next attempt itself: whoever takes a row moves it into the future, further with each
attempt, so a worker that dies needs nobody to clean up after it. What is done to a row is
repeatable; a lease only keeps two workers from doing it twice.
"""

from __future__ import annotations

from typing import Any

from django.db import connection, models

# Seconds until a row is tried again: doubled with each attempt, up to the second.
FIRST_S = 10
LONGEST_S = 600

_LEASE = """
UPDATE {table} AS taken
   SET attempts = attempts + 1,
       next_attempt_at = clock_timestamp() + make_interval(
           secs => least(%(longest)s, %(first)s * power(2, least(attempts, 10))))
  FROM (SELECT {key} FROM {table}
         WHERE next_attempt_at <= clock_timestamp() AND {where}
         ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS due
 WHERE taken.{key} = due.{key}
RETURNING taken.{key}
"""


def lease(model: type[models.Model], where: str, limit: int) -> list[Any]:
    """The keys of the rows taken, oldest first where it matters to nobody. `where` is SQL of
    ours."""
    statement = _LEASE.format(table=model._meta.db_table, key=model._meta.pk.column, where=where)
    with connection.cursor() as cursor:
        cursor.execute(statement, {"longest": LONGEST_S, "first": FIRST_S, "limit": limit})
        return sorted(row[0] for row in cursor.fetchall())
