"""Bodies in and out: strict JSON that keeps integers whole, and nothing else.

`decode_object` is pure and serves every door. What it refuses as malformed (400) is not UTF-8 or
not JSON by RFC 8259; what it refuses as invalid (422) is JSON that this product never means: a top
level that is no object, a name twice, integers beyond 2^53-1, NUL or a lone surrogate in a text.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any, NoReturn

import msgspec
import orjson
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from engine.lib.money import MAX_FEN
from engine.lib.problem import Code, FieldCode, FieldError, ProblemError, escape, invalid

MEDIA_TYPE = "application/json"
# Bytes. The largest body that a participant has a reason to send is a fiftieth of this.
MAX_BODY_BYTES = 16 * 1024
# Bytes; `/server/events` takes a thousand events at once.
MAX_EVENTS_BODY_BYTES = 1024 * 1024
# Levels of nesting; no route needs more than four, and the walk below is recursive.
MAX_DEPTH = 16
# Digits; longer integers are beyond 2^53-1 for certain and must not cost a conversion.
_INTEGER_MAX_CHARS = 17
# Errors listed at most, so that a hostile body can't make a long answer.
MAX_ERRORS = 20


class _Repeated(dict[str, Any]):
    """An object in which a name stood twice; `repeated` holds those names."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    marked = _Repeated(plain)
    counts = Counter(name for name, _ in pairs)
    marked.repeated = tuple(name for name, count in counts.items() if count > 1)[:MAX_ERRORS]
    return marked


def _integer(text: str) -> int:
    return int(text) if len(text) <= _INTEGER_MAX_CHARS else MAX_FEN + 1


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant, strict=True
)


def _text_is_clean(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _complaints(value: Any, pointer: str, depth: int, found: list[FieldError]) -> None:
    """Append what is wrong inside `value`, at most MAX_ERRORS of it."""
    if len(found) >= MAX_ERRORS:
        return
    if depth > MAX_DEPTH:
        found.append(FieldError(pointer, FieldCode.TOO_DEEP, f"More than {MAX_DEPTH} levels."))
    elif isinstance(value, str):
        if not _text_is_clean(value):
            found.append(
                FieldError(
                    pointer, FieldCode.FORBIDDEN_CHARACTER, "Holds a NUL or half a surrogate pair."
                )
            )
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -MAX_FEN <= value <= MAX_FEN:
            found.append(
                FieldError(pointer, FieldCode.OUT_OF_RANGE, "Integers must lie within ±(2^53-1).")
            )
    elif isinstance(value, float):
        if not math.isfinite(value):
            found.append(FieldError(pointer, FieldCode.OUT_OF_RANGE, "Too large a number."))
    elif isinstance(value, dict):
        _complaints_of_object(value, pointer, depth, found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _complaints(item, f"{pointer}/{index}", depth + 1, found)


def _complaints_of_object(
    value: dict[str, Any], pointer: str, depth: int, found: list[FieldError]
) -> None:
    if isinstance(value, _Repeated):
        found.extend(
            FieldError(
                f"{pointer}/{escape(_printable(name))}",
                FieldCode.DUPLICATE_FIELD,
                "The name stands twice in the object.",
            )
            for name in value.repeated
        )
    for name, item in value.items():
        if not _text_is_clean(name):
            found.append(
                FieldError(
                    pointer,
                    FieldCode.FORBIDDEN_CHARACTER,
                    "A name holds a NUL or half a surrogate pair.",
                )
            )
        else:
            _complaints(item, f"{pointer}/{escape(_printable(name))}", depth + 1, found)


def _printable(name: str) -> str:
    """A name as far as it may be repeated in an answer."""
    return name.encode("utf-8", "replace").decode()[:64]


def too_large(limit: int) -> ProblemError:
    return ProblemError(413, Code.TOO_LARGE, f"This route takes bodies of up to {limit} bytes.")


def decode_object(raw: bytes, limit: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The JSON object in `raw`. ProblemError 400, 413 or 422 otherwise."""
    if len(raw) > limit:
        raise too_large(limit)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ProblemError(400, Code.MALFORMED, "The body is not valid UTF-8.") from None
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise invalid(
            FieldError("", FieldCode.TOO_DEEP, f"More than {MAX_DEPTH} levels.")
        ) from None
    except ValueError:
        raise ProblemError(400, Code.MALFORMED, "The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise invalid(FieldError("", FieldCode.WRONG_TYPE, "The body must be a JSON object."))
    found: list[FieldError] = []
    _complaints(value, "", 0, found)
    if found:
        raise invalid(*found[:MAX_ERRORS])
    return value


class OrjsonParser(BaseParser):
    """DRF's parser. A view may set `max_body_bytes`."""

    media_type = MEDIA_TYPE

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        view = (parser_context or {}).get("view")
        limit = int(getattr(view, "max_body_bytes", MAX_BODY_BYTES))
        # One byte more than allowed is enough to know.
        return decode_object(stream.read(limit + 1), limit)


class OrjsonRenderer(BaseRenderer):
    """DRF's renderer: msgspec structs and plain data, integers of any size kept whole."""

    media_type = MEDIA_TYPE
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        if data is None:
            return b""
        if isinstance(data, msgspec.Struct):
            return msgspec.json.encode(data)
        return orjson.dumps(data, default=msgspec.to_builtins)
