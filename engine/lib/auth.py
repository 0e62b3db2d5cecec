"""Who calls: participants by signed client tokens, back ends by API keys.

`verify_client_token` is pure and serves every door: token, keys and time in, a `Caller` out, a 401
problem otherwise. The algorithm is the key's, never the token's word. A participant is (client app,
`sub`); the client app is the key's, so no app can speak for another's users.

Keys are held by the process and read again every few seconds: a claim costs no look-up, and a
revoked key is refused within `KEYS_MAX_AGE_S`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.db import DatabaseError
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from engine.lib import clock, crypto
from engine.lib.ids import participant_digest, subject_is_valid
from engine.lib.logs import get_logger
from engine.lib.problem import DEPENDENCY_ERRORS, Code, ProblemError

AUDIENCE = "laisee"
MAX_TTL_S = 900  # the contract's bound on how far ahead `exp` may lie
# Seconds by which an app's clock may run ahead of ours. It never prolongs a token's life.
CLOCK_LEEWAY_S = 30
# Characters; our own tokens have about 300, the longest `sub`, `dev` and `grp` make 2,400.
TOKEN_MAX_CHARS = 4096
LABEL_MAX_CHARS = 128  # `dev` and `grp`
# Days; a thousand years, so that the number fits every column that it may meet.
ACCOUNT_AGE_MAX_DAYS = 365_000

# Seconds for which keys are taken from memory.
KEYS_MAX_AGE_S = 3.0
# Unknown key ids per second that may cause a look-up each; a flood of forged ids costs no more.
UNKNOWN_KID_RELOADS_PER_S = 10
# Seconds between two notes of an API key's use; `last_used_at` is for people.
LAST_USED_EVERY_S = 60

# What may go wrong while reading keys again without anybody being refused for it.
REFRESH_ERRORS: tuple[type[Exception], ...] = (DatabaseError, *DEPENDENCY_ERRORS)

API_KEY_ENTROPY_BYTES = 38  # 6 for the public prefix, 32 for the secret
_API_KEY_PREFIX_BYTES = 6

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """A participant, as a client token says."""

    client_app_id: int
    subject: str
    participant: bytes  # 16 bytes, engine.lib.ids.participant_digest
    device: str = ""
    group: str = ""
    is_new: bool | None = None
    account_age_days: int | None = None

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def principal(self) -> str:
        """Whose Idempotency-Keys these are."""
        return f"client:{self.participant.hex()}"


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """A client app's back end, as an API key says."""

    client_app_id: int
    key_id: int
    scopes: frozenset[str]

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def principal(self) -> str:
        # The app, not the key: a rotation in the middle of a retry must not pay twice.
        return f"app:{self.client_app_id}"


@dataclass(frozen=True, slots=True)
class VerificationKey:
    kid: str
    client_app_id: int
    alg: str  # HS256 or EdDSA
    material: bytes | Ed25519PublicKey


class Keys(Protocol):
    """Keys by kid: a mapping, or the ring that reads them from the database."""

    def get(self, kid: str, /) -> VerificationKey | None: ...


def _challenge(scheme: str, error: str = "") -> dict[str, str]:
    return {
        "WWW-Authenticate": f'{scheme} realm="laisee"' + (f', error="{error}"' if error else "")
    }


def _refuse(detail: str) -> NoReturn:
    raise ProblemError(
        401, Code.INVALID_TOKEN, detail, headers=_challenge("Bearer", "invalid_token")
    )


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse(f"`{name}` must be a number of seconds since 1970.")
    return float(value)


