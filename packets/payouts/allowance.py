"""What a provider account allows: to whom, how much, how often, when, and who looks first.

Everything here is asked before money moves; a refusal names the field and has changed nothing.
Days and hours are the account's, by the database's clock.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from packets.drills import may_pay
from packets.holds.rules import payout_reasons
from packets.models import ProviderAccount
from packets.payouts.numbers import REMARK, notify_url
from packets.providers import provider_of
from packets.providers.base import CredentialsMissing, Order, Provider

PAYEE_MAX_CHARS = 128  # the longest that a provider takes: an openid, an email address
NAME_MAX_CHARS = 64
# Why a person of ours looks at a payout first, beside the reasons of the risk rules.
LARGE_AMOUNT = "large_amount"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to withdraw, and to whom; `provider` is our account's name."""

    participant: bytes
    client_app_id: int
    amount_fen: int
    provider: str
    payee_account: str
    payee_name: str


@dataclass(frozen=True, slots=True)
class Payee:
    """Where the money goes, in the clear; `digest` names the same account without saying it."""

    account: str
    name: str
    digest: str


def _not_available() -> ServiceError:
    return ServiceError(
        "provider", "not_available", _("This way of withdrawing isn't open to you.")
    )


def account_for(wanted: Wanted) -> ProviderAccount:
    account = ProviderAccount.objects.filter(name=wanted.provider).first()
    if (
        account is None
        or (account.client_apps and wanted.client_app_id not in account.client_apps)
        or not may_pay(account, wanted.client_app_id)
    ):
        raise ServiceError("provider", "unknown_choice", _("There is no such way of withdrawing."))
    if not account.is_active or percentile(account, wanted.participant) >= account.grey_percent:
        raise _not_available()
    return account


def _keyed(purpose: str, text: bytes) -> bytes:
    key = hashlib.sha256(f"laisee.{purpose}{settings.SECRET_KEY}".encode()).digest()
    return hmac.digest(key, text, "sha256")


def percentile(account: ProviderAccount, participant: bytes) -> int:
    """0 to 99, the same one for ever for this person at this account, and not to be guessed: a
    larger percentage lets further people in and none out."""
    word = _keyed("grey", account.name.encode() + b"\0" + participant)[:8]
    return int.from_bytes(word, "big") % 100


def require_amount(account: ProviderAccount, wanted: Wanted) -> None:
    least_fen, most_fen = account.min_fen, account.max_fen
    if wanted.amount_fen < least_fen or (most_fen is not None and wanted.amount_fen > most_fen):
        raise _out_of_range(least_fen, most_fen)


def _out_of_range(least_fen: int, most_fen: int | None) -> ServiceError:
    if most_fen is None:
        return ServiceError(
            "amount_fen", "out_of_range", _("At least %(least)s."), least=yuan(least_fen)
        )
    return ServiceError(
        "amount_fen",
        "out_of_range",
        _("This must lie between %(least)s and %(most)s."),
        least=yuan(least_fen),
        most=yuan(most_fen),
    )


def payee_for(account: ProviderAccount, wanted: Wanted) -> Payee:
    """The payee as the provider takes it: what can't be asked of the provider is refused now."""
    found, name = wanted.payee_account.strip(), wanted.payee_name.strip()
    for field, text, least, most in (
        ("payee_account", found, 1, PAYEE_MAX_CHARS),
        ("payee_name", name, 0, NAME_MAX_CHARS),
    ):
        if not least <= len(text) <= most or not text.isprintable():
            raise ServiceError(
                field, "format", _("This is 1 to %(most)s printable characters."), most=most
            )
    try:
        _require_askable(provider_of(account), account, wanted.amount_fen, found, name)
    except CredentialsMissing as error:
        raise _not_available() from error
    digest = _keyed("payee", f"{account.kind}\0{found.casefold()}".encode())
    return Payee(found, name, digest.hex())


