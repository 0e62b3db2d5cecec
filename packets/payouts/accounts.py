"""Writes provider accounts: their limits, whether they are used, and who may sign for us.

What is kept here: keys and addresses are used only after a second person has agreed, since whoever
sets them decides where the money goes; keys are encrypted before they reach a row, and neither the
audit log nor any screen repeats them. An account stays switched off until it has keys.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import zoneinfo
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.crypto import decrypt, encrypt
from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.money import MAX_FEN
from packets.models import ProviderAccount, ProviderChange
from packets.models.deciding import WORDS_MAX_CHARS
from packets.payouts.breaker import BY_HAND
from packets.payouts.identity import identity_check
from packets.providers import adapter_of, credential_fields, credentials_of, provider_of
from packets.providers.base import CredentialsMissing, ProviderUnavailable

# A million a minute: far beyond any provider, and a pause between two sends stays expressible.
MAX_RATE_PER_MINUTE = 1_000_000
MAX_PER_DAY = 1_000_000
MAX_GRACE_S = 86_400
MASK = "********"
# Nothing is tried meanwhile: a breaker that a person has opened is closed by a person.
NEVER = dt.timedelta(days=365 * 100)
State = ProviderChange.State
Breaker = ProviderAccount.Breaker


@dataclass(frozen=True)
class Limits:
    """What may be withdrawn through an account; None: no limit."""

    rate_per_minute: int | None = None
    min_fen: int = 1
    max_fen: int | None = None
    day_limit_fen: int | None = None
    person_day_fen: int | None = None
    person_day_count: int | None = None
    opens_at: dt.time | None = None
    closes_at: dt.time | None = None
    timezone: str = "Asia/Shanghai"
    grey_percent: int = 100
    review_above_fen: int | None = None
    not_found_grace_s: int = 600
    statement_after: dt.time | None = None
    client_apps: tuple[int, ...] = ()


def limits_check(limits: Limits) -> None:
    """Raises ServiceError that names the field."""
    bounds = {
        "rate_per_minute": (1, MAX_RATE_PER_MINUTE),
        "min_fen": (1, MAX_FEN),
        "max_fen": (limits.min_fen, MAX_FEN),
        "day_limit_fen": (limits.min_fen, MAX_FEN),
        "person_day_fen": (limits.min_fen, MAX_FEN),
        "person_day_count": (1, MAX_PER_DAY),
        "grey_percent": (0, 100),
        "review_above_fen": (0, MAX_FEN),
        "not_found_grace_s": (0, MAX_GRACE_S),
    }
    for field, (least, most) in bounds.items():
        value = getattr(limits, field)
        if value is None or least <= value <= most:
            continue
        if field.endswith("_fen") and least > 1:
            raise ServiceError(
                field,
                "bounds",
                _("This can't be below the smallest payout; nobody could withdraw."),
            )
        raise ServiceError(
            field, "bounds", _("This must be from %(least)s to %(most)s."), least=least, most=most
        )
    if (limits.opens_at is None) != (limits.closes_at is None):
        field = "opens_at" if limits.opens_at is None else "closes_at"
        raise ServiceError(field, "blank", _("A window has a beginning and an end."))
    if limits.opens_at is not None and limits.opens_at == limits.closes_at:
        raise ServiceError("closes_at", "empty", _("This window is never open."))
    try:
        zoneinfo.ZoneInfo(limits.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
        raise ServiceError("timezone", "unknown", _("There is no such time zone.")) from error


def provider_account_create(
    *, name: str, kind: str, limits: Limits, actor: str, reason: str = ""
) -> ProviderAccount:
    """A new account, switched off and without keys."""
    if kind not in ProviderAccount.Kind.values:
        raise ServiceError("kind", "unknown", _("There is no such provider."))
    limits_check(limits)
    with transaction.atomic():
        account, made = ProviderAccount.objects.get_or_create(
            name=name, defaults={"kind": kind, "is_active": False, **_columns(limits)}
        )
        if not made:
            raise ServiceError("name", "taken", _("Another account has this name."))
        _audit(account, actor, "create", after=_picture(account), reason=reason)
    return account


def provider_account_set(
    *, account_id: int, limits: Limits, actor: str, reason: str
) -> ProviderAccount:
    """Other limits, from now on; what was begun under the old ones goes on."""
    _reasoned(reason)
    limits_check(limits)
    with transaction.atomic():
        account = _locked(account_id)
        before = _picture(account)
        ProviderAccount.objects.filter(pk=account.pk).update(**_columns(limits), changed_at=Now())
        account.refresh_from_db()
        _audit(account, actor, "set", before=before, after=_picture(account), reason=reason)
    return account


def provider_account_switch(
    *, account_id: int, on: bool, actor: str, reason: str
) -> ProviderAccount:
    """Take withdrawals through it and send them, or neither; questions go on in either case."""
    _reasoned(reason)
    with transaction.atomic():
        account = _locked(account_id)
        if on and not account.credentials_encrypted:
            raise ServiceError("", "no_keys", _("It has no keys yet."))
        moved = ProviderAccount.objects.filter(pk=account.pk, is_active=not on).update(
            is_active=on, changed_at=Now()
        )
        if not moved:
            said = _("It is switched on already.") if on else _("It is switched off already.")
            raise ServiceError("", "same", said)
        account.is_active = on
        _audit(account, actor, "switch_on" if on else "switch_off", reason=reason)
    return account


def provider_breaker_stop(*, account_id: int, actor: str, reason: str) -> ProviderAccount:
    """Nothing new is sent until somebody closes the breaker; no success closes it by itself."""
    _reasoned(reason)
    with transaction.atomic():
        account = _locked(account_id)
        ProviderAccount.objects.filter(pk=account.pk).update(
            breaker=Breaker.OPEN, breaker_reason=BY_HAND, breaker_until=Now() + NEVER
        )
        _audit(account, actor, "breaker_stop", before=_standing(account), reason=reason)
    return account


def provider_breaker_close(*, account_id: int, actor: str, reason: str) -> ProviderAccount:
    """Sends go on at once; failures are counted from nothing."""
    _reasoned(reason)
    with transaction.atomic():
        account = _locked(account_id)
        closed = ProviderAccount.objects.filter(pk=account.pk, breaker=Breaker.OPEN).update(
            breaker=Breaker.CLOSED, breaker_reason="", breaker_until=None, failures=0
        )
        if not closed:
            raise ServiceError("", "same", _("It is closed already."))
        _audit(account, actor, "breaker_close", before=_standing(account), reason=reason)
    return account


def _standing(account: ProviderAccount) -> dict[str, Any]:
    return {"breaker": account.breaker, "why": account.breaker_reason}


# --- does it answer? ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """What an account said to two harmless questions; empty words: it answered as it should."""

    balance_fen: int | None
    balance_trouble: str
    query_trouble: str

    @property
    def good(self) -> bool:
        return not self.balance_trouble and not self.query_trouble


def provider_account_test(*, account_id: int, actor: str) -> Tested:
    """Ask for the balance, and for a number that nobody has ever used. No money can move.

    No transaction is open meanwhile; a balance that came is kept with its time.
    """
    account = ProviderAccount.objects.get(pk=account_id)
    balance_fen, balance_trouble = None, ""
    try:
        provider = provider_of(account)
    except CredentialsMissing as error:
        raise ServiceError("", "no_keys", _("Its keys can't be used: set them first.")) from error
    try:
        balance_fen = provider.balance()
    except ProviderUnavailable as error:
        balance_trouble = str(error) or "unavailable"
    found = provider.query(f"laisee{secrets.token_hex(13)}")
    # "No such number" proves that address, keys and clock are right; anything else does not.
    query_trouble = "" if found.not_found else f"{found.kind} {found.code} {found.detail}".strip()
    with transaction.atomic():
        account = _locked(account_id)
        if balance_fen is not None:
            ProviderAccount.objects.filter(pk=account_id).update(
                balance_fen=balance_fen, balance_at=Now()
            )
        _audit(account, actor, "test", after={"balance": balance_fen, "query": query_trouble})
    return Tested(balance_fen, balance_trouble, query_trouble)


# --- keys: one asks, another agrees ---------------------------------------------------------------


def provider_change_ask(
    *,
    account_id: int,
    base_url: str,
    credentials: Mapping[str, str],
    by: User,
    reason: str,
) -> ProviderChange:
    """Another address or other keys, once somebody else agrees. A field left empty stays as it is.

    They are encrypted here and read again only by the adapter.
    """
    _reasoned(reason)
    _check_url(base_url)
    with transaction.atomic():
        account = _locked(account_id)
        known = {field.name for field in credential_fields(account.kind)}
        typed = {name: text for name, text in credentials.items() if name in known and text}
        whole = {**credentials_of(account), **typed}
        if not typed and base_url == account.base_url:
            raise ServiceError("", "same", _("Nothing would change."))
        if ProviderChange.objects.filter(account=account, state=State.PENDING).exists():
            raise ServiceError("", "pending", _("Another change waits for its decision."))
        _check_usable(account.kind, base_url, whole)
        identity_check(account, whole)
        replaced = sorted(typed) + (["base_url"] if base_url != account.base_url else [])
        change = ProviderChange.objects.create(
            account=account,
            base_url=base_url,
            credentials_encrypted=encrypt(json.dumps(whole, sort_keys=True).encode()),
            replaced=replaced,
            requested_by=by,
            reason=reason,
        )
        _audit(
            account,
            _actor(by),
            "change_ask",
            before={"base_url": account.base_url},
            after={"change": change.pk, "base_url": base_url, **dict.fromkeys(sorted(typed), MASK)},
            reason=reason,
        )
    return change


def provider_change_approve(*, change_id: int, by: User) -> ProviderChange:
    """pending → approved, by somebody else; from the next call on these keys sign."""
    with transaction.atomic():
        change, account = _pending(change_id)
        if by.pk == change.requested_by_id:
            raise ServiceError("", "own_request", _("Nobody decides on what they asked for."))
        _decide(change, State.APPROVED, by, "")
        identity_check(account, json.loads(decrypt(change.credentials_encrypted)))
        ProviderAccount.objects.filter(pk=account.pk).update(
            base_url=change.base_url,
            credentials_encrypted=change.credentials_encrypted,
            changed_at=Now(),
        )
        after = {"change": change.pk, "base_url": change.base_url, "replaced": change.replaced}
        _audit(account, _actor(by), "change_approve", after=after, reason=change.reason)
    return ProviderChange.objects.get(pk=change_id)


def provider_change_reject(*, change_id: int, by: User, reason: str) -> ProviderChange:
    """pending → rejected; the keys that were typed are forgotten."""
    _reasoned(reason)
    with transaction.atomic():
        change, account = _pending(change_id)
        _decide(change, State.REJECTED, by, reason)
        _audit(account, _actor(by), "change_reject", after={"change": change.pk}, reason=reason)
    return ProviderChange.objects.get(pk=change_id)


def provider_change_withdraw(*, change_id: int, by: User) -> ProviderChange:
    """pending → withdrawn, by the one who asked."""
    with transaction.atomic():
        change, account = _pending(change_id)
        if by.pk != change.requested_by_id:
            raise ServiceError("", "not_yours", _("Only who asked may withdraw it."))
        _decide(change, State.WITHDRAWN, by, "")
        _audit(account, _actor(by), "change_withdraw", after={"change": change.pk})
    return ProviderChange.objects.get(pk=change_id)


def key_id_of(stored: str) -> str:
    """Under which of ENCRYPTION_KEYS it is kept."""
    return stored.partition(":")[0]


# --- inside ---------------------------------------------------------------------------------------


def _check_url(base_url: str) -> None:
    if not base_url:
        return
    wrong = ServiceError("base_url", "wrong", _("Type an address such as https://host/path."))
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018  # raises ValueError
    except ValueError as error:
        raise wrong from error
    plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    known = parts.scheme in ("http", "https") and parts.hostname
    if not plain or not known or parts.query or parts.fragment:
        raise wrong
    if parts.username or parts.password:
        raise ServiceError("base_url", "secret", _("An address holds no password."))


def _check_usable(kind: str, base_url: str, credentials: Mapping[str, str]) -> None:
    """The adapter must be able to sign with them: a key with a typing error is refused here."""
    try:
        adapter_of(kind, base_url, credentials)
    except CredentialsMissing as error:
        raise ServiceError(error.field, "unusable", error.why) from error


def _reasoned(reason: str) -> None:
    if not reason.strip():
        raise ServiceError("reason", "blank", _("Say why."))
    if len(reason) > WORDS_MAX_CHARS:
        raise ServiceError(
            "reason", "too_long", _("This has at most %(most)s characters."), most=WORDS_MAX_CHARS
        )


def _locked(account_id: int) -> ProviderAccount:
    account = ProviderAccount.objects.select_for_update().filter(pk=account_id).first()
    if account is None:
        raise ServiceError("account", "not_found", _("There is no such provider account."))
    return account


def _pending(change_id: int) -> tuple[ProviderChange, ProviderAccount]:
    """The request under its account's lock."""
    found = ProviderChange.objects.filter(pk=change_id).first()
    if found is None:
        raise ServiceError("change", "not_found", _("There is no such change."))
    account = _locked(found.account_id)
    return ProviderChange.objects.get(pk=change_id), account


