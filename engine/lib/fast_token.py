"""The plain case of a client token, for the door that sees ten thousand a second.

`verify` accepts a token signed with HS256 whose claims are of the expected types, and nothing that
`engine.lib.auth.verify_client_token` wouldn't accept with the same caller; for everything else it
returns None, and the general verifier decides (and words the refusal). It costs about 10 µs where
the general one costs 90; a token that was accepted before costs a look into a dictionary, as long
as it has not expired and its key is the one that it was accepted under.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import re

import msgspec

from engine.lib.auth import (
    AUDIENCE,
    MAX_TTL_S,
    TOKEN_MAX_CHARS,
    Caller,
    VerificationKey,
    caller_of,
)
from engine.lib.problem import ProblemError

MAX_HEADERS = 1_000  # distinct token headers remembered: one for each key of each library
# Accepted tokens remembered by one process, and the longest of them: at most 60 MB together. When
# there are more, all are forgotten: keeping them in order of use would cost every claim something.
MAX_ACCEPTED = 50_000
ACCEPTED_MAX_CHARS = 512
_SEGMENT = re.compile(r"[A-Za-z0-9_-]*\Z")


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str = "JWT"


class _Claims(msgspec.Struct, forbid_unknown_fields=True):
    """Other claims, or of other types, go the general way."""

    sub: str
    aud: str
    exp: int
    dev: str | None = None
    grp: str | None = None
    new: bool | None = None
    acct: int | None = None
    iat: int | None = None


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)
_kids: dict[str, str] = {}
_accepted: dict[str, tuple[VerificationKey, int, Caller]] = {}


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def kid_of(token: str) -> str | None:
    """The key that signed an HS256 token, by its header; None for another kind of token."""
    segment = token[: token.find(".")]
    kid = _kids.get(segment)
    if kid is None and _SEGMENT.match(segment):
        try:
            header = _header.decode(_decoded(segment))
        except (msgspec.DecodeError, binascii.Error, ValueError):
            return None
        if header.alg != "HS256" or header.typ.upper() != "JWT":
            return None
        if len(_kids) >= MAX_HEADERS:
            _kids.clear()
        kid = _kids[segment] = header.kid
    return kid


@functools.lru_cache(maxsize=MAX_HEADERS)
def _keyed(material: bytes) -> hmac.HMAC:
    """Copied for each token: unlike `hmac.digest`, which lets go of the interpreter's lock every
    time, a copy's update of a short text doesn't, so no other thread is woken for it."""
    return hmac.new(material, digestmod="sha256")


def verify(token: str, key: VerificationKey, now_s: float) -> Caller | None:
    """The caller behind a plain token of this key; None: ask the general verifier."""
    known = _accepted.get(token)
    if known is not None and now_s < known[1] and (known[0] is key or known[0] == key):
        return known[2]
    found = _verify(token, key, now_s)
    if found is None:
        return None
    expires, caller = found
    if len(token) <= ACCEPTED_MAX_CHARS:
        if len(_accepted) >= MAX_ACCEPTED:
            _accepted.clear()
        _accepted[token] = key, expires, caller
    return caller


def _verify(token: str, key: VerificationKey, now_s: float) -> tuple[int, Caller] | None:
    """(when it expires, who it names)."""
    if len(token) > TOKEN_MAX_CHARS or not token.isascii():
        return None
    signed, _, signature = token.rpartition(".")
    if key.alg != "HS256" or not isinstance(key.material, bytes):
        return None
    payload = signed[signed.find(".") + 1 :]
    if not (_SEGMENT.match(payload) and _SEGMENT.match(signature)):
        return None
    try:
        genuine = _keyed(key.material).copy()
        genuine.update(signed.encode())
        if not hmac.compare_digest(genuine.digest(), _decoded(signature)):
            return None
        claims = _claims.decode(_decoded(payload))
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return None
    if claims.aud != AUDIENCE or not now_s < claims.exp <= now_s + MAX_TTL_S:
        return None
    try:
        return claims.exp, caller_of(key.client_app_id, msgspec.structs.asdict(claims))
    except ProblemError:
        return None
