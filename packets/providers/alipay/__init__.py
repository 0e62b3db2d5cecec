"""Alipay, single transfers: `adapter.py` speaks, `wire.py` signs, `keys.py` and `bill.py` read."""

from __future__ import annotations

from packets.providers.alipay.adapter import AlipayProvider
from packets.providers.alipay.keys import FIELDS, Credentials

__all__ = ["FIELDS", "AlipayProvider", "Credentials"]
