"""Delivering: what is due is taken under a lease, called, and written down.

    take      one delivery whose time has come, of an endpoint that has a slot free; the lease is
              committed before the call, and the delivery is due again when it ends
    deliver   the call (calling.py), outside of any transaction
    finish    what came of it, by whoever still holds the lease

A process that dies in between has changed nothing but the lease: when that ends, somebody calls
again under the same `webhook-id`. So an event is delivered at least once, and by one at a time.
All times are compared by the database's clock, which also gives the `webhook-timestamp`: this
machine's may be minutes off.

A slow endpoint holds its own slots, never those of others; one that fails has a single slot.
"""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from django.db import connection, transaction

from engine.lib import clock, crypto
from engine.lib.audit import audit_record
from engine.webhooks.calling import CALL_S, RESOLVE_S, Outcome, deliver
from engine.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from engine.webhooks.signing import signed_headers

log = structlog.get_logger(__name__)
State = WebhookDelivery.State

# Seconds after each failed attempt, as the standard proposes; after the last the delivery is given
# up: ten attempts within three days and four hours.
SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
# Up to so much longer, by chance: a receiver that comes back isn't met by everything at once.
JITTER = 0.2
# Longer than a call can take with everything around it, or two would call at once.
LEASE_S = 45.0
# An endpoint whose every call has failed for so long is switched off, and staff are told.
FAILING_LIMIT = dt.timedelta(days=3)
# Calls at once to one endpoint; to one that is failing, a single one to see whether it is back.
SLOTS = 4
FAILING_SLOTS = 1
# Endpoints looked at for one delivery: in any order, so that none waits behind others for ever.
LOOK_AT = 50
RUN_S = 10.0  # a run of the sweep ends after this long; the next one is a second away
SYSTEM = "system:webhooks"
# Why we switch an endpoint off; people read them in their language (admin.py).
REASON_GONE, REASON_FAILING = "gone", "failing"

_DUE_ENDPOINTS = """
SELECT endpoint.id FROM engine_webhookendpoint AS endpoint
 WHERE endpoint.state = 'active'
   AND EXISTS (
       SELECT FROM engine_webhookdelivery AS due
        WHERE due.endpoint_id = endpoint.id AND due.state = 'waiting'
          -- guard:lease begin
          AND due.next_attempt_at <= statement_timestamp()
          -- guard:lease end
       )
 ORDER BY random() LIMIT %s
"""

# Whoever takes a delivery counts the endpoint's leases under this lock, so that the count holds.
_LOCK_ENDPOINT = """
SELECT CASE WHEN failing_since IS NULL THEN %(slots)s ELSE %(failing_slots)s END
  FROM engine_webhookendpoint WHERE id = %(endpoint)s AND state = 'active'
   FOR NO KEY UPDATE
"""

_TAKE = """
WITH next AS (
    SELECT delivery.id FROM engine_webhookdelivery AS delivery
     WHERE delivery.endpoint_id = %(endpoint)s AND delivery.state = 'waiting'
       -- guard:lease begin
       AND delivery.next_attempt_at <= statement_timestamp()
       -- guard:lease end
       AND (SELECT count(*) FROM engine_webhookdelivery AS busy
             WHERE busy.endpoint_id = %(endpoint)s
               AND busy.lease_until > statement_timestamp()) < %(slots)s
     ORDER BY delivery.next_attempt_at LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE engine_webhookdelivery AS delivery
   SET lease_until = statement_timestamp() + %(lease_s)s * interval '1 second',
       next_attempt_at = statement_timestamp() + %(lease_s)s * interval '1 second',
       lease_token = delivery.lease_token + 1,
       attempts = delivery.attempts + 1
  FROM next, engine_outboxevent AS event, engine_webhookendpoint AS endpoint
 WHERE delivery.id = next.id AND event.id = delivery.event_id
   AND endpoint.id = delivery.endpoint_id
RETURNING delivery.id, delivery.lease_token, delivery.attempts, endpoint.id, endpoint.url,
          endpoint.secret_encrypted,
          CASE WHEN endpoint.previous_until > statement_timestamp()
               THEN endpoint.previous_encrypted ELSE '' END,
          event.id, event.kind, event.payload::text, event.created_at,
          extract(epoch FROM statement_timestamp())::bigint
"""

_FINISH = """
UPDATE engine_webhookdelivery
   SET state = %(state)s, lease_until = NULL,
       next_attempt_at = CASE WHEN %(state)s = 'waiting'
                              THEN statement_timestamp() + %(wait_s)s * interval '1 second' END,
       finished_at = CASE WHEN %(state)s <> 'waiting' THEN statement_timestamp() END
 WHERE id = %(delivery)s AND state = 'waiting'
   -- guard:fence begin
   AND lease_token = %(token)s
   -- guard:fence end
"""

_WELL = """
UPDATE engine_webhookendpoint SET failing_since = NULL
 WHERE id = %s AND failing_since IS NOT NULL
"""
_FAILING = """
UPDATE engine_webhookendpoint SET failing_since = statement_timestamp()
 WHERE id = %s AND failing_since IS NULL
"""
_DISABLE = """
UPDATE engine_webhookendpoint
   SET state = 'disabled', reason = %(reason)s, disabled_by_us = true,
       changed_at = statement_timestamp()
 WHERE id = %(endpoint)s AND state = 'active'
   AND (%(at_once)s OR failing_since < statement_timestamp() - %(limit_s)s * interval '1 second')
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery under our lease, with everything the call needs."""

    id: int
    token: int
    attempt: int
    endpoint_id: int
    url: str
    secrets_encrypted: tuple[str, ...]
    event_id: uuid.UUID
    body: bytes
    timestamp: int
    until: float  # monotonic: when the lease may be over

    def headers(self) -> dict[str, str]:
        secrets = [crypto.decrypt(stored) for stored in self.secrets_encrypted]
        return {
            "Content-Type": "application/json",
            **signed_headers(secrets, self.event_id.hex, self.timestamp, self.body),
        }


