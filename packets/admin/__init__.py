"""The data plane in the admin. Money moves through services only.

Lists are paged without a COUNT and ordered by an index; people and claims are found by key.
"""

from __future__ import annotations

from packets.admin import (
    claims,
    ledger,
    packets,
    payouts,
    provider_accounts,
    reconciling,
    stock_checks,
)

__all__ = [
    "claims",
    "ledger",
    "packets",
    "payouts",
    "provider_accounts",
    "reconciling",
    "stock_checks",
]
