"""What is a drill's, and what that keeps it from.

A drill's client app bears a mark (`ClientApp.is_drill`), and all that its people have hangs on it.
Invariant: no transfer joins an account of a drill with one that isn't. Its money comes from an
outside world of its own, and leaves by a provider account at the sandbox that serves it alone.
"""

from __future__ import annotations

from engine.models import ClientApp
from packets.models import ProviderAccount


def drill_of(client_app_id: int) -> int | None:
    """The app, where it is a drill's; None for a real one."""
    marked = ClientApp.objects.filter(pk=client_app_id, is_drill=True).exists()
    return client_app_id if marked else None


def may_pay(account: ProviderAccount, client_app_id: int) -> bool:
    """Whether this account's kind of money is that of the app's people: played, or real."""
    if drill_of(client_app_id) is not None:
        own = account.client_apps == [client_app_id]
        return own and account.kind == ProviderAccount.Kind.SANDBOX
    return not ClientApp.objects.filter(pk__in=account.client_apps, is_drill=True).exists()
