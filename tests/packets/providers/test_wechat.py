"""WeChat Pay: the adapter keeps the contract, and reads what only WeChat says."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator

import pytest

from packets.providers import base
from packets.providers.base import (
    BadCallback,
    CredentialsMissing,
    Kind,
    LineState,
    ProviderUnavailable,
)
from packets.providers.wechat import Credentials, WechatProvider
from tests.packets.providers import wechat_server
from tests.packets.providers.contract import Behaviour, ProviderContract, Stand, order, sent
from tests.packets.providers.rail_server import payee, private_pem, public_pem
from tests.packets.providers.wechat_server import API_KEY, KEY_ID, WechatServer, credentials


class WechatStand:
    def __init__(self, server: WechatServer) -> None:
        self.server = server
        self.provider = WechatProvider(server.address, Credentials.parse(credentials()))
        self.notify_url = "https://laisee.example/api/v1/payouts/wechat/callback"

    def payee(self, behaviour: Behaviour) -> str:
        return payee(behaviour)

    def bodies(self, out_number: str) -> list[bytes]:
        return self.server.bodies[out_number]

    def finish(self, out_number: str) -> None:
        self.server.finish(out_number)

    def callback(self, out_number: str) -> tuple[dict[str, str], bytes]:
        return self.server.notice(out_number)

    def day(self) -> dt.date:
        return dt.datetime.now(wechat_server.ZONE).date()


@pytest.fixture
def wechat(monkeypatch: pytest.MonkeyPatch) -> Iterator[WechatStand]:
    monkeypatch.setattr(base, "READ_TIMEOUT_S", 0.5)
    server = WechatServer()
    with server.running():
        yield WechatStand(server)


class TestWechat(ProviderContract):
    @pytest.fixture
    def stand(self, wechat: WechatStand) -> Stand:
        return wechat


# --- requests -----------------------------------------------------------------------------------


def test_a_request_says_all_that_wechat_wants_to_know(wechat: WechatStand) -> None:
    made, request = sent(wechat, Behaviour.PAID)
    key_id, _, body = request.partition(b"\n")
    told = json.loads(body)
    assert key_id.decode() == KEY_ID
    assert told.pop("user_name") not in ("", "陈红")
    assert told == {
        "appid": wechat_server.APP,
        "out_bill_no": made.out_number,
        "transfer_scene_id": "1000",
        "openid": "payee-paid",
        "transfer_amount": 1_234,
        "transfer_remark": "红包提现",
        "transfer_scene_report_infos": [
            {"info_type": "活动名称", "info_content": "新年红包"},
            {"info_type": "奖励说明", "info_content": "抢到的红包"},
        ],
        "notify_url": wechat.notify_url,
    }
    assert wechat.server.bodies[made.out_number] == [body]
    assert wechat.server.names[made.out_number] == "陈红"


def test_a_sealed_name_differs_each_time_so_what_is_kept_is_what_is_sent(
    wechat: WechatStand,
) -> None:
    made = order(wechat, Behaviour.PAID)
    first, second = wechat.provider.request(made), wechat.provider.request(made)
    assert first != second
    for request in (first, first):
        assert wechat.provider.submit(made.out_number, request).kind is Kind.PAID
    assert len(set(wechat.server.bodies[made.out_number])) == 1


def test_a_resend_names_the_key_that_sealed_the_name(wechat: WechatStand) -> None:
    made = order(wechat, Behaviour.PAID)
    old = wechat.provider.request(made).replace(KEY_ID.encode(), b"PUB_KEY_ID_OLD", 1)
    said = wechat.provider.submit(made.out_number, old)
    assert (said.kind, said.code) == (Kind.UNKNOWN, "PARAM_ERROR")
    assert wechat.server.seen[-1].headers["wechatpay-serial"] == "PUB_KEY_ID_OLD"


def test_a_name_is_left_out_where_wechat_checks_none(wechat: WechatStand) -> None:
    for changes in ({"payee_name": ""}, {"amount_fen": 29}):
        request = wechat.provider.request(order(wechat, Behaviour.PAID, **changes))
        assert b"user_name" not in request


def test_an_address_that_wechat_would_refuse_does_not_spoil_the_order(wechat: WechatStand) -> None:
    for url in ("", "http://127.0.0.1:8000/api/v1/payouts/wechat/callback"):
        made = order(wechat, Behaviour.PAID, notify_url=url)
        assert b"notify_url" not in wechat.provider.request(made)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_fen": 9},
        {"amount_fen": 200_000, "payee_name": ""},
        {"currency": "USD"},
        {"out_number": "a-b"},
        {"out_number": "x" * 33},
        {"out_number": ""},
    ],
)
def test_what_wechat_would_not_take_is_not_asked(
    wechat: WechatStand, changes: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        wechat.provider.request(order(wechat, Behaviour.PAID, **changes))


def test_a_stranger_is_refused_which_says_nothing_of_the_money(wechat: WechatStand) -> None:
    other = {**credentials(), "private_key": private_pem("somebody else")}
    stranger = WechatProvider(wechat.server.address, Credentials.parse(other))
    made = order(wechat, Behaviour.PAID)
    said = stranger.submit(made.out_number, stranger.request(made))
    assert (said.kind, said.code, said.http_status) == (Kind.UNKNOWN, "SIGN_ERROR", 401)
    assert made.out_number not in wechat.server.sales


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state, kind",
    [
        ("ACCEPTED", Kind.ACCEPTED),
        ("PROCESSING", Kind.PENDING),
        ("WAIT_USER_CONFIRM", Kind.USER_ACTION),
        ("TRANSFERING", Kind.PENDING),
        ("SUCCESS", Kind.PAID),
        ("FAIL", Kind.FAILED_FINAL),
        ("CANCELING", Kind.PENDING),
        ("CANCELLED", Kind.FAILED_FINAL),
        ("A_STATE_OF_NEXT_YEAR", Kind.UNKNOWN),
        (None, Kind.UNKNOWN),
        ("", Kind.UNKNOWN),
        (7, Kind.UNKNOWN),
    ],
)
def test_each_state_means_one_thing(wechat: WechatStand, state: object, kind: Kind) -> None:
    made, _ = sent(wechat, Behaviour.ACCEPTED)
    wechat.server.states[made.out_number] = {"state": state}
    told = wechat.provider.query(made.out_number)
    assert told.kind is kind
    expected = {"FAIL": "ACCOUNT_FROZEN", "": "unknown_state"}
    assert told.code == (expected.get(state, state) if isinstance(state, str) else "unknown_state")


def test_the_person_gets_what_the_app_needs_and_a_day_to_confirm(wechat: WechatStand) -> None:
    made = order(wechat, Behaviour.USER_ACTION)
    said = wechat.provider.submit(made.out_number, wechat.provider.request(made))
    assert said.user_action == {
        "kind": "wechat_confirm",
        "mch_id": wechat_server.MERCHANT,
        "app_id": wechat_server.APP,
        "package": "affffddafdfafddffda==",
    }
    day = dt.timedelta(hours=24)
    assert said.expires_at is not None
    made_at = dt.datetime.fromtimestamp(int(wechat.server.sales[made.out_number].at), dt.UTC)
    assert said.expires_at == made_at + day
    told = wechat.provider.query(made.out_number)
    assert (told.kind, told.user_action, told.expires_at) == (
        Kind.USER_ACTION,
        None,
        said.expires_at,
    )


def test_an_answer_that_wechat_did_not_sign_is_no_answer(wechat: WechatStand) -> None:
    made, request = sent(wechat, Behaviour.PAID)
    wechat.server.sign_with = "somebody else"
    for told in (
        wechat.provider.query(made.out_number),
        wechat.provider.submit(made.out_number, request),
        wechat.provider.cancel(made.out_number),
    ):
        assert told.kind is Kind.UNKNOWN
    assert wechat.provider.query(made.out_number).code == "bad_signature"
    with pytest.raises(ProviderUnavailable):
        wechat.provider.balance()


def test_an_answer_about_another_order_is_no_answer(wechat: WechatStand) -> None:
    made, _ = sent(wechat, Behaviour.PAID)
    wechat.server.states[made.out_number] = {"out_bill_no": uuid.uuid4().hex}
    told = wechat.provider.query(made.out_number)
    assert (told.kind, told.code) == (Kind.UNKNOWN, "malformed")


def test_no_error_ends_a_payout(wechat: WechatStand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the status and the code: the number stays, and is asked about."""
    codes = """PARAM_ERROR INVALID_REQUEST NO_AUTH NOT_FOUND SYSTEM_ERROR SIGN_ERROR ACCOUNT_ERROR
    FREQUENCY_LIMITED NOT_ENOUGH 余额不足 CLOSED FAIL""".split()
    for status in (400, 401, 403, 404, 409, 429, 500, 502, 503, 204, 302):
        for code in codes:
            monkeypatch.setattr(
                wechat.server, "_query", lambda _n, s=status, c=code: wechat.server._error(s, c)
            )
            told = wechat.provider.query("x")
            assert told.kind in (Kind.UNKNOWN, Kind.RETRY_SAME), (status, code)
            assert told.not_found == ((status, code) == (404, "NOT_FOUND"))


