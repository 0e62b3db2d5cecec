"""docs/providers.md names what the code knows."""

from __future__ import annotations

from engine.run.paths import CHECKOUT
from packets.providers import alipay, wechat
from packets.providers.alipay import adapter as alipay_adapter
from packets.providers.base import Kind
from packets.providers.sandbox.faults import Fault
from packets.providers.wechat import adapter as wechat_adapter


def test_the_page_names_every_state_field_and_fault() -> None:
    page = (CHECKOUT / "docs" / "providers.md").read_text()
    words = [
        *(field.name for field in (*wechat.FIELDS, *alipay.FIELDS)),
        *wechat_adapter._STATES,
        *alipay_adapter._STATUSES,
        *alipay_adapter._OUT_OF_FUNDS,
        *map(str, Kind),
        *(f"fault:{fault}" for fault in Fault),
    ]
    missing = [word for word in words if f"`{word}`" not in page]
    assert missing == []
