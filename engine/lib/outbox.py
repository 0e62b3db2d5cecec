"""The outbox: what happened, written down with it, for whoever asked to be told.

`outbox_emit` writes the event and its deliveries in the caller's transaction: what is undone tells
nothing, and what is committed can't be left untold. An event is kept only when an active endpoint
of the app asks for its kind; for nobody, nothing is written and it costs one look at a small table.
Delivering is the business of `engine/webhooks/`, in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db import connection
from django.db.transaction import TransactionManagementError

from engine.models import EventKind

__all__ = ["DELIVER", "EventKind", "outbox_emit", "outbox_wanted"]

_WANTED = """
SELECT EXISTS (
    SELECT FROM engine_webhookendpoint AS endpoint
     WHERE endpoint.state = 'active' AND %(kind)s = ANY (endpoint.kinds)
       AND (%(app)s::bigint IS NULL OR endpoint.client_app_id = %(app)s))
"""

# Follows a `told AS (INSERT INTO engine_outboxevent … RETURNING id, client_app_id)`, and makes a
# delivery for each endpoint that asked. Needs %(kind)s.
DELIVER = """
INSERT INTO engine_webhookdelivery (event_id, endpoint_id, state, attempts, lease_token)
SELECT told.id, endpoint.id, 'waiting', 0, 0
  FROM told JOIN engine_webhookendpoint AS endpoint
    ON endpoint.client_app_id = told.client_app_id
 WHERE endpoint.state = 'active' AND %(kind)s = ANY (endpoint.kinds)
"""

_EMIT = f"""
WITH told AS (
    INSERT INTO engine_outboxevent (id, client_app_id, kind, key, payload)
    SELECT gen_random_uuid(), %(app)s, %(kind)s, %(key)s, %(payload)s::jsonb
     WHERE EXISTS (
           SELECT FROM engine_webhookendpoint AS endpoint
            WHERE endpoint.client_app_id = %(app)s AND endpoint.state = 'active'
              AND %(kind)s = ANY (endpoint.kinds))
        ON CONFLICT (client_app_id, kind, key) DO NOTHING
    RETURNING id, client_app_id
)
{DELIVER}
"""


def outbox_emit(
    kind: EventKind, client_app_id: int, payload: Mapping[str, Any], *, key: str
) -> int:
    """Tell the app that something happened; returns how many endpoints will hear it.

    `key` names what happened (a payout's id, a campaign's): the same key is told once, whoever
    repeats. `payload` is the event's `data`; its shape stands in `engine/webhooks/shapes.py`. Must
    be called inside the transaction that makes it true, before `audit_record`.
    """
    if not connection.in_atomic_block:
        raise TransactionManagementError("an event is emitted in the transaction it tells of")
    with connection.cursor() as cursor:
        cursor.execute(
            _EMIT,
            {
                "kind": kind.value,
                "app": client_app_id,
                "key": key,
                "payload": json.dumps(payload, ensure_ascii=False, allow_nan=False),
            },
        )
        return int(cursor.rowcount)


def outbox_wanted(kind: EventKind, client_app_id: int | None = None) -> bool:
    """Whether any active endpoint (of this app) asks for events of this kind."""
    with connection.cursor() as cursor:
        cursor.execute(_WANTED, {"kind": kind.value, "app": client_app_id})
        return bool(cursor.fetchone()[0])
