"""Writes of the kernel: client apps' keys are made, rotated and revoked here, and audited.

A key's secret is returned once, by the call that made it, and can't be read again by anybody.
Rotation makes a new key beside the old one and lets the old one live for a grace period, so that a
client app can switch without refusing anybody.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.db import IntegrityError, transaction
from django.utils.translation import gettext_lazy as _

from engine.lib import auth, clock, crypto
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from engine.lib.ids import subject_is_valid
from engine.models import ApiKey, ClientApp, ClientKey

# Bytes; RFC 7518 asks for at least the hash's size.
HS256_SECRET_BYTES = 32
HS256_SECRET_MAX_BYTES = 512
KID_RANDOM_BYTES = 6
# Rotation leaves the old API key this long by default: a deployment's worth of time.
ROTATION_GRACE = dt.timedelta(hours=24)


@dataclass(frozen=True)
class NewClientKey:
    """`secret` is the HS256 secret; empty for an EdDSA key, whose private half is the app's own."""

    key: ClientKey
    secret: str


@dataclass(frozen=True)
class NewApiKey:
    key: ApiKey
    secret: str  # the whole key, as it goes after `Api-Key `


def client_app_create(*, slug: str, name: str, actor: str, request: Any = None) -> ClientApp:
    with transaction.atomic():
        if ClientApp.objects.filter(slug=slug).exists():
            raise ServiceError(
                "slug", "taken", _("There is a client app %(slug)s already."), slug=slug
            )
        app = ClientApp.objects.create(slug=slug, name=name)
        audit_record(
            actor=actor,
            action="client_app.create",
            object_type="client_app",
            object_id=app.slug,
            after={"name": name},
            request=request,
        )
    return app


def client_app_set_active(
    *, client_app: ClientApp, active: bool, actor: str, reason: str = "", request: Any = None
) -> bool:
    """Lets an app's callers in or keeps them out; False where that was so already."""
    with transaction.atomic():
        changed = ClientApp.objects.filter(pk=client_app.pk, active=not active).update(
            active=active
        )
        if changed:
            audit_record(
                actor=actor,
                action="client_app.activate" if active else "client_app.deactivate",
                object_type="client_app",
                object_id=client_app.slug,
                before={"active": not active},
                after={"active": active},
                reason=reason,
                request=request,
            )
    _keys_changed()
    return bool(changed)


def client_key_create(
    *,
    client_app: ClientApp,
    actor: str,
    kid: str | None = None,
    secret: str | None = None,
    public_key: str = "",
    label: str = "",
    request: Any = None,
) -> NewClientKey:
    """A key for the app's tokens: HS256, or EdDSA where `public_key` (PEM, Ed25519) is given."""
    alg = ClientKey.Algorithm.EDDSA if public_key else ClientKey.Algorithm.HS256
    kid = kid or f"{client_app.slug[:32]}-{secrets.token_hex(KID_RANDOM_BYTES)}"
    if public_key:
        public_key_check(public_key)
        if secret is not None:
            raise ServiceError("secret", "not_used", _("An EdDSA key has no shared secret."))
        secret = ""
    else:
        secret = secret or secrets.token_urlsafe(HS256_SECRET_BYTES)
        if not HS256_SECRET_BYTES <= len(secret.encode()) <= HS256_SECRET_MAX_BYTES:
            raise ServiceError(
                "secret",
                "length",
                _("An HS256 secret has %(least)s to %(most)s bytes."),
                least=HS256_SECRET_BYTES,
                most=HS256_SECRET_MAX_BYTES,
            )
    try:
        with transaction.atomic():
            key = ClientKey.objects.create(
                kid=kid,
                client_app=client_app,
                alg=alg,
                secret_encrypted=crypto.encrypt(secret.encode()) if secret else "",
                public_key=public_key,
                label=label,
            )
            audit_record(
                actor=actor,
                action="client_key.create",
                object_type="client_key",
                object_id=kid,
                after={"client_app": client_app.slug, "alg": alg.value, "label": label},
                request=request,
            )
    except IntegrityError:
        raise ServiceError(
            "kid", "taken", _("There is a client key %(kid)s already."), kid=kid
        ) from None
    _keys_changed()
    return NewClientKey(key, secret)


def public_key_check(pem: str) -> None:
    """ServiceError where `pem` is no Ed25519 public key."""
    try:
        fits = isinstance(load_pem_public_key(pem.encode()), Ed25519PublicKey)
    except (ValueError, UnsupportedAlgorithm):
        fits = False
    if not fits:
        raise ServiceError("public_key", "format", _("This is no Ed25519 public key in PEM."))


def client_key_rotate(*, key: ClientKey, actor: str, request: Any = None) -> NewClientKey:
    """A new HS256 key for the same app; the old one stays good until it is revoked."""
    if key.alg != ClientKey.Algorithm.HS256:
        raise ServiceError(
            "key", "not_ours", _("An EdDSA key is rotated by uploading the next one.")
        )
    if key.revoked_at is not None:
        raise ServiceError("key", "revoked", _("A revoked key has no successor; make a new key."))
    return client_key_create(
        client_app=key.client_app, actor=actor, label=key.label, request=request
    )


def client_key_revoke(*, key: ClientKey, actor: str, reason: str = "", request: Any = None) -> bool:
    """Refuse its tokens from now on (other processes: within KEYS_MAX_AGE_S). False: it was so."""
    moment = clock.now()
    with transaction.atomic():
        changed = ClientKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=moment)
        if changed:
            audit_record(
                actor=actor,
                action="client_key.revoke",
                object_type="client_key",
                object_id=key.kid,
                after={"revoked_at": clock.rfc3339(moment)},
                reason=reason,
                request=request,
            )
    _keys_changed()
    return bool(changed)


