"""Alipay: the adapter keeps the contract, and reads what only Alipay says."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import json
import uuid
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from packets.providers import alipay, base
from packets.providers.alipay import AlipayProvider, Credentials
from packets.providers.alipay.wire import answer_of
from packets.providers.base import (
    BadCallback,
    CredentialsMissing,
    Kind,
    LineState,
    ProviderUnavailable,
)
from packets.providers.calls import fetched
from tests.packets.providers import alipay_server
from tests.packets.providers.alipay_server import OURS, THEIRS, AlipayServer, credentials
from tests.packets.providers.contract import Behaviour, ProviderContract, Stand, order, sent
from tests.packets.providers.rail_server import Reply, key, payee, private_pem, sign


class AlipayStand:
    def __init__(self, server: AlipayServer) -> None:
        self.server = server
        self.provider = AlipayProvider(self.gateway, Credentials.parse(credentials()))
        self.notify_url = "https://laisee.example/api/v1/payouts/alipay/callback"

    @property
    def gateway(self) -> str:
        return f"{self.server.address}/gateway.do"

    def payee(self, behaviour: Behaviour) -> str:
        return payee(behaviour)

    def bodies(self, out_number: str) -> list[bytes]:
        return self.server.bodies[out_number]

    def finish(self, out_number: str) -> None:
        self.server.finish(out_number)

    def callback(self, out_number: str) -> tuple[dict[str, str], bytes]:
        return self.server.notice(out_number)

    def day(self) -> dt.date:
        return dt.datetime.now(alipay_server.ZONE).date()


@pytest.fixture
def ali(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlipayStand]:
    monkeypatch.setattr(base, "READ_TIMEOUT_S", 0.5)
    server = AlipayServer()
    with server.running():
        yield AlipayStand(server)


class TestAlipay(ProviderContract):
    @pytest.fixture
    def stand(self, ali: AlipayStand) -> Stand:
        return ali

    def unsigned(
        self, headers: dict[str, str], raw: bytes
    ) -> Iterator[tuple[dict[str, str], bytes]]:
        given = dict(parse_qsl(raw.decode()))
        signature = given.pop("sign")
        for instead in ({}, {"sign": ""}, {"sign": "0" * len(signature)}):
            yield headers, urlencode({**given, **instead}).encode()


# --- requests -----------------------------------------------------------------------------------


def test_a_request_says_all_that_alipay_wants_to_know(ali: AlipayStand) -> None:
    made, _ = sent(ali, Behaviour.PAID)
    asked = ali.server.seen[-1]
    assert json.loads(ali.server.asked_for["biz_content"]) == {
        "out_biz_no": made.out_number,
        "trans_amount": "12.34",
        "product_code": "TRANS_ACCOUNT_NO_PWD",
        "biz_scene": "DIRECT_TRANSFER",
        "order_title": "新年红包",
        "remark": "红包提现",
        "payee_info": {
            "identity": "payee-paid",
            "identity_type": "ALIPAY_OPEN_ID",
            "name": "陈红",
        },
    }
    assert ali.server.asked_for["notify_url"] == ali.notify_url
    assert "payee" not in asked.target, "names and accounts stand in no address"
    assert "biz_content" not in asked.target


@pytest.mark.parametrize(
    "account, name, kind",
    [
        ("2088123412341234", "", "ALIPAY_USER_ID"),
        ("13800138000", "陈红", "ALIPAY_LOGON_ID"),
        ("hong@example.com", "陈红", "ALIPAY_LOGON_ID"),
        ("074a1CcTG1LelxKe4xQC0zgNdId0nxi95b5lsNpazWYoCo5", "", "ALIPAY_OPEN_ID"),
    ],
)
def test_a_payee_is_named_as_what_it_is(
    ali: AlipayStand, account: str, name: str, kind: str
) -> None:
    made = order(ali, Behaviour.PAID, payee_account=account, payee_name=name)
    told = json.loads(json.loads(ali.provider.request(made))["biz_content"])
    assert told["payee_info"]["identity_type"] == kind
    assert told["payee_info"].get("name", "") == name


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_fen": 9},
        {"amount_fen": 10_000_001},
        {"currency": "USD"},
        {"out_number": "a-b"},
        {"payee_account": "13800138000", "payee_name": ""},
    ],
)
def test_what_alipay_would_not_take_is_not_asked(
    ali: AlipayStand, changes: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        ali.provider.request(order(ali, Behaviour.PAID, **changes))


def test_a_stranger_is_refused_which_says_nothing_of_the_money(ali: AlipayStand) -> None:
    other = {**credentials(), "private_key": private_pem("somebody else")}
    stranger = AlipayProvider(ali.gateway, Credentials.parse(other))
    made = order(ali, Behaviour.PAID)
    said = stranger.submit(made.out_number, stranger.request(made))
    assert (said.kind, said.code) == (Kind.UNKNOWN, "isv.invalid-signature")
    assert made.out_number not in ali.server.sales


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, kind",
    [
        ("SUCCESS", Kind.PAID),
        ("DEALING", Kind.PENDING),
        ("INIT", Kind.PENDING),
        ("WAIT_PAY", Kind.PENDING),
        ("FAIL", Kind.FAILED_FINAL),
        ("CLOSED", Kind.FAILED_FINAL),
        ("REFUND", Kind.FAILED_FINAL),
        ("A_STATUS_OF_NEXT_YEAR", Kind.UNKNOWN),
        ("", Kind.UNKNOWN),
        (None, Kind.UNKNOWN),
    ],
)
def test_each_status_means_one_thing(ali: AlipayStand, status: object, kind: Kind) -> None:
    made, _ = sent(ali, Behaviour.ACCEPTED)
    ali.server.said[made.out_number] = {"status": status}
    told = ali.provider.query(made.out_number)
    assert told.kind is kind
    assert told.code == (status or "unknown_status")


@pytest.mark.parametrize(
    "code, sub_code, kind",
    [
        ("40004", "PAYEE_NOT_EXIST", Kind.FAILED_FINAL),
        ("40004", "PAYEE_USER_INFO_ERROR", Kind.FAILED_FINAL),
        ("40004", "EXCEED_LIMIT_UNRN_DM_AMOUNT", Kind.FAILED_FINAL),
        ("40004", "PAYER_BALANCE_NOT_ENOUGH", Kind.RETRY_SAME),
        ("40004", "EXCEED_LIMIT_DM_MAX_AMOUNT", Kind.RETRY_SAME),
        ("40005", "", Kind.RETRY_SAME),
        ("40004", "SYSTEM_ERROR", Kind.UNKNOWN),
        ("20000", "isp.unknow-error", Kind.UNKNOWN),
        ("20000", "aop.ACQ.SYSTEM_ERROR", Kind.UNKNOWN),
        ("40004", "PAYMENT_INFO_INCONSISTENCY", Kind.UNKNOWN),
        ("40004", "PAYER_STATUS_ERROR", Kind.UNKNOWN),
        ("40006", "isv.insufficient-isv-permissions", Kind.UNKNOWN),
        ("40004", "收款账号不存在", Kind.UNKNOWN),
        ("", "", Kind.UNKNOWN),
    ],
)
def test_a_refusal_means_what_its_sub_code_says(
    ali: AlipayStand, monkeypatch: pytest.MonkeyPatch, code: str, sub_code: str, kind: Kind
) -> None:
    said = {"code": code, "msg": "PAYEE_NOT_EXIST", "sub_code": sub_code, "sub_msg": "余额不足"}
    node = "alipay_fund_trans_uni_transfer_response"
    monkeypatch.setattr(ali.server, "_transfer", lambda *_: ali.server._node(node, said))
    made = order(ali, Behaviour.PAID)
    told = ali.provider.submit(made.out_number, ali.provider.request(made))
    assert told.kind is kind
    assert told.code
    assert told.out_of_funds == (sub_code == "PAYER_BALANCE_NOT_ENOUGH")
    assert told.rate_limited == (code == "40005")
    assert told.detail == "余额不足"


def test_a_refusal_ends_nothing_that_an_earlier_sending_has_begun(
    ali: AlipayStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payee's account was closed after it had been paid: the money must not come back too."""
    said = {"code": "40004", "sub_code": "PAYEE_ACCOUNT_STATUS_ERROR"}
    node = "alipay_fund_trans_uni_transfer_response"
    for first, kind in ((Behaviour.PAID, Kind.PAID), (Behaviour.ACCEPTED, Kind.PENDING)):
        made, request = sent(ali, first)
        with monkeypatch.context() as closed:
            closed.setattr(ali.server, "_transfer", lambda *_: ali.server._node(node, said))
            assert ali.provider.submit(made.out_number, request).kind is kind
            # And where that can't be learned, nothing is known.
            closed.setattr(ali.server, "_query", lambda *_: Reply(500, b""))
            told = ali.provider.submit(made.out_number, request)
            assert (told.kind, told.code) == (Kind.UNKNOWN, "PAYEE_ACCOUNT_STATUS_ERROR")


