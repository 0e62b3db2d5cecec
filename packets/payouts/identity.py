"""Keys may be renewed; the account behind them may not be exchanged.

Invariant 8 hangs on it: another merchant's provider knows none of the numbers that went out, says
"not found" of a payout that was paid, and would pay it again. So once a payout went through an
account of ours, the fields that say which one it is at the provider are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from engine.lib.errors import ServiceError
from packets.models import Payout, ProviderAccount
from packets.providers import credential_fields, credentials_of


def identity_check(account: ProviderAccount, wanted: Mapping[str, Any]) -> None:
    """Raises ServiceError where `wanted` is another account's. Under the account's lock."""
    known = credentials_of(account)
    for field in credential_fields(account.kind):
        fixed = field.identity and known.get(field.name)
        if fixed and wanted.get(field.name) != fixed and _was_used(account):
            raise ServiceError(
                field.name,
                "fixed",
                _(
                    "Payouts went through this account, and another one doesn't know their "
                    "numbers. Make a new provider account for it."
                ),
            )


def _was_used(account: ProviderAccount) -> bool:
    return Payout.objects.filter(account=account).exists()