# --- notices ------------------------------------------------------------------------------------


def refused(wechat: WechatStand, headers: dict[str, str], raw: bytes) -> str:
    with pytest.raises(BadCallback) as bad:
        wechat.provider.parse_callback(headers, raw)
    return str(bad.value)


def test_an_old_notice_is_still_a_notice(wechat: WechatStand) -> None:
    """It moves nothing: at worst a replay makes us ask. One that was held up is worth as much."""
    headers, raw = wechat.server.notice("abc", stamp=1_600_000_000)
    assert wechat.provider.parse_callback(headers, raw).out_number == "abc"


def test_a_notice_is_refused_for_whatever_is_wrong_with_it(wechat: WechatStand) -> None:
    headers, raw = wechat.server.notice("abc")
    unsigned = "not signed by WeChat Pay"
    for name in ("Wechatpay-Signature", "Wechatpay-Timestamp", "Wechatpay-Nonce"):
        assert refused(wechat, {**headers, name: "0"}, raw) == unsigned
        assert refused(wechat, {n: v for n, v in headers.items() if n != name}, raw) == unsigned
    for serial in ("", "3775B6A45ACD588826D15E583A95F5DD", "../../etc", "PUB_KEY_ID_OTHER"):
        assert refused(wechat, {**headers, "Wechatpay-Serial": serial}, raw) == unsigned
    odd = {**headers, "Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}
    assert refused(wechat, odd, raw) == unsigned
    probe = {**headers, "Wechatpay-Signature": "WECHATPAY/SIGNTEST/abcdef"}
    assert refused(wechat, probe, raw) == unsigned, "WeChat tries this out now and then"
    assert refused(wechat, headers, raw + b"\xff") == unsigned

    wechat.server.sign_with = "somebody else"
    assert refused(wechat, *wechat.server.notice("abc")) == unsigned
    wechat.server.sign_with = wechat_server.THEIRS
    assert refused(wechat, *wechat.server.notice("abc", event="TRANSACTION.SUCCESS")) == (
        "not about a transfer"
    )
    assert refused(wechat, *wechat.server.notice("abc", api_key=API_KEY[::-1])) == (
        "the APIv3 key doesn't open it"
    )
    assert refused(wechat, *wechat.server.notice("abc", mch_id="1900000110")) == (
        "not about a transfer of ours"
    )
    assert refused(wechat, *wechat.server.notice("abc", out_bill_no=7)) == (
        "not about a transfer of ours"
    )
    assert not wechat.server.seen, "nobody was asked for a key"


# --- bills --------------------------------------------------------------------------------------


def test_a_bill_holds_transfers_and_what_came_back_of_them(wechat: WechatStand) -> None:
    made, _ = sent(wechat, Behaviour.PAID)
    wechat.server.bill_extra = [
        "`2026-02-17 21:00:01,`55,`56,`商家转账退回,`商家转账,`收入,`12.34,`1,`s,`-,"
        f"`{made.out_number}"
    ]
    paid, returned = wechat.provider.statement(wechat.day())
    assert (paid.line_no, paid.out_number, paid.amount_fen) == (2, made.out_number, 1_234)
    assert returned.state is LineState.REFUNDED
    assert returned.at.isoformat() == "2026-02-17T21:00:01+08:00"
    assert returned.raw == wechat.server.bill_extra[0]


def test_a_day_on_which_nothing_moved_has_no_lines(wechat: WechatStand) -> None:
    assert list(wechat.provider.statement(dt.date(2020, 1, 1))) == []


def test_a_bill_that_was_cut_off_or_changed_is_none(
    wechat: WechatStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(wechat, Behaviour.PAID)
    wechat.server.bill_cut = True
    with pytest.raises(ProviderUnavailable, match="lines are missing"):
        list(wechat.provider.statement(wechat.day()))
    wechat.server.bill_cut = False
    whole = wechat.server.bill()
    for text in (
        whole.replace("收支类型".encode(), b"x"),
        whole[:-40],
        b"",
        whole.decode().encode("gbk", "replace"),
    ):
        monkeypatch.setattr(wechat.server, "bill", lambda t=text: t)
        with pytest.raises(ProviderUnavailable, match="can't be read"):
            list(wechat.provider.statement(wechat.day()))
    # The second time another file lies at the address than the one that was announced.
    files = iter([whole, whole + b" "])
    monkeypatch.setattr(wechat.server, "bill", lambda: next(files))
    with pytest.raises(ProviderUnavailable, match="isn't the one"):
        list(wechat.provider.statement(wechat.day()))


def test_our_signature_goes_to_nobody_else(
    wechat: WechatStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        wechat.server,
        "_bill",
        lambda _asked: wechat.server.signed(
            {"download_url": "https://elsewhere.invalid/x", "hash_value": "0"}
        ),
    )
    with pytest.raises(ProviderUnavailable, match="another's address"):
        list(wechat.provider.statement(wechat.day()))


# --- credentials --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value",
    [
        ("merchant_id", ""),
        ("merchant_id", 1900000109),
        ("private_key", "-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----"),
        ("private_key", "short"),
        ("public_key", ""),
        ("api_v3_key", "too short"),
        ("scene_report", "活动名称"),
        ("scene_id", None),
        ("no_such_field", "x"),
    ],
)
def test_credentials_that_cannot_work_are_named(field: str, value: object) -> None:
    with pytest.raises(CredentialsMissing) as refused:
        Credentials.parse({**credentials(), field: value})
    assert refused.value.field == field
    assert refused.value.why


def test_a_public_key_is_no_private_one_and_the_other_way_round() -> None:
    given = credentials()
    for name, other in (
        ("private_key", public_pem(wechat_server.OURS)),
        ("public_key", private_pem(wechat_server.OURS)),
    ):
        with pytest.raises(CredentialsMissing) as refused:
            Credentials.parse({**given, name: other})
        assert refused.value.field == name


@pytest.mark.parametrize(
    "address",
    """http://api.mch.weixin.qq.com ftp://127.0.0.1 https:// https://u:p@a nonsense
    http://127.0.0.1.example https://a:b/ https://a/?x=1""".split(),
)
def test_keys_are_not_shown_to_an_unsafe_address(address: str) -> None:
    with pytest.raises(CredentialsMissing) as refused:
        WechatProvider(address, Credentials.parse(credentials()))
    assert refused.value.field == "base_url"


def test_without_an_address_it_is_wechat_s_own() -> None:
    provider = WechatProvider("", Credentials.parse(credentials()))
    assert provider._address == "https://api.mch.weixin.qq.com"
