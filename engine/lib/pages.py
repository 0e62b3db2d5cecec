"""Lists by cursor: `{"results": [...], "next": url|null}`, stable while rows are added.

A cursor is the sort key of the last row that was shown, signed together with the list it belongs
to. Paging never counts and never skips by offset, so page a thousand costs what page one costs.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from django.core import signing
from django.db.models import Model, Q, QuerySet
from drf_spectacular.utils import OpenApiParameter

from engine.lib.problem import FieldCode, FieldError, invalid

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
CURSOR_MAX_CHARS = 1024

PAGE_PARAMETERS = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        description="Results a page.",
    ),
    OpenApiParameter(
        "cursor",
        {"type": "string", "minLength": 1, "maxLength": CURSOR_MAX_CHARS},
        description="Opaque; taken from `next`.",
    ),
]

Row = TypeVar("Row", bound=Model)


def _query_error(name: str, code: FieldCode, detail: str) -> Exception:
    return invalid(FieldError(f"?{name}", code, detail))


def limit_of(request: Any) -> int:
    text = request.GET.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise _query_error("limit", FieldCode.OUT_OF_RANGE, f"A whole number, 1 to {MAX_LIMIT}.")
    return int(text)


def _pack(value: Any) -> list[Any]:
    if isinstance(value, dt.datetime):
        return ["t", value.isoformat()]
    if isinstance(value, uuid.UUID):
        return ["u", value.hex]
    if isinstance(value, int | str):
        return ["v", value]
    raise TypeError(f"a {type(value).__name__} can't be part of a cursor")


def _unpack(packed: list[Any]) -> Any:
    kind, value = packed
    if kind == "t":
        return dt.datetime.fromisoformat(value)
    return uuid.UUID(hex=value) if kind == "u" else value


def _after(keys: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows that come after `values` in the order of `keys` (`-name` descends)."""
    condition = Q()
    for index, key in enumerate(keys):
        name, below = key.lstrip("-"), key.startswith("-")
        step = Q(**{f"{name}__{'lt' if below else 'gt'}": values[index]})
        for equal, value in zip(keys[:index], values[:index], strict=True):
            step &= Q(**{equal.lstrip("-"): value})
        condition |= step
    return condition


def paginate(
    request: Any,
    queryset: QuerySet[Row],
    *,
    keys: Sequence[str],
    item: Callable[[Row], Any],
) -> dict[str, Any]:
    """One page of `queryset`, ordered by `keys`, whose last must be unique. ProblemError 422."""
    limit = limit_of(request)
    # Bound to the list: another list's cursor means nothing here. Not to a person: whose rows these
    # are is the queryset's business.
    salt = f"laisee.cursor:{request.path}:{','.join(keys)}"
    if (cursor := request.GET.get("cursor")) is not None:
        try:
            if len(cursor) > CURSOR_MAX_CHARS:
                raise signing.BadSignature("too long")
            values = [_unpack(packed) for packed in signing.loads(cursor, salt=salt)]
        except (signing.BadSignature, ValueError):
            raise _query_error(
                "cursor", FieldCode.WRONG_FORMAT, "Not a cursor of this list; start without one."
            ) from None
        queryset = queryset.filter(_after(keys, values))
    rows = list(queryset.order_by(*keys)[: limit + 1])
    more, rows = len(rows) > limit, rows[:limit]
    following = None
    if more:
        last = [_pack(_value(rows[-1], key.lstrip("-"))) for key in keys]
        query = urlencode({"limit": limit, "cursor": signing.dumps(last, salt=salt)})
        following = request.build_absolute_uri(f"{request.path}?{query}")
    return {"results": [item(row) for row in rows], "next": following}


def _value(row: Any, key: str) -> Any:
    for part in key.split("__"):
        row = getattr(row, part)
    return row