def body_of(event_id: uuid.UUID, kind: str, created_at: dt.datetime, data: Any) -> bytes:
    """What is signed and sent; the same bytes at every attempt."""
    envelope = {
        "id": event_id.hex,
        "type": kind,
        "timestamp": clock.rfc3339(created_at),
        "data": data,
    }
    return orjson.dumps(envelope)


def deliver_due(for_s: float = RUN_S) -> dict[str, int]:
    """Deliver until nothing is due or the time is over; counts by what became of them."""
    counts: Counter[str] = Counter()
    ends = time.monotonic() + for_s
    while time.monotonic() < ends and (taken := take()) is not None:
        counts[deliver_one(taken)] += 1
    return dict(counts)


def deliver_one(taken: Taken) -> str:
    """The call and what follows from it: `delivered`, `waiting`, `dead`, or `overtaken`."""
    if time.monotonic() > taken.until - CALL_S - RESOLVE_S:
        # This process stood still for longer than its lease is good for: somebody else may call.
        return "overtaken"
    try:
        headers = taken.headers()
    except crypto.UnreadableSecret as unreadable:
        return finish(taken, Outcome(None, 0, error=f"secret: {unreadable}"))
    return finish(taken, deliver(taken.url, headers, taken.body))


def take(lease_s: float | None = None) -> Taken | None:
    """The lease on one delivery that is due, committed; None: there is nothing to do now."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE_ENDPOINTS, [LOOK_AT])
        endpoints = [row[0] for row in cursor.fetchall()]
    for endpoint_id in endpoints:
        taken = _take_of(endpoint_id, LEASE_S if lease_s is None else lease_s)
        if taken is not None:
            return taken
    return None


def _take_of(endpoint_id: int, lease_s: float) -> Taken | None:
    began = time.monotonic()
    with transaction.atomic(), connection.cursor() as cursor:
        names = {"endpoint": endpoint_id, "slots": SLOTS, "failing_slots": FAILING_SLOTS}
        cursor.execute(_LOCK_ENDPOINT, names)
        row = cursor.fetchone()
        if row is None:
            return None
        cursor.execute(_TAKE, {"endpoint": endpoint_id, "slots": row[0], "lease_s": lease_s})
        row = cursor.fetchone()
    if row is None:
        return None
    delivery_id, token, attempt, _, url, secret, previous, event_id, kind, data, at, stamp = row
    return Taken(
        id=delivery_id,
        token=token,
        attempt=attempt,
        endpoint_id=endpoint_id,
        url=url,
        secrets_encrypted=tuple(stored for stored in (secret, previous) if stored),
        event_id=event_id,
        body=body_of(event_id, kind, at, orjson.loads(data)),
        timestamp=stamp,
        until=began + lease_s,
    )


def finish(taken: Taken, outcome: Outcome) -> str:
    """Write down the attempt, and by whoever holds the lease what is next.

    Who was overtaken still writes the attempt, for it was made, but decides nothing.
    """
    state, wait_s = _next(taken.attempt, outcome)
    with transaction.atomic(), connection.cursor() as cursor:
        WebhookAttempt.objects.create(
            delivery_id=taken.id,
            number=taken.attempt,
            status=outcome.status,
            latency_ms=outcome.latency_ms,
            answer=outcome.answer,
            error=outcome.error,
        )
        names: dict[str, Any] = {"state": state, "wait_s": wait_s}
        cursor.execute(_FINISH, {**names, "delivery": taken.id, "token": taken.token})
        held = cursor.rowcount == 1
        if outcome.delivered:
            cursor.execute(_WELL, [taken.endpoint_id])
        else:
            cursor.execute(_FAILING, [taken.endpoint_id])
            _disable_if_lost(cursor, taken, outcome)
    log.info(
        "webhook_attempt",
        event_id=taken.event_id.hex,
        attempt=taken.attempt,
        status=outcome.status,
        error=outcome.error,
        state=str(state),
        held=held,
    )
    return str(state) if held else "overtaken"


def _next(attempt: int, outcome: Outcome) -> tuple[State, float]:
    """What the delivery is now, and in how many seconds it is due again."""
    if outcome.delivered:
        return State.DELIVERED, 0.0
    if outcome.gone or attempt > len(SCHEDULE_S):
        return State.DEAD, 0.0
    return State.WAITING, SCHEDULE_S[attempt - 1] * (1 + random.uniform(0, JITTER))


def _disable_if_lost(cursor: Any, taken: Taken, outcome: Outcome) -> None:
    reason = REASON_GONE if outcome.gone else REASON_FAILING
    cursor.execute(
        _DISABLE,
        {
            "endpoint": taken.endpoint_id,
            "reason": reason,
            "at_once": outcome.gone,
            "limit_s": FAILING_LIMIT.total_seconds(),
        },
    )
    if cursor.rowcount != 1:
        return
    log.error("webhook_endpoint_disabled", endpoint=taken.endpoint_id, reason=reason)
    audit_record(
        actor=SYSTEM,
        action="webhook_endpoint.disable",
        object_type="webhook_endpoint",
        object_id=taken.endpoint_id,
        before={"state": WebhookEndpoint.State.ACTIVE},
        after={"state": WebhookEndpoint.State.DISABLED},
        reason=reason,
    )
