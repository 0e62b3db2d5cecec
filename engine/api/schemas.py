"""The shapes of the kernel's API."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.lib.auth import ACCOUNT_AGE_MAX_DAYS, LABEL_MAX_CHARS, MAX_TTL_S
from engine.lib.ids import SUBJECT_MAX_CHARS
from engine.lib.schema import Body

# No control characters, line breaks or unassigned code points; checked by the service.
PRINTABLE = {"format": "printable"}
Label = Annotated[str, Meta(min_length=1, max_length=LABEL_MAX_CHARS, extra_json_schema=PRINTABLE)]
User = Annotated[str, Meta(min_length=1, max_length=SUBJECT_MAX_CHARS, extra_json_schema=PRINTABLE)]


class TokenBody(Body):
    """`user` is the app's own id of the person; what is left out, the token doesn't claim."""

    user: User
    device: Label | UnsetType = UNSET
    group: Label | UnsetType = UNSET
    new: bool | UnsetType = UNSET
    account_age_days: Annotated[int, Meta(ge=0, le=ACCOUNT_AGE_MAX_DAYS)] | UnsetType = UNSET
    ttl_s: Annotated[int, Meta(ge=1, le=MAX_TTL_S)] | UnsetType = UNSET


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A client token, to be handed to that person's device."""

    token: str