def _label(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not (
        0 < len(value) <= LABEL_MAX_CHARS and value.isprintable()
    ):
        _refuse(f"`{name}` must be 1 to {LABEL_MAX_CHARS} printable characters.")
    return value


def token_kid(token: str) -> str:
    """The key id that a token names; nothing about it has been verified yet."""
    if len(token) > TOKEN_MAX_CHARS or not token.isascii():
        _refuse("The token is too long or not a JWT.")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        _refuse("The token is not a JWT.")
    kid = header.get("kid")
    if not isinstance(kid, str):
        _refuse("The token names no key (`kid`).")
    return kid


def verify_client_token(token: str, keys: Keys, now: dt.datetime) -> Caller:
    """The caller behind `token` at `now`; `keys` is by kid. ProblemError 401 otherwise."""
    key = keys.get(token_kid(token))
    if key is None:
        _refuse("The token's key is not known.")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[key.alg],
            audience=AUDIENCE,
            options={
                "require": ["exp", "aud", "sub"],
                # Times are judged below, by the `now` that was passed in.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        # One text for all: a forger learns nothing about which part was wrong.
        _refuse("The token's signature, audience or required claims are wrong.")
    seconds = now.timestamp()
    expires = _moment(claims, "exp")
    if expires is None or expires <= seconds:
        _refuse("The token has expired.")
    if expires > seconds + MAX_TTL_S + CLOCK_LEEWAY_S:
        _refuse(f"`exp` lies more than {MAX_TTL_S} seconds ahead.")
    starts = _moment(claims, "nbf")
    if starts is not None and starts > seconds + CLOCK_LEEWAY_S:
        _refuse("The token is not valid yet.")
    return caller_of(key.client_app_id, claims)


def caller_of(client_app_id: int, claims: Mapping[str, Any]) -> Caller:
    """The caller that verified claims name. ProblemError 401 where one is of a wrong kind."""
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject_is_valid(subject):
        _refuse("`sub` must be 1 to 128 printable characters.")
    is_new = claims.get("new")
    if is_new is not None and not isinstance(is_new, bool):
        _refuse("`new` must be true or false.")
    age = claims.get("acct")
    if age is not None and (
        isinstance(age, bool) or not isinstance(age, int) or not 0 <= age <= ACCOUNT_AGE_MAX_DAYS
    ):
        _refuse("`acct` must be a whole number of days.")
    return Caller(
        client_app_id=client_app_id,
        subject=subject,
        participant=participant_digest(client_app_id, subject),
        device=_label(claims, "dev"),
        group=_label(claims, "grp"),
        is_new=is_new,
        account_age_days=age,
    )


def keys_load() -> dict[str, VerificationKey]:
    """All keys that may sign now, from the database."""
    from engine.models import ClientKey

    keys: dict[str, VerificationKey] = {}
    rows = ClientKey.objects.filter(revoked_at=None, client_app__active=True)
    for row in rows.only("kid", "client_app_id", "alg", "secret_encrypted", "public_key"):
        try:
            material = _material(row.alg, row.secret_encrypted, row.public_key)
        except (crypto.UnreadableSecret, ValueError, UnsupportedAlgorithm) as error:
            # One unreadable key must not lock out every other app.
            logger.error("client key unusable", kid=row.kid, reason=str(error))
            continue
        keys[row.kid] = VerificationKey(row.kid, row.client_app_id, row.alg, material)
    return keys


def _material(alg: str, secret_encrypted: str, public_key: str) -> bytes | Ed25519PublicKey:
    if alg == "HS256":
        return crypto.decrypt(secret_encrypted)
    key = load_pem_public_key(public_key.encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")
    return key


class KeyRing:
    """The keys of a process: at most KEYS_MAX_AGE_S old, and read early for an unknown kid."""

    def __init__(self) -> None:
        self._keys: dict[str, VerificationKey] | None = None
        self._read_at = 0.0
        self._lock = threading.Lock()
        self._window = 0
        self._reloads = 0

    def forget(self) -> None:
        """Read again at the next use; services that change keys call this."""
        self._read_at = 0.0
        self._keys = None

    def get(self, kid: str, /) -> VerificationKey | None:
        """The key named `kid`, from memory wherever possible."""
        keys = self._keys
        if keys is None:
            with self._lock:
                keys = self._keys if self._keys is not None else self._read()
        elif time.monotonic() - self._read_at > KEYS_MAX_AGE_S:
            keys = self._refresh(keys)
        if kid not in keys and self._may_reload():
            keys = self._refresh(keys)
        return keys.get(kid)

    def peek(self, kid: str) -> VerificationKey | None:
        """The key named `kid`, where what is remembered is fresh and has it; nothing is read."""
        keys = self._keys
        if keys is None or time.monotonic() - self._read_at > KEYS_MAX_AGE_S:
            return None
        return keys.get(kid)

    def _refresh(self, known: dict[str, VerificationKey]) -> dict[str, VerificationKey]:
        """Read again, unless another thread is at it; keep what is known where Postgres is down."""
        if not self._lock.acquire(blocking=False):
            return known
        try:
            return self._read()
        except REFRESH_ERRORS as error:
            # A claim needs Postgres anyway, so old keys can't pay anybody in the meantime.
            logger.warning("client keys not refreshed", error=type(error).__name__)
            self._read_at = time.monotonic()
            return known
        finally:
            self._lock.release()

    def _read(self) -> dict[str, VerificationKey]:
        self._keys = keys_load()
        self._read_at = time.monotonic()
        return self._keys

    def _may_reload(self) -> bool:
        window = int(time.monotonic())
        if window != self._window:
            self._window, self._reloads = window, 0
        self._reloads += 1
        return self._reloads <= UNKNOWN_KID_RELOADS_PER_S


key_ring = KeyRing()


def _credentials(request: Request, scheme: str) -> str | None:
    """What follows `scheme` in Authorization, or None where another scheme (or none) is used."""
    header: str = request.META.get("HTTP_AUTHORIZATION", "")
    found, _, rest = header.partition(" ")
    return rest.strip() if found.lower() == scheme.lower() else None


class ClientTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer <JWT>`; `request.user` is a Caller."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        token = _credentials(request, "Bearer")
        if token is None:
            return None
        return verify_client_token(token, key_ring, clock.now()), None

    def authenticate_header(self, request: Request) -> str:
        return _challenge("Bearer")["WWW-Authenticate"]


def api_key_text(entropy: bytes) -> str:
    """`laisee_<12 hex digits>_<64 hex digits>`: the public prefix, then 256 secret bits."""
    if len(entropy) != API_KEY_ENTROPY_BYTES:
        raise ValueError(f"an API key is made of {API_KEY_ENTROPY_BYTES} bytes")
    prefix, secret = entropy[:_API_KEY_PREFIX_BYTES], entropy[_API_KEY_PREFIX_BYTES:]
    return f"laisee_{prefix.hex()}_{secret.hex()}"


def api_key_prefix(key: str) -> str:
    """The public part; the empty text where the key can't be one of ours."""
    parts = key.split("_")
    return parts[1] if len(parts) == 3 and parts[0] == "laisee" and len(parts[1]) == 12 else ""


def api_key_hash(key: str) -> str:
    """SHA-256 without salt: the key has 256 random bits, so there is nothing to guess."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Api-Key <key>`; `request.user` is an ApiCaller."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        key = _credentials(request, "Api-Key")
        if key is None:
            return None
        return self._verify(key), None

    def authenticate_header(self, request: Request) -> str:
        return _challenge("Api-Key")["WWW-Authenticate"]

    def _verify(self, key: str) -> ApiCaller:
        from engine.models import ApiKey

        now = clock.now()
        prefix = api_key_prefix(key)
        row = (
            ApiKey.objects.select_related("client_app").filter(prefix=prefix).first()
            if prefix.isascii() and prefix.isalnum()
            else None
        )
        # Compared in constant time and always, so that timing says nothing about a prefix.
        genuine = hmac.compare_digest(row.hash if row else "0" * 64, api_key_hash(key))
        if row is None or not genuine:
            self._refuse("This API key is not known.")
        if row.revoked_at is not None or not row.client_app.active:
            self._refuse("This API key is revoked.")
        if row.expires_at is not None and row.expires_at <= now:
            self._refuse("This API key has expired.")
        stale = now - dt.timedelta(seconds=LAST_USED_EVERY_S)
        if row.last_used_at is None or row.last_used_at < stale:
            ApiKey.objects.filter(pk=row.pk).update(last_used_at=now)
        return ApiCaller(row.client_app_id, row.pk, frozenset(row.scopes))

    @staticmethod
    def _refuse(detail: str) -> NoReturn:
        raise ProblemError(
            401, Code.INVALID_API_KEY, detail, headers=_challenge("Api-Key", "invalid_key")
        )


class _ScopePermission(BasePermission):
    scope = ""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller = request.user
        if not isinstance(caller, ApiCaller):
            # No credentials of the right kind: DRF answers 401 with the challenge.
            return False
        if self.scope not in caller.scopes:
            raise ProblemError(
                403, Code.MISSING_SCOPE, f"This API key lacks the scope `{self.scope}`."
            )
        return True


def HasScope(scope: str) -> type[BasePermission]:
    """`permission_classes = [HasScope("ops")]`: the caller is a back end with this scope."""
    return type(f"HasScope_{scope}", (_ScopePermission,), {"scope": scope})


class IsParticipant(BasePermission):
    """The caller is a participant (a client token was verified)."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return isinstance(request.user, Caller)


def sign_client_token(*, kid: str, alg: str, material: Any, claims: Mapping[str, Any]) -> str:
    """A signed client token; the inverse of `verify_client_token`, for mints and tests."""
    return jwt.encode(dict(claims), material, algorithm=alg, headers={"kid": kid})


def scopes_known() -> tuple[str, ...]:
    """Every scope that an API key can have."""
    from engine.models import ApiKey

    return tuple(ApiKey.Scope.values)
