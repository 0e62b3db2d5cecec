"""Idempotency-Key: a POST that moves money happens once, however often it is sent.

    class Withdrawals(APIView):
        @idempotent
        def post(self, request): ...

The first request runs inside one transaction together with the record of its answer, so a crash
leaves either both or neither. The answer is replayed for 24 hours. A run holds a lease, not a lock:
if its process dies, the next request after the lease takes over; if it was only slow, it finds its
run replaced when it stores its answer, and is rolled back.

After 24 hours this record says nothing any more; that a key never pays twice is then the unique
column of what it made. A service whose INSERT meets that column raises `IdempotencyKeySpent`.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from engine.lib import clock
from engine.lib.problem import Code, IdempotencyKeySpent, ProblemError, answer
from engine.lib.renderers import MEDIA_TYPE, OrjsonRenderer
from engine.models import IdempotencyRecord

__all__ = ["IdempotencyKeySpent", "idempotency_key", "idempotent", "records_purge"]

KEY_MAX_CHARS = 255
REPLAY_FOR = dt.timedelta(hours=24)
# Longer than any request may take (Postgres ends statements after 5 s), so that a takeover nearly
# always means a crash.
LEASE = dt.timedelta(seconds=30)
REPLAYED_HEADER = "Idempotent-Replayed"
# Seconds; the usual run ends well within one.
IN_PROGRESS_RETRY_S = 1
# Rows deleted by one statement of the purge: a short transaction.
PURGE_ROWS = 5000

# For `extend_schema` of every view that is `idempotent`.
KEY_PARAMETER = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": KEY_MAX_CHARS, "pattern": "^[!#-~]+$"},
    OpenApiParameter.HEADER,
    required=True,
    description="A new one for each intended payment, the same one with every retry of it.",
)
KEY_PROBLEMS = (
    Code.IDEMPOTENCY_KEY_REQUIRED,
    Code.IDEMPOTENCY_KEY_MALFORMED,
    Code.IDEMPOTENCY_KEY_REUSED,
    Code.IN_PROGRESS,
    Code.KEY_SPENT,
)

_BARE = re.compile(r"[!#-~]{1,255}\Z")  # printable ASCII without blanks and quotes
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"\Z')  # a structured-field string (RFC 9651)


def idempotency_key(header: str | None) -> str:
    """The key in the header, bare or quoted. ProblemError 400 where it is missing or malformed."""
    if header is None or not header.strip():
        raise ProblemError(
            400,
            Code.IDEMPOTENCY_KEY_REQUIRED,
            "Send an Idempotency-Key header: one new key per intended payment, "
            "and the same key with every retry of it.",
        )
    text = header.strip()
    quoted = _QUOTED.match(text)
    key = re.sub(r'\\(["\\])', r"\1", quoted[1]) if quoted else text
    if not 0 < len(key) <= KEY_MAX_CHARS or not (quoted or _BARE.match(text)):
        raise ProblemError(
            400,
            Code.IDEMPOTENCY_KEY_MALFORMED,
            f"An Idempotency-Key is 1 to {KEY_MAX_CHARS} printable ASCII characters, bare or in "
            "double quotes.",
        )
    return key


def fingerprint(method: str, path: str, body: Any) -> str:
    """What makes two requests the same: method, path and the meaning of the body."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), canonical))).hexdigest()


@dataclass(frozen=True)
class _Run:
    """A right to run: the record's id and the name under which the answer may be stored."""

    record_id: int
    run: uuid.UUID


class _RunReplaced(Exception):
    """The lease ran out and another request took over; this one must leave no trace."""


def _in_progress() -> ProblemError:
    return ProblemError(
        409,
        Code.IN_PROGRESS,
        "The first request with this key is still running; ask again for its answer.",
        headers={"Retry-After": str(IN_PROGRESS_RETRY_S)},
    )