def test_a_refused_question_ends_nothing(ali: AlipayStand, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = sent(ali, Behaviour.ACCEPTED)
    said = {"code": "40004", "sub_code": "PAYEE_NOT_EXIST"}
    node = "alipay_fund_trans_common_query_response"
    monkeypatch.setattr(ali.server, "_query", lambda *_: ali.server._node(node, said))
    told = ali.provider.query(made.out_number)
    assert (told.kind, told.not_found) == (Kind.UNKNOWN, False)


def test_only_what_alipay_signed_counts(ali: AlipayStand) -> None:
    """A failure would pay the money back: nobody else may say it."""
    failed, request = sent(ali, Behaviour.FAILED)
    assert ali.provider.query(failed.out_number).kind is Kind.FAILED_FINAL
    ali.server.sign_with = "somebody else"
    told = ali.provider.query(failed.out_number)
    assert (told.kind, told.code) == (Kind.UNKNOWN, "bad_signature")
    ali.server.sign_with, ali.server.unsigned = THEIRS, True
    assert ali.provider.submit(failed.out_number, request).kind is Kind.UNKNOWN
    with pytest.raises(ProviderUnavailable):
        ali.provider.balance()


def test_an_answer_about_another_order_is_no_answer(ali: AlipayStand) -> None:
    made, _ = sent(ali, Behaviour.PAID)
    ali.server.said[made.out_number] = {"out_biz_no": uuid.uuid4().hex}
    assert ali.provider.query(made.out_number).code == "malformed"


NODE = '{"code":"10000"}'
SIGN = base64.b64encode(sign(THEIRS, NODE.encode())).decode()


@pytest.mark.parametrize(
    "text",
    [
        f'{{"x_response":{NODE},"sign":"{SIGN}"}}',
        f' {{ "sign" : "{SIGN}" , "x_response" : {NODE} , "alipay_cert_sn" : "1" }}\n',
        f'{{"error_response":{NODE},"sign":"{SIGN}"}}',
        f'{{"sign":"{SIGN}","other":"\\"x_response\\":{{}}","x_response":{NODE}}}',
    ],
)
def test_the_signed_text_is_found_where_it_stands(text: str) -> None:
    assert answer_of(text.encode(), "x_response", key(THEIRS).public_key()) == {"code": "10000"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        f'{{"x_response":{NODE}}}',
        f'{{"x_response":{NODE},"sign":"{SIGN[::-1]}"}}',
        f'{{"x_response":{NODE},"sign":7}}',
        f'{{"x_response": {{"code":"10001"}},"sign":"{SIGN}"}}',
        f'{{"x_response":{NODE},"sign":"{SIGN}"}} trailing',
        # Two of a name: whoever reads the other one would read what nobody signed.
        f'{{"x_response":{NODE},"sign":"{SIGN}","x_response":{{"code":"9"}}}}',
        f'{{"other":{{"x_response":{NODE}}},"sign":"{SIGN}"}}',
        f'{{"x_response":{NODE},"sign":"{SIGN}"',
        f'{{"x_response":{NODE} "sign":"{SIGN}"}}',
        "[" * 100_000,
    ],
)
def test_what_isn_t_signed_or_isn_t_whole_is_nothing(text: str) -> None:
    assert answer_of(text.encode(), "x_response", key(THEIRS).public_key()) is None