def _require_askable(
    provider: Provider, account: ProviderAccount, amount_fen: int, payee: str, name: str
) -> None:
    can = provider.capabilities
    if amount_fen < can.min_fen or (can.max_fen is not None and amount_fen > can.max_fen):
        raise _out_of_range(can.min_fen, can.max_fen)
    order = Order(
        out_number=uuid.uuid4().hex,
        amount_fen=amount_fen,
        currency=account.currency,
        payee_account=payee,
        payee_name=name,
        remark=REMARK,
        notify_url=notify_url(account),
    )
    try:
        provider.request(order)
    except ValueError as error:
        raise ServiceError(
            "payee_account",
            "not_payable",
            _("The provider can't pay this amount to this payee; look at account and name."),
        ) from error


_OPEN_NOW = """
SELECT CASE WHEN opens <= closes THEN moment BETWEEN opens AND closes
            ELSE moment >= opens OR moment <= closes END
  FROM (SELECT %(opens)s::time, %(closes)s::time,
               (clock_timestamp() AT TIME ZONE %(zone)s)::time) AS day (opens, closes, moment)
"""


def require_open_now(account: ProviderAccount) -> None:
    if account.opens_at is None and account.closes_at is None:
        return
    opens = f"{account.opens_at:%H:%M}" if account.opens_at else "00:00"
    closes = f"{account.closes_at:%H:%M}" if account.closes_at else "24:00"
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_NOW, {"opens": opens, "closes": closes, "zone": account.timezone})
        if not cursor.fetchone()[0]:
            raise ServiceError(
                "provider",
                "outside_hours",
                _("Withdrawals are possible from %(opens)s to %(closes)s."),
                opens=opens,
                closes=closes,
            )


# What was asked for since midnight of the account's zone and hasn't come back.
_TODAY = """
SELECT COALESCE(sum(amount_fen), 0)::bigint, count(*)
  FROM packets_payout
 WHERE account_id = %(account)s AND (%(person)s::bytea IS NULL OR participant = %(person)s)
   AND state NOT IN ('failed', 'cancelled')
   AND created_at >= date_trunc('day', clock_timestamp() AT TIME ZONE %(zone)s)
                     AT TIME ZONE %(zone)s
"""


def _today(account: ProviderAccount, person: bytes | None) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(_TODAY, {"account": account.pk, "person": person, "zone": account.timezone})
        fen, count = cursor.fetchone()
        return int(fen), int(count)


def require_within_days(account: ProviderAccount, wanted: Wanted) -> None:
    if account.person_day_fen is not None or account.person_day_count is not None:
        fen, count = _today(account, wanted.participant)
        if account.person_day_count is not None and count >= account.person_day_count:
            raise ServiceError(
                "provider",
                "day_count_reached",
                _("At most %(most)s withdrawals a day; ask again tomorrow."),
                most=account.person_day_count,
            )
        if account.person_day_fen is not None and fen + wanted.amount_fen > account.person_day_fen:
            raise ServiceError(
                "amount_fen",
                "day_limit_reached",
                _("At most %(most)s a day; %(left)s are left today."),
                most=yuan(account.person_day_fen),
                left=yuan(max(0, account.person_day_fen - fen)),
            )
    if account.day_limit_fen is not None:
        # Everybody's, so one after the other from here to the end of the transaction.
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                [f"payouts of the day:{account.pk}"],
            )
        if _today(account, None)[0] + wanted.amount_fen > account.day_limit_fen:
            raise ServiceError(
                "provider",
                "full_today",
                _("No more can be withdrawn this way today; ask again tomorrow."),
            )


def reasons_for(account: ProviderAccount, wanted: Wanted, payee: Payee) -> list[str]:
    """Why a person of ours looks first; empty where nobody has to. The payee stays locked."""
    found = [
        str(reason)
        for reason in payout_reasons(wanted.participant, payee.digest, wanted.amount_fen)
    ]
    if account.review_above_fen is not None and wanted.amount_fen > account.review_above_fen:
        found.append(LARGE_AMOUNT)
    return found
