"""Request bodies as msgspec structs: one declaration validates them and documents them.

    class ClaimBody(Body):
        ticket: str | UnsetType = UNSET

    body = parse_body(request, ClaimBody)

A struct that inherits `Body` refuses unknown fields; its JSON schema carries the same bounds
(`additionalProperties: false`), so the OpenAPI document can't promise what the code refuses.
Answers may be plain structs; the renderer writes them as they are.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from rest_framework.request import Request

from engine.lib.problem import FieldCode, FieldError, ProblemError, escape, invalid


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The base of every request body."""


StructType = TypeVar("StructType", bound=msgspec.Struct)

_PLACE = re.compile(r"^(?P<text>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


def parse_body(request: Request, struct: type[StructType]) -> StructType:
    """The request's body as `struct`. ProblemError: 400, 413, 415 or 422."""
    return to_struct(request.data, struct)


def to_struct(data: Any, struct: type[StructType]) -> StructType:
    """`data`, decoded by `engine.lib.renderers.decode_object`, as `struct`; pure, for any door."""
    try:
        return msgspec.convert(data, struct, strict=True)
    except msgspec.ValidationError as error:
        raise refusal(str(error)) from None


def refusal(message: str) -> ProblemError:
    """msgspec's message as a 422 with a JSON pointer."""
    match = _PLACE.match(message)
    assert match is not None
    text = match["text"]
    steps = [
        f"/{escape(name)}" if name else f"/{index}" if index else "/…"
        for name, index in _STEP.findall(match["path"] or "")
    ]
    pointer = "".join(steps)
    if field := _FIELD.match(text):
        code = (
            FieldCode.REQUIRED if field["what"] == "missing required" else FieldCode.UNKNOWN_FIELD
        )
        pointer += f"/{escape(field['name'][:64])}"
        detail = (
            "This field is required."
            if code is FieldCode.REQUIRED
            else "This route does not know this field."
        )
    else:
        code, detail = _code_of(text), f"{text}."
    return invalid(FieldError(pointer, code, detail))


def _code_of(text: str) -> FieldCode:
    if "of length" in text:
        return FieldCode.WRONG_LENGTH
    if "matching regex" in text or text.startswith("Invalid RFC3339"):
        return FieldCode.WRONG_FORMAT
    if text.startswith("Invalid enum value"):
        return FieldCode.UNKNOWN_CHOICE
    if re.search(r"[<>]=? ", text) or "multiple of" in text or "out of range" in text:
        return FieldCode.OUT_OF_RANGE
    if text.startswith("Expected"):
        return FieldCode.WRONG_TYPE
    return FieldCode.INVALID
