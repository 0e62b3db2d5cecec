"""`/healthz`: this process answers, without any I/O. `/readyz`: so does what it stands on.

Redis is looked at and named, and makes no process unready: claims go on without it, and a balancer
that took every process out would end them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import orjson
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from engine.lib.logs import get_logger
from engine.lib.problem import DEPENDENCY_ERRORS, response_of, unavailable
from engine.lib.redis import stock
from engine.lib.renderers import MEDIA_TYPE

_ALIVE = b'{"status":"ok"}'

logger = get_logger(__name__)


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_ALIVE, content_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


@functools.cache
def _migrations_on_disk() -> frozenset[tuple[str, str]]:
    """What this process's code expects; it can't change while the process lives."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def _postgres() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def _redis() -> str:
    stock().ping()
    return ""


def _migrations() -> str:
    missing = _migrations_on_disk() - set(MigrationRecorder(connection).applied_migrations())
    if not missing:
        return ""
    app, name = min(missing)
    return f"{len(missing)} migrations not applied, first {app}.{name}; run `manage.py migrate`"


# In this order: without Postgres nothing can be said about migrations.
CHECKS: dict[str, Callable[[], str]] = {
    "postgres": _postgres,
    "redis": _redis,
    "migrations": _migrations,
}


def _fault(check: Callable[[], str]) -> str:
    try:
        return check()
    except DEPENDENCY_ERRORS as error:
        # The text may name hosts and roles: it goes to the log, not to whoever asks.
        logger.warning("not ready", error=type(error).__name__, detail=str(error)[:300])
        return "not answering"


# Without these a process is ready all the same.
DISPENSABLE = frozenset({"redis"})


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    found: dict[str, str] = {}
    for name, check in CHECKS.items():
        if name == "migrations" and found["postgres"]:
            continue
        found[name] = _fault(check)
    faults = {name: fault for name, fault in found.items() if fault}
    if faults.keys() - DISPENSABLE:
        detail = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        return response_of(unavailable(f"Not ready. {detail}"), request)
    body = orjson.dumps({"status": "ready", **dict.fromkeys(CHECKS, "ok"), **faults})
    return HttpResponse(body, content_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