def _begin(principal: str, key: str, route: str, digest: str) -> _Run | IdempotencyRecord:
    """The right to run, or the finished record to replay. ProblemError 409 or 422 otherwise."""
    now, run = clock.now(), uuid.uuid4()
    fresh: dict[str, Any] = {
        "route": route,
        "fingerprint": digest,
        "status": None,
        "response": b"",
        "content_type": "",
        "run": run,
        "lease_until": now + LEASE,
        "created_at": now,
    }
    record, created = IdempotencyRecord.objects.get_or_create(
        principal=principal, key=key, defaults=fresh
    )
    if created:
        return _Run(record.pk, run)
    expired = record.created_at <= now - REPLAY_FOR
    if not expired:
        if record.fingerprint != digest:
            raise ProblemError(
                422,
                Code.IDEMPOTENCY_KEY_REUSED,
                "This key was used with another request. Use a new key for a new request.",
            )
        if record.status is not None:
            return record
        if record.lease_until > now:
            raise _in_progress()
    # Take over by compare-and-set: of several that saw the same dead run, one goes on.
    taken = IdempotencyRecord.objects.filter(pk=record.pk, run=record.run).update(**fresh)
    if not taken:
        raise _in_progress()
    return _Run(record.pk, run)


def _is_kept(status: int) -> bool:
    """Answers that a retry should get again. A conflict, a limit or an outage may pass."""
    return status < 500 and status not in (409, 429)


def _store(mine: _Run, response: HttpResponse) -> None:
    stored = IdempotencyRecord.objects.filter(pk=mine.record_id, run=mine.run).update(
        status=response.status_code,
        response=response.content,
        content_type=response.get("Content-Type", MEDIA_TYPE),
    )
    if not stored:
        raise _RunReplaced


def _rendered(response: Any) -> HttpResponse:
    """The answer as bytes: what is stored is what was sent."""
    if not isinstance(response, Response):
        return response  # type: ignore[no-any-return]
    body = OrjsonRenderer().render(response.data)
    plain = HttpResponse(body, status=response.status_code, content_type=MEDIA_TYPE)
    for name, value in response.items():
        if name.lower() != "content-type":
            plain[name] = value
    return plain


def _replay(record: IdempotencyRecord) -> HttpResponse:
    return HttpResponse(
        bytes(record.response),
        status=record.status,
        content_type=record.content_type,
        # Nothing between us and the caller keeps an answer about money, the first or a later one.
        headers={REPLAYED_HEADER: "true", "Cache-Control": "no-store"},
    )


def _run(mine: _Run, call: Callable[[], Any], request: Request) -> HttpResponse:
    try:
        with transaction.atomic():
            response = _rendered(call())
            if _is_kept(response.status_code):
                _store(mine, response)
            if response.status_code < 400:
                return response
            # A refusal keeps nothing that was done on the way to it.
            transaction.set_rollback(True)
    except _RunReplaced:
        return answer(_in_progress(), request._request)
    except Exception as error:  # noqa: BLE001  (every failure becomes an answer, logged there)
        response = answer(error, request._request)
    if _is_kept(response.status_code):
        try:
            _store(mine, response)
        except _RunReplaced:
            return answer(_in_progress(), request._request)
    else:
        # `status=None`: a commit whose outcome we did not learn may have stored the answer.
        IdempotencyRecord.objects.filter(pk=mine.record_id, run=mine.run, status=None).delete()
    return response


def idempotent(post: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Decorates a DRF view's `post`. The key is also `request.idempotency_key`, for the service."""

    @functools.wraps(post)
    def wrapper(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        key = idempotency_key(request.META.get("HTTP_IDEMPOTENCY_KEY"))
        request.idempotency_key = key  # type: ignore[attr-defined]
        path = request.path_info
        digest = fingerprint(str(request.method), path, request.data)
        caller: Any = request.user
        begun = _begin(caller.principal, key, path[:200], digest)
        if isinstance(begun, IdempotencyRecord):
            return _replay(begun)
        return _run(begun, lambda: post(view, request, *args, **kwargs), request)

    return wrapper


def records_purge() -> int:
    """Delete records whose replay time is over, a page at a time; the number deleted."""
    deleted = 0
    while True:
        old = IdempotencyRecord.objects.filter(created_at__lte=clock.now() - REPLAY_FOR)
        page, _ = IdempotencyRecord.objects.filter(pk__in=old.values("pk")[:PURGE_ROWS]).delete()
        deleted += page
        if page < PURGE_ROWS:
            return deleted
