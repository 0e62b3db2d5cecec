"""Problems (RFC 9457): every answer that is not a success says what was wrong, with a closed code.

`ProblemError` is raised anywhere below a view. `exception_handler` turns it, DRF's own exceptions,
services' refusals and failing dependencies into `application/problem+json`; whatever it does not
know is logged with its trace and answered as a bare 500. The middleware does the same for answers
that no view gave (`engine/lib/middleware.py`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
import psycopg_pool
import redis.exceptions
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions as drf

from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.logs import get_logger

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:laisee:problem:"
# Seconds after which a dependency that was down may be asked again.
UNAVAILABLE_RETRY_S = 1
# What the client must find again on a problem that replaces another answer.
KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate", "RateLimit", "RateLimit-Policy", "Vary")

logger = get_logger(__name__)


class Code(enum.StrEnum):
    """Every `code` that a problem can carry. `CODES` says what each means."""

    MALFORMED = "malformed"
    BAD_REQUEST = "bad_request"
    IDEMPOTENCY_KEY_REQUIRED = "idempotency_key_required"
    IDEMPOTENCY_KEY_MALFORMED = "idempotency_key_malformed"
    NOT_AUTHENTICATED = "not_authenticated"
    INVALID_TOKEN = "invalid_token"
    INVALID_API_KEY = "invalid_api_key"
    BAD_SIGNATURE = "bad_signature"
    FORBIDDEN = "forbidden"
    MISSING_SCOPE = "missing_scope"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    CONFLICT = "conflict"
    IN_PROGRESS = "in_progress"
    KEY_SPENT = "key_spent"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID = "invalid"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Meaning:
    status: int
    title: str
    text: str  # one line for the documentation


CODES: Mapping[Code, Meaning] = {
    Code.MALFORMED: Meaning(400, "Malformed body", "The body is not UTF-8 or not JSON."),
    Code.BAD_REQUEST: Meaning(400, "Bad request", "The request can't be understood."),
    Code.IDEMPOTENCY_KEY_REQUIRED: Meaning(
        400, "Idempotency-Key required", "This POST moves money and needs an Idempotency-Key."
    ),
    Code.IDEMPOTENCY_KEY_MALFORMED: Meaning(
        400, "Malformed Idempotency-Key", "The key is not 1 to 255 printable ASCII characters."
    ),
    Code.NOT_AUTHENTICATED: Meaning(401, "Not authenticated", "Credentials are missing."),
    Code.INVALID_TOKEN: Meaning(
        401, "Invalid token", "The client token is malformed, expired or not signed by a known key."
    ),
    Code.INVALID_API_KEY: Meaning(
        401, "Invalid API key", "The API key is unknown, expired or revoked."
    ),
    Code.BAD_SIGNATURE: Meaning(
        401, "Bad signature", "The body isn't signed by the provider whose callback it is."
    ),
    Code.FORBIDDEN: Meaning(403, "Forbidden", "The caller may not do this."),
    Code.MISSING_SCOPE: Meaning(403, "Missing scope", "The API key lacks the scope of this route."),
    Code.NOT_FOUND: Meaning(404, "Not found", "There is nothing at this address for this caller."),
    Code.METHOD_NOT_ALLOWED: Meaning(
        405, "Method not allowed", "The address exists; `Allow` lists its methods."
    ),
    Code.NOT_ACCEPTABLE: Meaning(406, "Not acceptable", "Answers are application/json only."),
    Code.CONFLICT: Meaning(409, "Conflict", "The state of the thing does not allow this now."),
    Code.IN_PROGRESS: Meaning(
        409, "In progress", "The first request with this Idempotency-Key is still running."
    ),
    Code.KEY_SPENT: Meaning(
        409, "Key spent", "This Idempotency-Key made something more than 24 hours ago."
    ),
    Code.TOO_LARGE: Meaning(413, "Body too large", "The body is larger than this route takes."),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(
        415, "Unsupported media type", "Bodies are application/json only."
    ),
    Code.INVALID: Meaning(
        422, "Invalid input", "Well-formed but wrong; `errors` points at each wrong member."
    ),
    Code.IDEMPOTENCY_KEY_REUSED: Meaning(
        422, "Idempotency-Key reused", "The key was used before with another request."
    ),
    Code.RATE_LIMITED: Meaning(429, "Too many requests", "Over a limit; see `Retry-After`."),
    Code.INTERNAL: Meaning(500, "Internal error", "A defect of ours; it has been logged."),
    Code.UNAVAILABLE: Meaning(
        503, "Unavailable", "A part is down; send the same request again after `Retry-After`."
    ),
}


class FieldCode(enum.StrEnum):
    """What can be wrong with one member of the input, as far as the kernel sees it."""

    REQUIRED = "required"
    UNKNOWN_FIELD = "unknown_field"
    DUPLICATE_FIELD = "duplicate_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    WRONG_LENGTH = "wrong_length"
    WRONG_FORMAT = "wrong_format"
    UNKNOWN_CHOICE = "unknown_choice"
    FORBIDDEN_CHARACTER = "forbidden_character"
    TOO_DEEP = "too_deep"
    INVALID = "invalid"


@dataclass(frozen=True)
class FieldError:
    """`pointer` is a JSON pointer into the body, or `?name` for a query parameter."""

    pointer: str
    code: str
    detail: str


class ProblemError(Exception):
    """Ends the request with a problem. `status` must be the one that belongs to `code`."""

    def __init__(
        self,
        status: int,
        code: Code | str,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code = Code(code)
        if CODES[self.code].status != status:
            raise ValueError(f"{self.code} is a {CODES[self.code].status}, not a {status}")
        super().__init__(f"{self.code}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class IdempotencyKeySpent(Exception):
    """Raised by a service whose unique (principal, key) column found an older use of the key."""


def unavailable(detail: str) -> ProblemError:
    return ProblemError(
        503, Code.UNAVAILABLE, detail, headers={"Retry-After": str(UNAVAILABLE_RETRY_S)}
    )


def invalid(*errors: FieldError, detail: str = "") -> ProblemError:
    """A 422 that points at the wrong members."""
    return ProblemError(422, Code.INVALID, detail or "The input is not valid.", errors=errors)


def request_id_of(request: Any) -> str:
    return str(getattr(request, "request_id", ""))


def body_of(problem: ProblemError, request_id: str) -> bytes:
    """The problem as JSON, for any door."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.code.value,
        "title": CODES[problem.code].title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request_id,
        "code": problem.code.value,
    }
    if problem.errors:
        document["errors"] = [
            {"pointer": error.pointer, "code": error.code, "detail": error.detail}
            for error in problem.errors
        ]
    return orjson.dumps(document)