def _decide(change: ProviderChange, state: str, by: User, words: str) -> None:
    # What wasn't taken is kept nowhere.
    forgotten = {} if state == State.APPROVED else {"credentials_encrypted": ""}
    moved = ProviderChange.objects.filter(pk=change.pk, state=State.PENDING).update(
        state=state, decided_by=by, decided_at=Now(), decision=words, **forgotten
    )
    if moved != 1:
        current = ProviderChange.objects.get(pk=change.pk)
        labels = {one.value: one.label for one in State}
        raise TransitionRefused(
            str(ProviderChange._meta.verbose_name), current.state, (State.PENDING,), labels
        )


def _columns(limits: Limits) -> dict[str, Any]:
    return {**asdict(limits), "client_apps": list(limits.client_apps)}


def _picture(account: ProviderAccount) -> dict[str, Any]:
    values = {name: getattr(account, name) for name in asdict(Limits())}
    return {
        name: value.isoformat() if isinstance(value, dt.time) else value
        for name, value in {**values, "is_active": account.is_active}.items()
    }


def _actor(by: User) -> str:
    return f"staff:{by.get_username()}"


def _audit(account: ProviderAccount, actor: str, act: str, **words: Any) -> None:
    audit_record(
        actor=actor,
        action=f"provider.{act}",
        object_type="provider",
        object_id=account.name,
        **words,
    )
