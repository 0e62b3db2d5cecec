"""WeChat Pay, merchant transfers: `adapter.py` speaks, `keys.py` and `bill.py` read."""

from __future__ import annotations

from packets.providers.wechat.adapter import WechatProvider
from packets.providers.wechat.keys import FIELDS, Credentials

__all__ = ["FIELDS", "Credentials", "WechatProvider"]
