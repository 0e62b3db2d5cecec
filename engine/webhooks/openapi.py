"""The `webhooks` of the OpenAPI document: what is sent for each kind, and what a receiver answers.

Written out here, for drf-spectacular leaves webhooks' headers and their components away.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from engine.lib.openapi import REF
from engine.webhooks.models import EventKind
from engine.webhooks.shapes import SHAPES, Moment

Id = Annotated[str, msgspec.Meta(description="The `webhook-id`: the same at every attempt.")]

_HEADERS = [
    {"name": name, "in": "header", "required": True, "schema": {"type": "string"},
     "description": text}
    for name, text in (
        ("webhook-id", "Names the event for ever. What you have seen already, ignore."),
        ("webhook-timestamp", "Seconds since 1970, of this attempt."),
        ("webhook-signature", "`v1,<base64>`, one for each secret that is good now, by spaces."),
    )
]  # fmt: skip
_ANSWERS = {
    "2XX": {"description": "Received; it is not sent again."},
    "410": {"description": "Send no more: the endpoint is switched off."},
    "default": {"description": "It is sent again, for three days, ever more seldom."},
}


def _envelope(kind: EventKind) -> type[msgspec.Struct]:
    data: Any = SHAPES[kind]
    fields = [("id", Id), ("type", Literal[kind.value]), ("timestamp", Moment), ("data", data)]
    return msgspec.defstruct(f"{data.__name__}Event", fields, kw_only=True)


def webhooks(result: dict[str, Any], **_options: Any) -> dict[str, Any]:
    """Postprocessing hook: adds the webhooks and their components."""
    envelopes = {kind: _envelope(kind) for kind in EventKind}
    _, parts = msgspec.json.schema_components(envelopes.values(), ref_template=REF)
    result.setdefault("components", {}).setdefault("schemas", {}).update(parts)
    result["webhooks"] = {
        kind.value: {
            "post": {
                "operationId": kind.value.replace(".", "_"),
                "summary": SHAPES[kind].__doc__,
                "tags": ["webhooks"],
                "security": [],
                "parameters": _HEADERS,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": REF.format(name=envelope.__name__)}}
                    },
                },
                "responses": _ANSWERS,
            }
        }
        for kind, envelope in envelopes.items()
    }
    return result
