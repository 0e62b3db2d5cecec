"""A stand-in for WeChat Pay's merchant transfers, which signs and verifies as documented.

Requests: `Authorization: WECHATPAY2-SHA256-RSA2048 …` over method, target, time, nonce and body.
Answers and notices: `Wechatpay-Signature` over time, nonce and raw body, by the key that
`Wechatpay-Serial` names; a notice's resource is sealed with AES-256-GCM under the APIv3 key.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import time
import uuid
from typing import Any
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.packets.providers.contract import Behaviour
from tests.packets.providers.rail_server import (
    Asked,
    RailServer,
    Reply,
    Sale,
    key,
    private_pem,
    public_pem,
    sign,
    signed_by,
)

ZONE = ZoneInfo("Asia/Shanghai")
MERCHANT, APP, SERIAL = "1900000109", "wxd678efh567hg6787", "3775B6A45ACD588826D15E583A95F5DD"
KEY_ID = "PUB_KEY_ID_0119000001092024101500000000000001"
API_KEY = "0123456789abcdef0123456789ABCDEF"
ORDERS = "/v3/fund-app/mch-transfer/transfer-bills"
OURS, THEIRS = "wechat merchant", "wechat itself"
SKEW_S = 300

_PARTS = re.compile(r'(\w+)="([^"]*)"')


def credentials() -> dict[str, str]:
    return {
        "merchant_id": MERCHANT,
        "app_id": APP,
        "certificate_serial": SERIAL,
        "private_key": private_pem(OURS),
        "public_key_id": KEY_ID,
        "public_key": public_pem(THEIRS),
        "api_v3_key": API_KEY,
        "scene_id": "1000",
        "scene_report": "活动名称=新年红包\n奖励说明=抢到的红包",
    }


class WechatServer(RailServer):
    def __init__(self) -> None:
        super().__init__()
        self.books = {MERCHANT: self.sales}  # each merchant's orders; others are strangers
        self.nonces: set[str] = set()
        self.names: dict[str, str] = {}
        self.states: dict[str, dict[str, Any]] = {}  # what a test wants said of an order
        self.bill_extra: list[str] = []
        self.bill_cut = False
        self.sign_with = THEIRS

    # --- signing ------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Reply:
        if not self._genuine(asked):
            return self._error(401, "SIGN_ERROR")
        path = asked.path
        if asked.method == "POST" and path == ORDERS:
            return self._submit(asked)
        if asked.method == "GET" and path.startswith(f"{ORDERS}/out-bill-no/"):
            return self._query(path.rpartition("/")[2])
        if asked.method == "POST" and path.endswith("/cancel"):
            return self._cancel(path.split("/")[-2])
        if asked.method == "GET" and path == "/v3/merchant/fund/balance/OPERATION":
            return self.signed({"available_amount": self.balance_fen, "pending_amount": 0})
        if asked.method == "GET" and path == "/v3/bill/fundflowbill":
            return self._bill(asked)
        if asked.method == "GET" and path == "/v3/billdownload/file":
            return Reply(200, self.bill())
        return self._error(404, "NO_SUCH_ROUTE")

    def _genuine(self, asked: Asked) -> bool:
        scheme, _, rest = asked.headers.get("authorization", "").partition(" ")
        said = dict(_PARTS.findall(rest))
        stamp, nonce = said.get("timestamp", ""), said.get("nonce_str", "")
        text = f"{asked.method}\n{asked.target}\n{stamp}\n{nonce}\n".encode() + asked.body + b"\n"
        if scheme != "WECHATPAY2-SHA256-RSA2048" or nonce in self.nonces:
            return False
        self.nonces.add(nonce)
        self.sales = self.books.get(said.get("mchid", ""), {})
        return (
            said.get("mchid") in self.books
            and said.get("serial_no") == SERIAL
            and abs(time.time() - int(stamp)) <= SKEW_S
            and asked.headers.get("accept") == "application/json"
            and bool(asked.headers.get("user-agent"))
            and signed_by(OURS, text, base64.b64decode(said.get("signature", "")))
        )

    def headers(self, body: bytes, stamp: int | None = None) -> dict[str, str]:
        at, nonce = str(stamp or int(time.time())), uuid.uuid4().hex
        signature = sign(self.sign_with, f"{at}\n{nonce}\n".encode() + body + b"\n")
        return {
            "Content-Type": "application/json; charset=utf-8",
            "Wechatpay-Timestamp": at,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Serial": KEY_ID,
            "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
            "Wechatpay-Signature": base64.b64encode(signature).decode(),
        }

    def signed(self, content: dict[str, Any], status: int = 200) -> Reply:
        body = json.dumps(content, ensure_ascii=False).encode()
        return Reply(status, body, self.headers(body))

    def _error(self, status: int, code: str) -> Reply:
        return self.signed({"code": code, "message": "说明"}, status)

    # --- orders -------------------------------------------------------------------------------

    def _submit(self, asked: Asked) -> Reply:
        given = json.loads(asked.body)
        number, payee = given["out_bill_no"], given["openid"]
        self.bodies.setdefault(number, []).append(asked.body)
        if given["appid"] != APP or given["transfer_scene_id"] != "1000":
            return self._error(400, "PARAM_ERROR")
        if "user_name" in given:
            if asked.headers.get("wechatpay-serial") != KEY_ID:
                return self._error(400, "PARAM_ERROR")
            self.names[number] = self._name(given.pop("user_name"))
        elif given["transfer_amount"] >= 200_000:
            return self._error(400, "PARAM_ERROR")
        decides = json.dumps(given, sort_keys=True).encode()
        match Behaviour(payee.removeprefix("payee-")):
            case Behaviour.OUT_OF_FUNDS:
                return self._error(403, "NOT_ENOUGH")
            case Behaviour.RATE_LIMITED:
                return self._error(429, "FREQUENCY_LIMITED")
            case Behaviour.UNKNOWN_CODE:
                return self._error(400, "SOMETHING_NEW")
        sale = self.take(number, payee, given["transfer_amount"], decides)
        if sale is None:
            return self._error(400, "INVALID_REQUEST")
        return self.odd_reply(sale.behaviour) or self.signed(self._short(sale))

    def _name(self, sealed: str) -> str:
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        return key(THEIRS).decrypt(base64.b64decode(sealed), oaep).decode()

    def _short(self, sale: Sale) -> dict[str, Any]:
        """What a submit says: no amount, but what the person confirms with."""
        said = {
            "out_bill_no": sale.number,
            "transfer_bill_no": sale.ref,
            "create_time": dt.datetime.fromtimestamp(sale.at, ZONE).isoformat(timespec="seconds"),
            "state": self._state(sale),
        }
        if said["state"] == "WAIT_USER_CONFIRM":
            said["package_info"] = "affffddafdfafddffda=="
        return {**said, **self.states.get(sale.number, {})}

    def _long(self, sale: Sale) -> dict[str, Any]:
        wrong = sale.behaviour is Behaviour.WRONG_AMOUNT
        said = {
            **self._short(sale),
            "mch_id": MERCHANT,
            "appid": APP,
            "openid": sale.payee,
            "transfer_amount": sale.amount_fen + wrong,
            "transfer_remark": "备注",
        }
        said.pop("package_info", None)
        if said["state"] == "FAIL":
            said["fail_reason"] = "ACCOUNT_FROZEN"
        return said

    def _state(self, sale: Sale) -> str:
        if sale.state == "waiting":
            asks = sale.behaviour is Behaviour.USER_ACTION
            return "WAIT_USER_CONFIRM" if asks else "PROCESSING"
        return {"paid": "SUCCESS", "failed": "FAIL", "cancelled": "CANCELLED"}[sale.state]

    def _query(self, number: str) -> Reply:
        sale = self.sales.get(number)
        return self.signed(self._long(sale)) if sale else self._error(404, "NOT_FOUND")

    def _cancel(self, number: str) -> Reply:
        sale = self.sales.get(number)
        if sale is None:
            return self._error(404, "NOT_FOUND")
        if sale.state != "waiting":
            return self._error(400, "INVALID_REQUEST")
        sale.state = "cancelled"
        return self.signed(
            {"out_bill_no": number, "transfer_bill_no": sale.ref, "state": "CANCELING"}
        )

    # --- notices and bills --------------------------------------------------------------------

    def notice(
        self,
        number: str,
        stamp: int | None = None,
        event: str = "MCHTRANSFER.BILL.FINISHED",
        api_key: str = API_KEY,
        **changes: Any,
    ) -> tuple[dict[str, str], bytes]:
        sale = self.sales.get(number)
        told = self._long(sale) if sale else {"out_bill_no": number, "mch_id": MERCHANT}
        nonce, about = uuid.uuid4().hex[:12], "mch_payment"
        plain = json.dumps({**told, **changes}).encode()
        sealed = AESGCM(api_key.encode()).encrypt(nonce.encode(), plain, about.encode())
        body = json.dumps(
            {
                "id": f"EV-{number}",
                "create_time": "2026-02-17T20:00:00+08:00",
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": "商家转账单据终态通知",
                "resource": {
                    "original_type": "mch_payment",
                    "algorithm": "AEAD_AES_256_GCM",
                    "ciphertext": base64.b64encode(sealed).decode(),
                    "associated_data": about,
                    "nonce": nonce,
                },
            },
            ensure_ascii=False,
        ).encode()
        return self.headers(body, stamp), body

    def _bill(self, asked: Asked) -> Reply:
        if f"bill_date={dt.datetime.now(ZONE).date()}" not in asked.target:
            return self._error(400, "NO_STATEMENT_EXIST")
        return self.signed(
            {
                "hash_type": "SHA1",
                "hash_value": hashlib.sha1(self.bill()).hexdigest(),
                "download_url": f"{self.address}/v3/billdownload/file?token=abc&tartype=",
            }
        )

    def bill(self) -> bytes:
        rows = [
            "记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额（元）,"
            "账户结余（元）,资金变更提交申请人,备注,业务凭证号",
            "`2026-02-17 09:00:00,`1,`2,`充值,`充值,`收入,`9.00,`9.00,`system,`-,`-",
        ]
        for sale in self.sales.values():
            if sale.state == "paid":
                at = dt.datetime.fromtimestamp(sale.at, ZONE).strftime("%Y-%m-%d %H:%M:%S")
                yuan = f"{sale.amount_fen // 100}.{sale.amount_fen % 100:02d}"
                rows.append(
                    f"`{at},`{sale.ref},`9{sale.ref},`商家转账,`商家转账,`支出,`{yuan},"
                    f"`100.00,`system,`备注,`{sale.number}"
                )
        rows += self.bill_extra
        count = len(rows) - 1 - int(self.bill_cut)
        rows += [
            "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额",
            f"`{count}.0,`1.0,`9.00,`1.0,`1",
        ]
        return ("\ufeff" + "\r\n".join(rows) + "\r\n").encode()