def response_of(problem: ProblemError, request: Any) -> HttpResponse:
    response = HttpResponse(
        body_of(problem, request_id_of(request)),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers={"Cache-Control": "no-store", **problem.headers},
    )
    response.problem_code = problem.code.value  # type: ignore[attr-defined]  # for the log
    return response


_BY_STATUS: Mapping[int, tuple[Code, str]] = {
    400: (Code.BAD_REQUEST, "The request can't be understood."),
    401: (Code.NOT_AUTHENTICATED, "Credentials are missing."),
    403: (Code.FORBIDDEN, "The caller may not do this."),
    404: (Code.NOT_FOUND, "There is nothing at this address."),
    405: (Code.METHOD_NOT_ALLOWED, "This address does not know that method."),
    406: (Code.NOT_ACCEPTABLE, "Answers are application/json only."),
    409: (Code.CONFLICT, "The state of the thing does not allow this now."),
    413: (Code.TOO_LARGE, "The body is too large."),
    415: (Code.UNSUPPORTED_MEDIA_TYPE, "Bodies are application/json only."),
    422: (Code.INVALID, "The input is not valid."),
    429: (Code.RATE_LIMITED, "Too many requests."),
    503: (Code.UNAVAILABLE, "Try again in a moment."),
}


def from_status(status: int, headers: Mapping[str, str] | None = None) -> ProblemError:
    """The problem that stands for a bare HTTP status of Django's or a middleware's."""
    known = _BY_STATUS.get(status)
    if known is None:
        known = (
            (Code.BAD_REQUEST, HTTPStatus(status).phrase if status in _STATUSES else "Bad request.")
            if 400 <= status < 500
            else (Code.INTERNAL, "Something went wrong on our side.")
        )
    code, detail = known
    kept = {name: value for name, value in (headers or {}).items() if name in KEPT_HEADERS}
    if code is Code.UNAVAILABLE:
        kept.setdefault("Retry-After", str(UNAVAILABLE_RETRY_S))
    return ProblemError(CODES[code].status, code, detail, headers=kept)