# --- notices ------------------------------------------------------------------------------------


def test_both_kinds_of_notice_are_understood(ali: AlipayStand) -> None:
    for type_signed in (False, True):
        headers, raw = ali.server.notice("abc", type_signed=type_signed)
        assert ali.provider.parse_callback(headers, raw).out_number == "abc"


def test_a_notice_is_refused_for_whatever_is_wrong_with_it(ali: AlipayStand) -> None:
    def refused(raw: bytes) -> str:
        with pytest.raises(BadCallback) as bad:
            ali.provider.parse_callback({}, raw)
        return str(bad.value)

    _, raw = ali.server.notice("abc")
    unsigned = "not signed by Alipay"
    for spoilt in (
        raw.replace(b"abc", b"abd", 1),
        raw + b"&extra=1",
        raw + b"&sign=x",
        raw.replace(b"&sign=", b"&sing="),
        raw.replace(b"app_id", b"app_ID"),
        raw + b"&" + b"&".join(b"a%d=" % n for n in range(100)),
        b"\xff" + raw,
        b"{}",
        b"",
    ):
        assert refused(spoilt) == unsigned
    ali.server.sign_with = "somebody else"
    assert refused(ali.server.notice("abc")[1]) == unsigned
    ali.server.sign_with = THEIRS
    assert refused(ali.server.notice("abc", app="2021")[1]) == "not about an app of ours"
    assert refused(ali.server.notice("abc", method="alipay.trade.x")[1]) == "not about a transfer"


# --- bills --------------------------------------------------------------------------------------


def test_a_bill_holds_transfers_and_what_came_back_of_them(ali: AlipayStand) -> None:
    made, _ = sent(ali, Behaviour.PAID)
    back = f"7,77,{made.out_number},退回,2026-02-17 21:00:01,陈*,12.34,,1.00,支付宝,转账,-"
    ali.server.bill_extra = [back]
    paid, returned = ali.provider.statement(ali.day())
    assert (paid.out_number, paid.amount_fen) == (made.out_number, 1_234)
    assert (returned.state, returned.amount_fen) == (LineState.REFUNDED, 1_234)
    assert returned.at.isoformat() == "2026-02-17T21:00:01+08:00"
    assert returned.raw == back


