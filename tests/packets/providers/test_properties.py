"""Whatever a provider signs, whoever calls back: adapters never raise and make up no money."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.lib.outgoing import Answer
from packets.providers import alipay, wechat
from packets.providers.alipay import adapter as alipay_adapter
from packets.providers.base import BadCallback, Kind, Provider, Result
from packets.providers.wechat import adapter as wechat_adapter
from tests.packets.providers import alipay_server, wechat_server
from tests.packets.providers.alipay_server import AlipayServer
from tests.packets.providers.rail_server import Reply
from tests.packets.providers.wechat_server import WechatServer

BOUNDED = settings(max_examples=60, deadline=None, derandomize=True)
NUMBER = "0123456789abcdef0123456789abcdef"
FINAL = (Kind.PAID, Kind.FAILED_FINAL)

WECHAT = wechat.WechatProvider("", wechat.Credentials.parse(wechat_server.credentials()))
ALIPAY = alipay.AlipayProvider("", alipay.Credentials.parse(alipay_server.credentials()))
WECHAT_SERVER, ALIPAY_SERVER = WechatServer(), AlipayServer()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


def objects(names: str, *likely: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these members, each missing, likely, or anything."""
    values = st.sampled_from([*likely, NUMBER, "a\0b", "\ud800", "9999-12-31T23:59:59+00:00"])
    return st.dictionaries(st.sampled_from(names.split()), values | anything, max_size=9)


def hears(provider: Provider, answer: Answer, call: Callable[[], Result]) -> Result:
    """What the adapter makes of this answer to its call."""
    module = wechat_adapter if provider is WECHAT else alipay_adapter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "called", lambda *_: answer)
        result = call()
    # Postgres can keep all of it.
    for text in (result.code, result.detail, result.provider_ref, json.dumps(result.user_action)):
        assert text.isprintable()
    assert len(result.code) <= 80
    return result


def answer_of(reply: Reply, status: int) -> Answer:
    return Answer(status, {n.lower(): v for n, v in reply.headers.items()}, reply.body)


@BOUNDED
@given(
    said=objects(
        "out_bill_no transfer_bill_no state fail_reason create_time package_info transfer_amount",
        *wechat_adapter._STATES,
    ),
    status=st.sampled_from([200, 200, 200, 204, 302, 400, 403, 404, 429, 500]),
)
def test_wechat_s_answers(said: dict[str, Any], status: int) -> None:
    body = json.dumps(said).encode()
    answer = Answer(status, {n.lower(): v for n, v in WECHAT_SERVER.headers(body).items()}, body)
    for call in (WECHAT.query, WECHAT.cancel, lambda number: WECHAT.submit(number, b"k\n{}")):
        result = hears(WECHAT, answer, lambda call=call: call(NUMBER))  # type: ignore[misc]
        if result.kind in FINAL:
            ours = status == 200 and said["out_bill_no"] == NUMBER
            assert ours and wechat_adapter._STATES[said["state"]] is result.kind


@BOUNDED
@given(
    said=objects(
        "code sub_code sub_msg out_biz_no order_id status error_code fail_reason trans_amount",
        "10000",
        "40004",
        "12.34",
        *alipay_adapter._STATUSES,
    ),
    status=st.sampled_from([200, 200, 200, 302, 429, 500]),
)
def test_alipay_s_answers(said: dict[str, Any], status: int) -> None:
    for method, call in (
        ("uni.transfer", lambda: ALIPAY.submit(NUMBER, b'{"method":"x","version":"1.0"}')),
        ("common.query", lambda: ALIPAY.query(NUMBER)),
    ):
        node = f"alipay_fund_trans_{method.replace('.', '_')}_response"
        node = "x_response" if method == "uni.transfer" else node
        try:
            reply = ALIPAY_SERVER._node(node, said)
        except UnicodeEncodeError:
            return  # half a surrogate pair can't be sent
        result = hears(ALIPAY, answer_of(reply, status), call)
        if result.kind in FINAL:
            ours = status == 200 and said["out_biz_no"] == NUMBER and said["code"] == "10000"
            assert ours and alipay_adapter._STATUSES[said["status"]] is result.kind


@BOUNDED
@given(
    raw=st.binary(max_size=200) | anything.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(["Wechatpay-Serial", "Wechatpay-Signature", "Wechatpay-Nonce", "x"]),
        st.sampled_from([wechat_server.KEY_ID, "", "!"]) | st.text(max_size=20),
    ),
)
def test_nobody_s_callbacks(raw: bytes, headers: Mapping[str, str]) -> None:
    for provider in (WECHAT, ALIPAY):
        with pytest.raises(BadCallback):
            provider.parse_callback(headers, raw)


@BOUNDED
@given(
    notice=objects("id event_type resource", "MCHTRANSFER.BILL.FINISHED"),
    resource=objects("algorithm nonce ciphertext associated_data", "AEAD_AES_256_GCM", "AAAA"),
)
def test_odd_notices_that_wechat_signed(notice: dict[str, Any], resource: dict[str, Any]) -> None:
    body = json.dumps({**notice, "resource": resource}).encode()
    with pytest.raises(BadCallback):
        WECHAT.parse_callback(WECHAT_SERVER.headers(body), body)


@BOUNDED
@given(order=objects("out_bill_no mch_id transfer_bill_no state", wechat_server.MERCHANT))
def test_odd_orders_in_wechat_s_notices(order: dict[str, Any]) -> None:
    try:
        event = WECHAT.parse_callback(*WECHAT_SERVER.notice("x", **order))
    except BadCallback:
        return
    assert isinstance(event.out_number, str)
    assert event.provider_ref.isprintable() and event.event_id.isprintable()