_STATUSES = frozenset(int(status) for status in HTTPStatus)

# Errors of a dependency that is down, slow or failing over: the same request may be sent again.
DEPENDENCY_ERRORS: tuple[type[Exception], ...] = (
    OperationalError,
    InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg_pool.PoolTimeout,
    psycopg_pool.PoolClosed,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
)


@dataclass
class _Collector:
    """Flattens DRF's nested error details into pointers."""

    errors: list[FieldError] = field(default_factory=list)

    def take(self, detail: Any, pointer: str = "") -> list[FieldError]:
        if isinstance(detail, Mapping):
            for name, inner in detail.items():
                own = "" if name in ("non_field_errors", "detail") else f"/{escape(str(name))}"
                self.take(inner, pointer + own)
        elif isinstance(detail, list | tuple):
            for index, inner in enumerate(detail):
                nested = isinstance(inner, Mapping | list | tuple)
                self.take(inner, f"{pointer}/{index}" if nested else pointer)
        else:
            code = str(getattr(detail, "code", FieldCode.INVALID))
            known = code if code in {item.value for item in FieldCode} else FieldCode.INVALID.value
            self.errors.append(FieldError(pointer, known, str(detail)))
        return self.errors


def escape(name: str) -> str:
    """One reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def from_exception(exc: Exception) -> ProblemError | None:
    """The problem behind an exception, or None where it can only be a defect of ours."""
    if isinstance(exc, ProblemError):
        return exc
    if isinstance(exc, TransitionRefused):
        return ProblemError(409, Code.CONFLICT, exc.message)
    if isinstance(exc, ServiceError):
        pointer = f"/{escape(exc.field)}" if exc.field else ""
        return invalid(FieldError(pointer, exc.code, exc.message), detail=exc.message)
    if isinstance(exc, IdempotencyKeySpent):
        return ProblemError(
            409,
            Code.KEY_SPENT,
            "This Idempotency-Key was spent by an earlier request. Nothing was done now; "
            "use a new key for a new request.",
        )
    if isinstance(exc, DEPENDENCY_ERRORS):
        return unavailable("A part of the system is not answering. Send the same request again.")
    if isinstance(exc, Http404):
        return ProblemError(404, Code.NOT_FOUND, "There is nothing at this address.")
    if isinstance(exc, PermissionDenied):
        return ProblemError(403, Code.FORBIDDEN, "The caller may not do this.")
    if isinstance(exc, drf.APIException):
        return _from_drf(exc)
    return None


def _from_drf(exc: drf.APIException) -> ProblemError:
    headers: dict[str, str] = {}
    if challenge := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = str(challenge)
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(max(1, int(wait)))
    if isinstance(exc, drf.ValidationError):
        return invalid(*_Collector().take(exc.detail))
    if isinstance(exc, drf.ParseError):
        return ProblemError(400, Code.MALFORMED, "The body is not well-formed.")
    return from_status(exc.status_code, headers)


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """DRF's EXCEPTION_HANDLER. A failing view never shows a trace, not even with DEBUG on."""
    request = getattr(context.get("request"), "_request", context.get("request"))
    return answer(exc, request)


def answer(exc: Exception, request: HttpRequest | None) -> HttpResponse:
    """The response to an exception, logged where somebody of ours must look at it."""
    problem = from_exception(exc)
    if problem is None:
        logger.error("unhandled exception", exc_info=exc)
        problem = ProblemError(500, Code.INTERNAL, "Something went wrong on our side.")
    elif problem.code is Code.UNAVAILABLE:
        logger.warning("dependency failed", error=type(exc).__name__, detail=str(exc)[:500])
    return response_of(problem, request)
