"""When nothing new is sent through a provider account.

It opens after failures in a row, or at once when our account there is out of funds; questions about
payouts that are out go on. While it is open, one payout at a time is tried when `breaker_until` has
come; its success closes it. Times are the database's.
"""

from __future__ import annotations

import datetime as dt

import structlog
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest, Now

from packets.models import ProviderAccount
from packets.providers.base import Kind, Result

log = structlog.get_logger(__name__)

FAILURES_TO_OPEN = 10
FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 600.0
FUNDS_WAIT_S = 60.0
PROBE_S = 30  # one payout is out to try; nobody else tries meanwhile

FAILURES = "failures"
FUNDS = "out_of_funds"
BY_HAND = "by_hand"
# Nobody but a person closes a breaker that a person opened.
BY_HAND_FOR = dt.timedelta(days=3650)


def breakers_open_by_hand() -> int:
    """Send nothing new through any account until a person closes its breaker; how many."""
    return ProviderAccount.objects.update(
        breaker=ProviderAccount.Breaker.OPEN,
        breaker_reason=BY_HAND,
        breaker_until=Now() + BY_HAND_FOR,
    )


def breaker_note(account_id: int, result: Result, submitted: bool) -> None:
    """Take notice of an answer. Any answer of substance is a success; the account's row is only
    written where something changes."""
    account = ProviderAccount.objects.get(id=account_id)
    if result.out_of_funds:
        _open(account_id, FUNDS, result.retry_after_s or FUNDS_WAIT_S)
    elif result.rate_limited:
        wait = dt.timedelta(seconds=result.retry_after_s or 1.0)
        rows = ProviderAccount.objects.filter(id=account_id)
        # Greatest ignores NULL in Postgres.
        rows.update(paced_until=Greatest(F("paced_until"), Now() + wait))
    elif result.kind is Kind.UNKNOWN and not result.not_found:
        _count_failure(account_id)
    elif account.failures or (submitted and account.breaker == ProviderAccount.Breaker.OPEN):
        _heal(account_id, submitted)


def _count_failure(account_id: int) -> None:
    with transaction.atomic():
        account = ProviderAccount.objects.select_for_update().get(id=account_id)
        account.failures += 1
        account.save(update_fields=["failures"])
        over = account.failures - FAILURES_TO_OPEN
        if over >= 0:
            _open(account_id, FAILURES, min(FIRST_WAIT_S * 2 ** min(over, 10), LONGEST_WAIT_S))


def _open(account_id: int, reason: str, wait_s: float) -> None:
    rows = ProviderAccount.objects.filter(id=account_id).exclude(breaker_reason=BY_HAND)
    opened = rows.update(
        breaker=ProviderAccount.Breaker.OPEN,
        breaker_reason=reason,
        breaker_until=Now() + dt.timedelta(seconds=wait_s),
    )
    if opened:
        # An operator has to look: a metric's alarm stands on this line.
        log.error("payout_breaker_open", account=account_id, reason=reason, wait_s=wait_s)


def _heal(account_id: int, submitted: bool) -> None:
    rows = ProviderAccount.objects.filter(id=account_id)
    rows.update(failures=0)
    if submitted:
        closed = rows.filter(breaker=ProviderAccount.Breaker.OPEN).exclude(breaker_reason=BY_HAND)
        if closed.update(
            breaker=ProviderAccount.Breaker.CLOSED, breaker_reason="", breaker_until=None
        ):
            log.info("payout_breaker_closed", account=account_id)