def _keys_changed() -> None:
    # Now for what this transaction sees, and at its commit for what the others will.
    auth.key_ring.forget()
    transaction.on_commit(auth.key_ring.forget)


def api_key_create(
    *,
    client_app: ClientApp,
    scopes: Sequence[str],
    name: str,
    actor: str,
    expires_at: dt.datetime | None = None,
    entropy: bytes | None = None,
    request: Any = None,
) -> NewApiKey:
    """A key for the app's back end. `entropy` (38 bytes) only where it must be derived."""
    unknown = set(scopes) - set(ApiKey.Scope.values)
    if unknown or not scopes:
        raise ServiceError(
            "scopes",
            "choice",
            _("This must be one of %(choices)s."),
            choices=", ".join(ApiKey.Scope.values),
        )
    if expires_at is not None and expires_at <= clock.now():
        raise ServiceError("expires_at", "past", _("The key would have expired already."))
    text = auth.api_key_text(entropy or secrets.token_bytes(auth.API_KEY_ENTROPY_BYTES))
    with transaction.atomic():
        key = ApiKey.objects.create(
            client_app=client_app,
            prefix=auth.api_key_prefix(text),
            hash=auth.api_key_hash(text),
            scopes=sorted(set(scopes)),
            name=name,
            expires_at=expires_at,
        )
        audit_record(
            actor=actor,
            action="api_key.create",
            object_type="api_key",
            object_id=key.prefix,
            after={"client_app": client_app.slug, "scopes": key.scopes, "name": name},
            request=request,
        )
    return NewApiKey(key, text)


def api_key_rotate(
    *, key: ApiKey, actor: str, grace: dt.timedelta = ROTATION_GRACE, request: Any = None
) -> NewApiKey:
    """A new key with the same scopes; the old one expires after `grace`."""
    moment = clock.now()
    if key.revoked_at is not None:
        raise ServiceError("key", "revoked", _("A revoked key has no successor; make a new key."))
    if key.expires_at is not None and key.expires_at <= moment:
        raise ServiceError("key", "expired", _("An expired key has no successor; make a new key."))
    ends = moment + grace
    with transaction.atomic():
        made = api_key_create(
            client_app=key.client_app,
            scopes=key.scopes,
            name=key.name,
            actor=actor,
            request=request,
        )
        # An earlier end that was set already stays.
        ends = min(ends, key.expires_at) if key.expires_at else ends
        ApiKey.objects.filter(pk=key.pk).update(expires_at=ends)
        audit_record(
            actor=actor,
            action="api_key.rotate",
            object_type="api_key",
            object_id=key.prefix,
            after={"successor": made.key.prefix, "expires_at": clock.rfc3339(ends)},
            request=request,
        )
    return made


def api_key_revoke(*, key: ApiKey, actor: str, reason: str = "", request: Any = None) -> bool:
    """Refuse the key from the next request on. False where it was revoked already."""
    moment = clock.now()
    with transaction.atomic():
        changed = ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=moment)
        if changed:
            audit_record(
                actor=actor,
                action="api_key.revoke",
                object_type="api_key",
                object_id=key.prefix,
                after={"revoked_at": clock.rfc3339(moment)},
                reason=reason,
                request=request,
            )
    return bool(changed)


def mint_client_token(
    *,
    client_app_id: int,
    subject: str,
    device: str = "",
    group: str = "",
    is_new: bool | None = None,
    account_age_days: int | None = None,
    ttl_s: int = auth.MAX_TTL_S,
    now: dt.datetime | None = None,
) -> str:
    """A client token for the app's user, signed with the newest HS256 key that we hold."""
    if not subject_is_valid(subject):
        raise ServiceError("user", "format", _("A user id is 1 to 128 printable characters."))
    for name, value in (("device", device), ("group", group)):
        if value and (len(value) > auth.LABEL_MAX_CHARS or not value.isprintable()):
            raise ServiceError(name, "format", _("This is 1 to 128 printable characters."))
    if not 1 <= ttl_s <= auth.MAX_TTL_S:
        raise ServiceError(
            "ttl_s",
            "out_of_range",
            _("A token lives 1 to %(most)s seconds."),
            most=auth.MAX_TTL_S,
        )
    if account_age_days is not None and not 0 <= account_age_days <= auth.ACCOUNT_AGE_MAX_DAYS:
        raise ServiceError("account_age_days", "out_of_range", _("An age is 0 days or more."))
    key = (
        ClientKey.objects.filter(
            client_app_id=client_app_id,
            client_app__active=True,
            alg=ClientKey.Algorithm.HS256,
            revoked_at=None,
        )
        .order_by("-created_at", "-id")
        .first()
    )
    if key is None:
        raise ServiceError(
            "client_app", "no_key", _("The client app has no HS256 key to sign with.")
        )
    claims: dict[str, Any] = {
        "sub": subject,
        "aud": auth.AUDIENCE,
        "exp": int((now or clock.now()).timestamp()) + ttl_s,
    }
    optional = {
        "dev": device or None,
        "grp": group or None,
        "new": is_new,
        "acct": account_age_days,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    return auth.sign_client_token(
        kid=key.kid, alg=key.alg, material=crypto.decrypt(key.secret_encrypted), claims=claims
    )
