"""The audit log: who did what to which object, in an order that can't be rewritten unseen.

`audit_record` inserts one event in the caller's transaction: what is undone leaves no event, and
what is done can't be without one. Ids, time and hashes come from `engine/sql/audit.sql`; this
module recomputes them. Inserting locks the end of the chain until the transaction ends, so record
last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection

from engine.lib.middleware import client_ip, network_of
from engine.models import AuditEvent

GENESIS = "0" * 64
# Rows read at once: short statements, so that verifying a long log holds no snapshot.
PAGE_ROWS = 2000


def audit_record(
    *,
    actor: str,
    action: str,
    object_type: str,
    object_id: object,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    request: Any = None,
) -> AuditEvent:
    """Append one event. `actor` is a name such as `staff:ann`, `app:demo` or `system`."""
    bound = structlog.contextvars.get_contextvars()
    request_id = getattr(request, "request_id", "") or str(bound.get("request_id", ""))
    return AuditEvent.objects.create(
        actor=actor[:150],
        action=action,
        object_type=object_type,
        object_id=str(object_id),
        before=None if before is None else dict(before),
        after=None if after is None else dict(after),
        reason=reason,
        request_id=request_id[:64],
        ip=network_of(client_ip(request)) if request is not None else "",
    )


def netstring(value: str | None) -> bytes:
    """`<bytes>:<text>,`, or `-,` for NULL; the same as laisee_netstring."""
    if value is None:
        return b"-,"
    raw = value.encode()
    return b"%d:%s," % (len(raw), raw)


def event_hash(prev_hash: str, fields: tuple[str | None, ...]) -> str:
    """The hash of an event from its fields in the order that audit.sql lists."""
    return hashlib.sha256(prev_hash.encode() + b"".join(map(netstring, fields))).hexdigest()


@dataclass(frozen=True)
class BrokenLink:
    event_id: int
    why: str


@dataclass(frozen=True)
class AuditReport:
    events: int  # that were found intact, from the first on
    broken: BrokenLink | None


_ROWS = """
    SELECT id, prev_hash, hash, id::text, ((extract(epoch FROM at) * 1000000)::bigint)::text,
           actor, action, object_type, object_id, before::text, after::text,
           reason, request_id, ip
    FROM engine_auditevent AS event WHERE event.id > %s ORDER BY event.id LIMIT %s
"""
# One statement, so that head and newest row are of one moment.
_END = """
    SELECT (SELECT max(id) FROM engine_auditevent), head.last_id, head.hash
    FROM (SELECT 1) AS one LEFT JOIN engine_audithead AS head ON head.id = 1
"""


def _rows(after_id: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(_ROWS, [after_id, PAGE_ROWS])
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _events() -> Iterator[tuple[Any, ...]]:
    last = -(2**62)
    while rows := _rows(last):
        yield from rows
        last = rows[-1][0]


def audit_verify() -> AuditReport:
    """Walk the chain from its first event to its end and stop at the first broken link."""
    with connection.cursor() as cursor:
        cursor.execute(_END)
        newest, head_id, head_hash = cursor.fetchone() or (None, None, None)
    newest = newest or 0
    if not newest and not head_id:
        return AuditReport(0, None)
    if head_id is None:
        return AuditReport(0, BrokenLink(int(newest), "the end of the chain is missing"))
    if newest > head_id:
        return AuditReport(0, BrokenLink(int(newest), f"the chain ends at event {head_id}"))
    count, previous = 0, GENESIS
    for event_id, prev_hash, own_hash, *fields in _events():
        if event_id > head_id:
            break  # recorded while we were walking
        why = _fault(count + 1, event_id, previous, prev_hash, own_hash, tuple(fields))
        if why:
            return AuditReport(count, BrokenLink(int(event_id), why))
        count, previous = count + 1, own_hash
    if count != head_id:
        return AuditReport(count, BrokenLink(count + 1, f"missing; the chain ends at {head_id}"))
    if previous != head_hash:
        return AuditReport(count, BrokenLink(count, "its hash is not the one at the chain's end"))
    return AuditReport(count, None)


def _fault(
    expected_id: int,
    event_id: int,
    previous: str,
    prev_hash: str,
    own_hash: str,
    fields: tuple[str | None, ...],
) -> str:
    if event_id != expected_id:
        return f"event {expected_id} is missing before it"
    if prev_hash != previous:
        return "it does not follow the event before it"
    if own_hash != event_hash(prev_hash, fields):
        return "its content does not fit its hash"
    return ""
