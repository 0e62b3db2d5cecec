"""What staff do to the sandbox: its faults, its balance, and what its payees would do.

No money of ours moves by it; what the sandbox then does to payouts is what a provider could do.
Every change is written down, as all acts of people are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError
from packets.models import ProviderAccount
from packets.providers import credentials_of
from packets.providers.base import CredentialsMissing, ProviderUnavailable
from packets.providers.sandbox.adapter import SandboxProvider

# What a change is compared by in the audit log.
SET = ("seed", "rates", "seconds", "settle_s", "check_numbers", "balance_fen")


def sandbox_shown(account: ProviderAccount) -> dict[str, Any]:
    """How the sandbox is set and what it did last. ServiceError where it can't be asked."""
    try:
        return _provider(account).control()
    except (ProviderUnavailable, ValueError) as error:
        raise _away() from error


def sandbox_set(
    *, account: ProviderAccount, changes: Mapping[str, Any], actor: str, request: Any = None
) -> dict[str, Any]:
    """Set faults, seed, balance. ServiceError, in the sandbox's words, for what can't be meant."""
    before = sandbox_shown(account)
    try:
        after = _provider(account).control(changes)
    except ProviderUnavailable as error:
        raise _away() from error
    except ValueError as error:
        raise ServiceError("", "refused", str(error)) from error
    audit_record(
        actor=actor,
        action="sandbox.set",
        object_type="provider",
        object_id=account.name,
        before={name: before[name] for name in SET if before[name] != after[name]},
        after={name: after[name] for name in SET if before[name] != after[name]},
        request=request,
    )
    return after


def sandbox_confirm(
    *, account: ProviderAccount, out_number: str, actor: str, request: Any = None
) -> str:
    """Confirm an order in its payee's place, or finish a slow one; its state afterwards."""
    try:
        order = _provider(account).confirm(out_number)
    except ProviderUnavailable as error:
        raise _away() from error
    except ValueError as error:
        raise ServiceError("out_number", "unknown", _("There is no such order.")) from error
    audit_record(
        actor=actor,
        action="sandbox.confirm",
        object_type="provider",
        object_id=account.name,
        after={"number": out_number, "state": order["state"]},
        request=request,
    )
    return str(order["state"])


def _provider(account: ProviderAccount) -> SandboxProvider:
    if account.kind != ProviderAccount.Kind.SANDBOX:
        raise ServiceError("account", "no_sandbox", _("This account isn't one at the sandbox."))
    try:
        return SandboxProvider(account.base_url, credentials_of(account))
    except CredentialsMissing as error:
        raise ServiceError("account", "credentials", error.why) from error


def _away() -> ServiceError:
    return ServiceError("", "away", _("The sandbox does not answer. Does it run?"))
