"""Alipay: single transfers to an Alipay account (`alipay.fund.trans.uni.transfer`).

A repeat under the same number returns the first success, so the same bytes may always be sent
again. What decides is an answer that Alipay signed: `status` where the call succeeded, `sub_code`
where it failed. The sub-codes that end a payout are listed below and all speak of the payee or of
the amount; any other one, and whatever isn't signed, leaves the outcome unknown.

The request is kept as the parameters that Alipay's SDK makes of it. What is sent adds the time, the
app and the signature, which are new each time; the rest is the same to the byte. The SDK's own HTTP
client isn't used: it knows one timeout for a single wait, and no address with a port.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from alipay.aop.api.domain.AlipayDataDataserviceBillDownloadurlQueryModel import (
    AlipayDataDataserviceBillDownloadurlQueryModel,
)
from alipay.aop.api.domain.AlipayFundAccountQueryModel import AlipayFundAccountQueryModel
from alipay.aop.api.domain.AlipayFundTransCommonQueryModel import AlipayFundTransCommonQueryModel
from alipay.aop.api.domain.AlipayFundTransUniTransferModel import AlipayFundTransUniTransferModel
from alipay.aop.api.domain.Participant import Participant
from alipay.aop.api.request.AlipayDataDataserviceBillDownloadurlQueryRequest import (
    AlipayDataDataserviceBillDownloadurlQueryRequest,
)
from alipay.aop.api.request.AlipayFundAccountQueryRequest import AlipayFundAccountQueryRequest
from alipay.aop.api.request.AlipayFundTransCommonQueryRequest import (
    AlipayFundTransCommonQueryRequest,
)
from alipay.aop.api.request.AlipayFundTransUniTransferRequest import (
    AlipayFundTransUniTransferRequest,
)

from engine.lib.money import fen_of, yuan_of
from engine.lib.outgoing import Answer
from packets.providers import base
from packets.providers.alipay import bill
from packets.providers.alipay.keys import Credentials
from packets.providers.alipay.wire import CHARSET, answer_of, notice_of, signed
from packets.providers.base import (
    BadCallback,
    Capabilities,
    Event,
    Kind,
    Order,
    ProviderUnavailable,
    Result,
    StatementLine,
)
from packets.providers.calls import (
    address_of,
    called,
    code_in,
    fetched,
    object_in,
    text_in,
    unknown,
)

ADDRESS = "https://openapi.alipay.com/gateway.do"
ORDER_CHANGED = "alipay.fund.trans.order.changed"
PRODUCT = "TRANS_ACCOUNT_NO_PWD"
MIN_FEN = 10
MAX_FEN = 10_000_000  # 100,000 yuan to a company, the highest of Alipay's own bounds
REMARK_MAX_CHARS = 200
ZONE = ZoneInfo("Asia/Shanghai")  # Alipay's clock
# The payer's limit of the day or month: no use in asking sooner.
LIMIT_RETRY_S = 3600.0

_NUMBER = re.compile(r"[0-9A-Za-z_]{1,64}\Z")
_EMAIL_OR_PHONE = re.compile(r"[^@\s]+@[^@\s]+\Z|1\d{10}\Z")
_STATUSES: Mapping[str, Kind] = {
    "SUCCESS": Kind.PAID,
    "DEALING": Kind.PENDING,
    "INIT": Kind.PENDING,
    "WAIT_PAY": Kind.PENDING,
    "FAIL": Kind.FAILED_FINAL,
    "CLOSED": Kind.FAILED_FINAL,
    "REFUND": Kind.FAILED_FINAL,
}
# A transfer that is refused like this is not made, and won't be by asking again.
_FINAL = frozenset(
    """PAYEE_NOT_EXIST PAYEE_ACCOUNT_NOT_EXSIT PAYEE_USER_INFO_ERROR PAYEE_ACC_OCUPIED
    PAYEE_ACCOUNT_STATUS_ERROR PAYEE_CERT_INFO_ERROR PAYEE_NOT_RELNAME_CERTIFY PAYEE_USER_TYPE_ERROR
    PERM_AML_NOT_REALNAME_REV PERMIT_NON_BANK_LIMIT_PAYEE PERMIT_CHECK_RECEIVE_LIMIT
    RELEASE_USER_FORBBIDEN_RECIEVE BLOCK_USER_FORBBIDEN_RECIEVE NO_ACCOUNT_USER_FORBBIDEN_RECIEVE
    NO_ACCOUNT_RECEIVE_PERMISSION EXCEED_LIMIT_UNRN_DM_AMOUNT EXCEED_LIMIT_SM_MIN_AMOUNT
    EXCEED_LIMIT_SM_AMOUNT EXCEED_LIMIT_PERSONAL_SM_AMOUNT EXCEED_LIMIT_ENT_SM_AMOUNT
    PAYER_PAYEE_CANNOT_SAME REMARK_HAS_SENSITIVE_WORD""".split()
)
_OUT_OF_FUNDS = frozenset({"PAYER_BALANCE_NOT_ENOUGH", "BALANCE_IS_NOT_ENOUGH"})
_PAYER_LIMITS = frozenset(
    {"EXCEED_LIMIT_DM_AMOUNT", "EXCEED_LIMIT_DM_MAX_AMOUNT", "EXCEED_LIMIT_MM_AMOUNT"}
    | {"EXCEED_LIMIT_MM_MAX_AMOUNT"}
)
_RATE_LIMITED = frozenset({"RESOURCE_LIMIT_EXCEED", "isv.app-call-limited", "isv.call-limited"})
_TOO_OFTEN = "40005"  # the gateway's code for the same


class AlipayProvider:
    """One app and the account it pays from."""

    name = "alipay"
    capabilities = Capabilities(
        min_fen=MIN_FEN,
        max_fen=MAX_FEN,
        out_number_max=64,
        user_action=False,
        cancel=False,
        query_window_days=90,
        statement=True,
    )

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address = address_of(address, ADDRESS)
        self._keys = credentials

    # --- what is sent -----------------------------------------------------------------------------

    def request(self, order: Order) -> bytes:
        if not _NUMBER.match(order.out_number):
            raise ValueError("a number has up to 64 letters, digits and underscores")
        if order.currency != "CNY" or not MIN_FEN <= order.amount_fen <= MAX_FEN:
            raise ValueError("0.10 to 100,000 yuan, and nothing but yuan")
        payee = Participant()
        payee.identity = order.payee_account
        payee.identity_type = _identity_type(order.payee_account)
        if order.payee_name:
            payee.name = order.payee_name
        elif payee.identity_type == "ALIPAY_LOGON_ID":
            raise ValueError("Alipay needs the name that belongs to an address or phone number")
        model = AlipayFundTransUniTransferModel()
        model.out_biz_no = order.out_number
        model.trans_amount = yuan_of(order.amount_fen)
        model.product_code = PRODUCT
        model.biz_scene = self._keys.scene
        model.order_title = self._keys.title
        model.payee_info = payee
        model.remark = order.remark[:REMARK_MAX_CHARS]
        request = AlipayFundTransUniTransferRequest(biz_model=model)
        if order.notify_url:
            request.notify_url = order.notify_url
        return json.dumps(request.get_params(), ensure_ascii=False, sort_keys=True).encode()

    def submit(self, out_number: str, request: bytes) -> Result:
        until = time.monotonic() + base.CALL_LIMIT_S
        said = self._order(out_number, json.loads(request), amount="amount")
        if said.kind is not Kind.UNKNOWN or said.code not in _FINAL:
            return said
        found = self._query(out_number, until - time.monotonic())
        if found.not_found:
            return dataclasses.replace(said, kind=Kind.FAILED_FINAL)
        return found if found.kind is not Kind.UNKNOWN else said

    def query(self, out_number: str) -> Result:
        return self._query(out_number, base.CALL_LIMIT_S)

    def _query(self, out_number: str, within_s: float) -> Result:
        model = AlipayFundTransCommonQueryModel()
        model.product_code = PRODUCT
        model.biz_scene = self._keys.scene
        model.out_biz_no = out_number
        request = AlipayFundTransCommonQueryRequest(biz_model=model)
        return self._order(out_number, request.get_params(), "trans_amount", within_s)

    def cancel(self, out_number: str) -> Result:
        """Alipay takes nothing back: what it says of the order is all there is to know."""
        return self.query(out_number)

    def _call(
        self, params: Mapping[str, str], within_s: float | None = None
    ) -> tuple[Answer | Result, dict[str, Any] | None]:
        """The answer, and what Alipay signed of it."""
        keys = self._keys
        own = dict(params)
        method, version = own.pop("method"), own.pop("version")
        common = {
            "app_id": keys.app_id,
            "method": method,
            "version": version,
            "format": "json",
            "charset": CHARSET,
            "sign_type": "RSA2",
            "timestamp": dt.datetime.now(ZONE).strftime("%Y-%m-%d %H:%M:%S"),
            **keys.certificate_names,
        }
        notify_url = own.pop("notify_url", "")
        if notify_url:
            common["notify_url"] = notify_url
        sent = signed(common, own, keys.private_key)
        answer = called(
            "POST",
            f"{self._address}?{sent.query}",
            {"Content-Type": f"application/x-www-form-urlencoded;charset={CHARSET}"},
            sent.body,
            within_s,
        )
        if isinstance(answer, Result):
            return answer, None
        node = method.replace(".", "_") + "_response"
        return answer, answer_of(answer.body, node, keys.public_key)

    # --- what comes back --------------------------------------------------------------------------

    def _order(
        self,
        out_number: str,
        params: Mapping[str, str],
        amount: str,
        within_s: float | None = None,
    ) -> Result:
        answer, told = self._call(params, within_s)
        if isinstance(answer, Result):
            return answer
        if answer.status == 429:
            return Result(Kind.RETRY_SAME, code="status_429", http_status=429, rate_limited=True)
        if answer.status != 200:
            return unknown(f"status_{answer.status}", answer)
        if told is None:
            return unknown("bad_signature", answer)
        if code_in(told, "code") != "10000":
            return _failure(told, answer)
        if told.get("out_biz_no") != out_number:
            return unknown("malformed", answer)
        status = code_in(told, "status")
        kind = _STATUSES.get(status, Kind.UNKNOWN)
        return Result(
            kind,
            code=(kind is Kind.FAILED_FINAL and code_in(told, "error_code"))
            or status
            or "unknown_status",
            detail=text_in(told, "fail_reason"),
            http_status=answer.status,
            provider_ref=text_in(told, "order_id"),
            amount_fen=_fen(told.get(amount)),
        )

    def parse_callback(self, headers: Mapping[str, str], raw: bytes) -> Event:
        notice = notice_of(raw, self._keys.public_key)
        if notice is None:
            raise BadCallback("not signed by Alipay")
        if notice.get("app_id") != self._keys.app_id:
            raise BadCallback("not about an app of ours")
        told = object_in(notice.get("biz_content", "").encode()) or {}
        number = told.get("out_biz_no")
        if notice.get("msg_method") != ORDER_CHANGED or not isinstance(number, str):
            raise BadCallback("not about a transfer")
        return Event(number, text_in(told, "order_id"), text_in(notice, "notify_id"))

    # --- reconciling ------------------------------------------------------------------------------

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        model = AlipayDataDataserviceBillDownloadurlQueryModel()
        model.bill_type = "signcustomer"
        model.bill_date = day.isoformat()
        request = AlipayDataDataserviceBillDownloadurlQueryRequest(biz_model=model)
        told = self._told(request.get_params(), none="isp.bill_not_exist")
        if told is None:
            return
        url = told.get("bill_download_url")
        if not isinstance(url, str):
            raise ProviderUnavailable("no address for the statement")
        with tempfile.TemporaryFile() as file:
            fetched(url, {}, file, self._address)
            yield from bill.lines(file)

    def balance(self) -> int:
        model = AlipayFundAccountQueryModel()
        model.alipay_user_id = self._keys.user_id
        model.account_type = "ACCTRANS_ACCOUNT"
        told = self._told(AlipayFundAccountQueryRequest(biz_model=model).get_params())
        available = _fen(told.get("available_amount")) if told is not None else None
        if available is None:
            raise ProviderUnavailable("no balance in the answer")
        return available

    def _told(self, params: Mapping[str, str], none: str = "") -> dict[str, Any] | None:
        """What a call that succeeded says; None for the sub-code that says there is nothing."""
        answer, told = self._call(params)
        if isinstance(answer, Result):
            raise ProviderUnavailable(answer.code)
        if answer.status != 200 or told is None:
            raise ProviderUnavailable(f"status {answer.status}, signed: {told is not None}")
        if code_in(told, "code") == "10000":
            return told
        sub_code = code_in(told, "sub_code")
        if none and sub_code == none:
            return None
        raise ProviderUnavailable(sub_code or code_in(told, "code") or "malformed")


def _failure(told: Mapping[str, Any], answer: Answer) -> Result:
    """A call that Alipay refused: by its sub-code alone."""
    code = code_in(told, "sub_code") or code_in(told, "code") or "malformed"
    short = code in _OUT_OF_FUNDS
    limited = code in _RATE_LIMITED or code_in(told, "code") == _TOO_OFTEN
    later = short or limited or code in _PAYER_LIMITS
    return Result(
        Kind.RETRY_SAME if later else Kind.UNKNOWN,
        code=code,
        detail=text_in(told, "sub_msg"),
        http_status=answer.status,
        retry_after_s=LIMIT_RETRY_S if code in _PAYER_LIMITS else None,
        not_found=code == "ORDER_NOT_EXIST",
        out_of_funds=short,
        rate_limited=limited,
    )


def _identity_type(account: str) -> str:
    if _EMAIL_OR_PHONE.match(account):
        return "ALIPAY_LOGON_ID"
    return "ALIPAY_USER_ID" if account.startswith("2088") else "ALIPAY_OPEN_ID"


def _fen(value: Any) -> int | None:
    try:
        return fen_of(value) if isinstance(value, str) else None
    except ValueError:
        return None
