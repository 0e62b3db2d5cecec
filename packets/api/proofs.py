"""The proof of a packet as the API gives it: the record's head and one page of its claims."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.core import signing

from engine.lib.pages import CURSOR_MAX_CHARS
from engine.lib.problem import Code, FieldCode, FieldError, ProblemError, invalid
from packets import revealed
from packets.models import Packet

SALT = "laisee.proof"


def proof_document(packet: Packet, request: Any) -> dict[str, Any]:
    """ProblemError 409 until the packet is closed for good, 422 for a cursor of another list."""
    if not revealed.is_revealed(packet):
        raise ProblemError(
            409, Code.CONFLICT, "The proof is published when the packet is closed for good."
        )
    salt = f"{SALT}:{packet.id.hex}"
    claims, following = revealed.record_claims(packet, _place(request, salt))
    return {
        **revealed.record_head(packet),
        "claims": claims,
        "next": _url(request, salt, following) if following else None,
    }


def _place(request: Any, salt: str) -> revealed.Place:
    cursor = request.GET.get("cursor")
    if cursor is None:
        return revealed.Place()
    try:
        if len(cursor) > CURSOR_MAX_CHARS:
            raise signing.BadSignature("too long")
        lane, position = signing.loads(cursor, salt=salt)
    except (signing.BadSignature, ValueError):
        raise invalid(
            FieldError(
                "?cursor", FieldCode.WRONG_FORMAT, "Not a cursor of this proof; start without one."
            )
        ) from None
    return revealed.Place(lane, position)


def _url(request: Any, salt: str, place: revealed.Place) -> str:
    cursor = signing.dumps([place.lane, place.position], salt=salt)
    url: str = request.build_absolute_uri(f"{request.path}?{urlencode({'cursor': cursor})}")
    return url
