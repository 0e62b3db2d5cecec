"""The pages about providers name what the code knows."""

from __future__ import annotations

from engine.run.paths import CHECKOUT
from packets.providers import alipay, wechat
from packets.providers.alipay import adapter as alipay_adapter
from packets.providers.base import Kind
from packets.providers.sandbox.faults import Fault
from packets.providers.wechat import adapter as wechat_adapter


def missing(page: str, words: list[str]) -> list[str]:
    text = (CHECKOUT / "docs" / page).read_text()
    return [word for word in words if f"`{word}`" not in text]


def test_every_state_field_and_fault_is_named() -> None:
    words = [
        *(field.name for field in (*wechat.FIELDS, *alipay.FIELDS)),
        *wechat_adapter._STATES,
        *alipay_adapter._STATUSES,
        *alipay_adapter._OUT_OF_FUNDS,
        *map(str, Kind),
    ]
    assert missing("providers.md", words) == []
    assert missing("sandbox.md", [f"fault:{fault}" for fault in Fault]) == []