def test_a_day_without_a_bill_has_no_lines(ali: AlipayStand) -> None:
    assert list(ali.provider.statement(dt.date(2020, 1, 1))) == []


def test_a_bill_that_was_cut_off_or_is_none_is_refused(
    ali: AlipayStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(ali, Behaviour.PAID)
    ali.server.bill_cut = True
    with pytest.raises(ProviderUnavailable, match="lines are missing"):
        list(ali.provider.statement(ali.day()))
    whole = ali.server.bill()
    for text in (b"", b"no zip", whole[:-30]):
        monkeypatch.setattr(ali.server, "bill", lambda t=text: t)
        with pytest.raises(ProviderUnavailable, match="can't be read"):
            list(ali.provider.statement(ali.day()))


def test_a_bill_is_fetched_from_safe_addresses_only(
    ali: AlipayStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = "alipay_data_dataservice_bill_downloadurl_query_response"

    def at(url: str) -> Reply:
        return ali.server._node(node, {"code": "10000", "bill_download_url": url})

    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://u:p@127.0.0.1/x", "x"):
        monkeypatch.setattr(ali.server, "_bill_url", lambda _c, u=url: at(u))
        with pytest.raises(ProviderUnavailable):
            list(ali.provider.statement(ali.day()))


def test_a_bill_that_is_announced_over_tls_is_not_fetched_without() -> None:
    with pytest.raises(ProviderUnavailable, match="isn't a safe one"):
        fetched("http://127.0.0.1:9/bill.zip", {}, io.BytesIO(), alipay.adapter.ADDRESS)


# --- credentials --------------------------------------------------------------------------------

Named = tuple[CertificateIssuerPrivateKeyTypes, x509.Name, int]


def certificate(subject: Named, issuer: Named) -> str:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject[1])
        .issuer_name(issuer[1])
        .public_key(subject[0].public_key())  # type: ignore[arg-type]
        .serial_number(subject[2])
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(issuer[0], hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def name(common: str) -> x509.Name:
    parts = (
        (NameOID.COUNTRY_NAME, "CN"),
        (NameOID.ORGANIZATION_NAME, "Ant Financial"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


def test_with_certificates_requests_name_them_as_alipay_does(ali: AlipayStand) -> None:
    root = (key("root"), name("Ant Financial Root R1"), 91)
    curve = (ec.generate_private_key(ec.SECP256R1()), name("Ant Financial Root E1"), 92)
    given = credentials()
    del given["public_key"]
    given |= {
        "app_certificate": certificate((key(OURS), name("the app"), 93), root),
        "alipay_certificate": certificate((key(THEIRS), name("Alipay"), 94), root),
        "root_certificates": certificate(root, root) + certificate(curve, curve) + "\n",
    }
    provider = AlipayProvider(ali.gateway, Credentials.parse(given))
    assert provider.balance() == 1_000_000
    issuer = "CN=Ant Financial Root R1,OU=Certification Authority,O=Ant Financial,C=CN"
    assert ali.server.asked_for["app_cert_sn"] == hashlib.md5(f"{issuer}93".encode()).hexdigest()
    assert (
        ali.server.asked_for["alipay_root_cert_sn"]
        == hashlib.md5(f"{issuer}91".encode()).hexdigest()
    )
    for field in ("app_certificate", "alipay_certificate", "root_certificates"):
        for value in ("", "nonsense"):
            with pytest.raises(CredentialsMissing) as refused:
                Credentials.parse({**given, field: value})
            assert refused.value.field == field


def test_a_private_key_may_come_in_any_of_alipay_s_forms() -> None:
    forms = []
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        pem = key(OURS).private_bytes(Encoding.PEM, form, NoEncryption()).decode()
        forms += [pem, "".join(pem.splitlines()[1:-1])]
    numbers = {
        Credentials.parse({**credentials(), "private_key": form}).private_key.private_numbers().d
        for form in forms
    }
    assert numbers == {key(OURS).private_numbers().d}


@pytest.mark.parametrize(
    "field, value",
    [("app_id", ""), ("user_id", ""), ("private_key", "x"), ("public_key", ""), ("title", "")],
)
def test_credentials_that_cannot_work_are_named(field: str, value: object) -> None:
    with pytest.raises(CredentialsMissing) as refused:
        Credentials.parse({**credentials(), field: value})
    assert refused.value.field == field


def test_without_an_address_it_is_alipay_s_own() -> None:
    provider = AlipayProvider("", Credentials.parse(credentials()))
    assert provider._address == alipay.adapter.ADDRESS
