"""The data plane in the admin. Money moves through services only.

Lists are paged without a COUNT and ordered by an index; people and claims are found by key.
"""

from __future__ import annotations

from packets.admin import (
    claims,
    holds,
    ledger,
    packets,
    payouts,
    people,
    provider_accounts,
    reconciling,
    risk_rules,
    stock_checks,
)

__all__ = [
    "claims",
    "holds",
    "ledger",
    "packets",
    "payouts",
    "people",
    "provider_accounts",
    "reconciling",
    "risk_rules",
    "stock_checks",
]
