"""WeChat Pay: merchant transfers in the current mode, in which the person confirms within 24 hours.

An answer's HTTP status and error code describe the request. Only an order's `state`, in an answer
that WeChat signed and that names our number, says what became of the money; so no error code ever
ends a payout, and the number changes only after the state FAIL or CANCELLED. Errors needn't be
signed: the most they bring about is the same bytes again.

The request is kept as `key id` newline `body`. A name is encrypted under WeChat's public key, anew
each time, so what is sent again is what was kept; the key id says which key that was. Signing, its
check, and the ciphers are `wechatpayv3`'s; the calls are ours, since the library's have no limit of
time or size and follow redirects.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import urlsplit

import orjson
from wechatpayv3.utils import aes_decrypt, build_authorization, rsa_encrypt, rsa_verify

from engine.lib.outgoing import CHUNK_BYTES, Answer
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
    retry_after_s,
    text_in,
    unknown,
)
from packets.providers.wechat import bill
from packets.providers.wechat.keys import Credentials

ADDRESS = "https://api.mch.weixin.qq.com"
ORDERS = "/v3/fund-app/mch-transfer/transfer-bills"
SCHEME = "WECHATPAY2-SHA256-RSA2048"
FINISHED = "MCHTRANSFER.BILL.FINISHED"
MIN_FEN = 10
NAME_FROM_FEN = 30  # WeChat checks no name below
NAME_NEEDED_FROM_FEN = 200_000
REMARK_MAX_CHARS = 32
CONFIRM_WITHIN = dt.timedelta(hours=24)

_NUMBER = re.compile(r"[0-9A-Za-z]{1,32}\Z")
_STATES: Mapping[str, Kind] = {
    "ACCEPTED": Kind.ACCEPTED,
    "PROCESSING": Kind.PENDING,
    "WAIT_USER_CONFIRM": Kind.USER_ACTION,
    "TRANSFERING": Kind.PENDING,
    "SUCCESS": Kind.PAID,
    "FAIL": Kind.FAILED_FINAL,
    "CANCELING": Kind.PENDING,
    "CANCELLED": Kind.FAILED_FINAL,
}
_RATE_LIMITED = ("FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED", "RATE_LIMITED")


class WechatProvider:
    """One merchant account. Only `submit`, `query`, `cancel`, `statement`, `balance` do I/O."""

    name = "wechat"
    capabilities = Capabilities(
        min_fen=MIN_FEN,
        max_fen=None,  # the product's settings at WeChat say
        out_number_max=32,
        user_action=True,
        cancel=True,
        query_window_days=30,
        statement=True,
    )

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._address = address_of(address, ADDRESS)
        self._keys = credentials

    # --- what is sent -----------------------------------------------------------------------------

    def request(self, order: Order) -> bytes:
        if not _NUMBER.match(order.out_number):
            raise ValueError("a number has up to 32 letters and digits")
        if order.currency != "CNY" or order.amount_fen < MIN_FEN:
            raise ValueError("at least 0.10 yuan, and nothing but yuan")
        if order.amount_fen >= NAME_NEEDED_FROM_FEN and not order.payee_name:
            raise ValueError("from 2,000 yuan on WeChat needs the payee's name")
        keys = self._keys
        body: dict[str, Any] = {
            "appid": keys.app_id,
            "out_bill_no": order.out_number,
            "transfer_scene_id": keys.scene_id,
            "openid": order.payee_account,
            "transfer_amount": order.amount_fen,
            "transfer_remark": order.remark[:REMARK_MAX_CHARS],
            "transfer_scene_report_infos": [
                {"info_type": kind, "info_content": content} for kind, content in keys.scene_report
            ],
        }
        if order.payee_name and order.amount_fen >= NAME_FROM_FEN:
            body["user_name"] = rsa_encrypt(order.payee_name, keys.public_key)
        if keys.perception:
            body["user_recv_perception"] = keys.perception
        if order.notify_url.startswith("https://"):
            # WeChat takes no other; without one it doesn't call back, and is asked on schedule.
            body["notify_url"] = order.notify_url
        return keys.public_key_id.encode() + b"\n" + orjson.dumps(body)

    def submit(self, out_number: str, request: bytes) -> Result:
        key_id, _newline, body = request.partition(b"\n")
        return self._order(out_number, self._call("POST", ORDERS, body, key_id.decode()))

    def query(self, out_number: str) -> Result:
        return self._order(out_number, self._call("GET", f"{ORDERS}/out-bill-no/{out_number}"))

    def cancel(self, out_number: str) -> Result:
        path = f"{ORDERS}/out-bill-no/{out_number}/cancel"
        return self._order(out_number, self._call("POST", path))

    def _call(self, method: str, path: str, body: bytes = b"", key_id: str = "") -> Answer | Result:
        headers = self._headers(method, path, body)
        headers["Wechatpay-Serial"] = key_id or self._keys.public_key_id
        return called(method, self._address + path, headers, body)

    def _headers(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        keys = self._keys
        return {
            "Authorization": build_authorization(
                path,
                method,
                keys.merchant_id,
                keys.certificate_serial,
                keys.private_key,
                data=body.decode(),
            ),
            "Accept": "application/json",
            "Content-Type": "application/json",
        }

    # --- what comes back --------------------------------------------------------------------------

    def _order(self, out_number: str, answer: Answer | Result) -> Result:
        if isinstance(answer, Result):
            return answer
        if answer.status != 200:
            return _refusal(answer)
        if not self._signed(answer.headers, answer.body):
            return unknown("bad_signature", answer)
        order = object_in(answer.body)
        if order is None or order.get("out_bill_no") != out_number:
            return unknown("malformed", answer)
        state = code_in(order, "state")
        kind = _STATES.get(state, Kind.UNKNOWN)
        amount = order.get("transfer_amount")
        return Result(
            kind,
            code=(kind is Kind.FAILED_FINAL and code_in(order, "fail_reason"))
            or state
            or "unknown_state",
            http_status=answer.status,
            provider_ref=text_in(order, "transfer_bill_no"),
            amount_fen=amount if type(amount) is int else None,
            user_action=self._action(order) if kind is Kind.USER_ACTION else None,
            expires_at=_expiry(order) if kind is Kind.USER_ACTION else None,
        )

    def _action(self, order: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What the app hands to `requestMerchantTransfer`. A query doesn't repeat it."""
        package = order.get("package_info")
        if not isinstance(package, str) or not package.isprintable():
            return None
        return {
            "kind": "wechat_confirm",
            "mch_id": self._keys.merchant_id,
            "app_id": self._keys.app_id,
            "package": package,
        }

    def _signed(self, headers: Mapping[str, str], raw: bytes) -> bool:
        """Whether WeChat's key signed these bytes. Another key's id is not even looked for."""
        given = {name.lower(): value for name, value in headers.items()}
        if given.get("wechatpay-serial") != self._keys.public_key_id:
            return False
        if given.get("wechatpay-signature-type", SCHEME) != SCHEME:
            return False
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return False
        return bool(
            rsa_verify(
                given.get("wechatpay-timestamp", ""),
                given.get("wechatpay-nonce", ""),
                text,
                given.get("wechatpay-signature", ""),
                self._keys.public_key,
            )
        )

    def parse_callback(self, headers: Mapping[str, str], raw: bytes) -> Event:
        if not self._signed(headers, raw):
            raise BadCallback("not signed by WeChat Pay")
        notice = object_in(raw) or {}
        resource = notice.get("resource")
        if notice.get("event_type") != FINISHED or not isinstance(resource, dict):
            raise BadCallback("not about a transfer")
        order = self._opened(resource)
        number = order.get("out_bill_no")
        if order.get("mch_id") != self._keys.merchant_id or not isinstance(number, str):
            raise BadCallback("not about a transfer of ours")
        return Event(number, text_in(order, "transfer_bill_no"), text_in(notice, "id"))

    def _opened(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        parts = [resource.get(n) for n in ("nonce", "ciphertext", "associated_data", "algorithm")]
        if not all(isinstance(part, str) for part in parts) or parts[3] != "AEAD_AES_256_GCM":
            raise BadCallback("an unknown cipher")
        try:
            text = aes_decrypt(*parts[:3], self._keys.api_v3_key)
        except ValueError:  # no base64, or a nonce of a wrong length
            text = None
        order = object_in(text.encode()) if text is not None else None
        if order is None:
            raise BadCallback("the APIv3 key doesn't open it")
        return order

    # --- reconciling ------------------------------------------------------------------------------

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        path = f"/v3/bill/fundflowbill?bill_date={day.isoformat()}&account_type=OPERATION"
        answer = self._call("GET", path)
        if _code(answer) == "NO_STATEMENT_EXIST":  # a day on which nothing moved
            return
        told = self._told(answer)
        url, digest = told.get("download_url"), told.get("hash_value")
        if not isinstance(url, str) or not isinstance(digest, str):
            raise ProviderUnavailable("no address for the statement")
        parts = urlsplit(url)
        if parts.netloc != urlsplit(self._address).netloc:
            raise ProviderUnavailable("the statement lies at another's address")
        with tempfile.TemporaryFile() as file:
            fetched(url, self._headers("GET", f"{parts.path}?{parts.query}"), file, self._address)
            if _sha1(file) != digest.lower():
                raise ProviderUnavailable("the statement isn't the one that was announced")
            yield from bill.lines(file)

    def balance(self) -> int:
        told = self._told(self._call("GET", "/v3/merchant/fund/balance/OPERATION"))
        available = told.get("available_amount")
        if type(available) is not int:
            raise ProviderUnavailable("no balance in the answer")
        return available

    def _told(self, answer: Answer | Result) -> dict[str, Any]:
        if isinstance(answer, Result):
            raise ProviderUnavailable(answer.code)
        told = object_in(answer.body) or {}
        if answer.status != 200:
            raise ProviderUnavailable(code_in(told, "code") or f"status {answer.status}")
        if not self._signed(answer.headers, answer.body):
            raise ProviderUnavailable("bad_signature")
        return told


def _code(answer: Answer | Result) -> str:
    """The error's, where it is one."""
    if isinstance(answer, Result) or answer.status == 200:
        return ""
    return code_in(object_in(answer.body) or {}, "code")


def _refusal(answer: Answer) -> Result:
    """An error: about the request, never about the money."""
    told = object_in(answer.body) or {}
    code = code_in(told, "code") or f"status_{answer.status}"
    limited = answer.status == 429 or code in _RATE_LIMITED
    short = code == "NOT_ENOUGH"
    return Result(
        Kind.RETRY_SAME if (limited or short) else Kind.UNKNOWN,
        code=code,
        detail=text_in(told, "message"),
        http_status=answer.status,
        retry_after_s=retry_after_s(answer),
        not_found=answer.status == 404 and code == "NOT_FOUND",
        out_of_funds=short,
        rate_limited=limited,
    )


def _expiry(order: Mapping[str, Any]) -> dt.datetime | None:
    made = order.get("create_time")
    try:
        at = dt.datetime.fromisoformat(made) if isinstance(made, str) else None
        return at + CONFIRM_WITHIN if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _sha1(file: IO[bytes]) -> str:
    digest = hashlib.sha1(usedforsecurity=False)  # what WeChat announces; the answer was signed
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    file.seek(0)
    return digest.hexdigest()
