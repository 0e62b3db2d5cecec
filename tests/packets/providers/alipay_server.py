"""A stand-in for Alipay's gateway, which signs and verifies as documented.

Requests: `sign` is RSA2 over all other parameters, sorted and joined, wherever they stand. Answers:
`sign` is RSA2 over the raw text of the one node. Notices: RSA2 over their sorted parameters, with
or without `sign_type`.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import zipfile
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from tests.packets.providers.contract import Behaviour
from tests.packets.providers.rail_server import (
    Asked,
    RailServer,
    Reply,
    Sale,
    private_pem,
    public_pem,
    sign,
    signed_by,
)

ZONE = ZoneInfo("Asia/Shanghai")
APP, USER = "2021000000000001", "2088000000000001"
OURS, THEIRS = "alipay app", "alipay itself"
SKEW_S = 600
FIXED = {"version": "1.0", "format": "json", "charset": "utf-8", "sign_type": "RSA2"}


def credentials() -> dict[str, str]:
    return {
        "app_id": APP,
        "user_id": USER,
        "private_key": private_pem(OURS),
        "public_key": public_pem(THEIRS),
        "title": "新年红包",
    }


def joined(parameters: dict[str, str]) -> bytes:
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters)).encode()


class AlipayServer(RailServer):
    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, dict[str, Any]] = {}  # what a test wants said of an order
        self.sign_with = THEIRS
        self.unsigned = False
        self.bill_extra: list[str] = []
        self.bill_cut = False
        self.names: dict[str, str] = {}
        self.asked_for: dict[str, str] = {}  # the last request's parameters

    # --- signing ------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/bill.zip":
            return Reply(200, self.bill())
        pairs = parse_qsl(urlsplit(asked.target).query, keep_blank_values=True)
        pairs += parse_qsl(asked.body.decode(), keep_blank_values=True)
        given = dict(pairs)
        self.asked_for = dict(given)
        signature = base64.b64decode(given.pop("sign", ""))
        genuine = (
            asked.path == "/gateway.do"
            and len(pairs) == len(given) + 1
            and signed_by(OURS, joined(given), signature)
            and given["app_id"] == APP
            and all(given[name] == value for name, value in FIXED.items())
            and self._fresh(given["timestamp"])
        )
        if not genuine:
            return self._node("error_response", _refused("40002", "isv.invalid-signature"))
        content = json.loads(given["biz_content"])
        match given["method"]:
            case "alipay.fund.trans.uni.transfer":
                return self._transfer(content, given)
            case "alipay.fund.trans.common.query":
                return self._query(content)
            case "alipay.fund.account.query":
                yuan = f"{self.balance_fen // 100}.{self.balance_fen % 100:02d}"
                return self._node("alipay_fund_account_query_response", _ok(available_amount=yuan))
            case "alipay.data.dataservice.bill.downloadurl.query":
                return self._bill_url(content)
            case other:
                raise AssertionError(other)

    def _fresh(self, stamp: str) -> bool:
        at = dt.datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE)
        return abs((dt.datetime.now(ZONE) - at).total_seconds()) <= SKEW_S

    def _node(self, name: str, content: dict[str, Any]) -> Reply:
        """The node's text has blanks and escapes of its own: it must be taken as it is."""
        text = json.dumps(content, ensure_ascii=False, indent=1).replace("/", "\\/")
        signature = base64.b64encode(sign(self.sign_with, text.encode())).decode()
        tail = "" if self.unsigned else f', "sign":"{signature}"'
        return Reply(200, f'{{ "{name}" : {text}{tail}}}'.encode())

    # --- orders -------------------------------------------------------------------------------

    def _transfer(self, content: dict[str, Any], given: dict[str, str]) -> Reply:
        number, payee = content["out_biz_no"], content["payee_info"]["identity"]
        self.bodies.setdefault(number, []).append(
            json.dumps([given["biz_content"], given.get("notify_url")]).encode()
        )
        self.names[number] = content["payee_info"].get("name", "")
        assert content["product_code"] == "TRANS_ACCOUNT_NO_PWD"
        assert content["payee_info"]["identity_type"] == "ALIPAY_OPEN_ID"
        name = "alipay_fund_trans_uni_transfer_response"
        match Behaviour(payee.removeprefix("payee-")):
            case Behaviour.OUT_OF_FUNDS:
                return self._node(name, _refused("40004", "PAYER_BALANCE_NOT_ENOUGH"))
            case Behaviour.RATE_LIMITED:
                return self._node(name, _refused("40005", "isv.app-call-limited"))
            case Behaviour.UNKNOWN_CODE:
                return self._node(name, _refused("40004", "SOMETHING_NEW"))
        whole, _, rest = content["trans_amount"].partition(".")
        sale = self.take(number, payee, int(whole) * 100 + int(rest), given["biz_content"].encode())
        if sale is None:
            return self._node(name, _refused("40004", "PAYMENT_INFO_INCONSISTENCY"))
        odd = self.odd_reply(sale.behaviour)
        if odd is not None:
            return odd
        said = {"out_biz_no": number, "order_id": sale.ref, "status": _status(sale)}
        return self._node(name, _ok(**said, **self.said.get(number, {})))

    def _query(self, content: dict[str, Any]) -> Reply:
        assert (content["product_code"], content["biz_scene"]) == (
            "TRANS_ACCOUNT_NO_PWD",
            "DIRECT_TRANSFER",
        )
        name = "alipay_fund_trans_common_query_response"
        sale = self.sales.get(content["out_biz_no"])
        if sale is None:
            return self._node(name, _refused("40004", "ORDER_NOT_EXIST"))
        amount_fen = sale.amount_fen + (sale.behaviour is Behaviour.WRONG_AMOUNT)
        said = {
            "out_biz_no": sale.number,
            "order_id": sale.ref,
            "status": _status(sale),
            "trans_amount": f"{amount_fen // 100}.{amount_fen % 100:02d}",
        }
        if sale.state == "failed":
            said |= {"error_code": "PAYEE_NOT_EXIST", "fail_reason": "收款账号不存在"}
        return self._node(name, _ok(**{**said, **self.said.get(sale.number, {})}))

    # --- notices and bills --------------------------------------------------------------------

    def notice(
        self,
        number: str,
        *,
        type_signed: bool = False,
        method: str = "alipay.fund.trans.order.changed",
        app: str = APP,
    ) -> tuple[dict[str, str], bytes]:
        sale = self.sales.get(number)
        content = {"out_biz_no": number, "status": "SUCCESS", "origin": "转账"}
        if sale is not None:
            content["order_id"] = sale.ref
        given = {
            "app_id": app,
            "biz_content": json.dumps(content, ensure_ascii=False),
            "charset": "utf-8",
            "msg_method": method,
            "notify_id": f"EV-{number}",
            "utc_timestamp": "1771329600000",
            "version": "1.1",
        }
        typed = {**given, "sign_type": "RSA2"}
        signature = sign(self.sign_with, joined(typed if type_signed else given))
        form = {**typed, "sign": base64.b64encode(signature).decode()}
        return {"content-type": "application/x-www-form-urlencoded"}, urlencode(form).encode()

    def _bill_url(self, content: dict[str, Any]) -> Reply:
        name = "alipay_data_dataservice_bill_downloadurl_query_response"
        assert content["bill_type"] == "signcustomer"
        if content["bill_date"] != str(dt.datetime.now(ZONE).date()):
            return self._node(name, _refused("40004", "isp.bill_not_exist"))
        return self._node(name, _ok(bill_download_url=f"{self.address}/bill.zip"))

    def bill(self) -> bytes:
        rows = ["1,88,-,充值,2026-02-17 09:00:00,银行,9.00,,9.00,支付宝,充值,-"]
        for sale in self.sales.values():
            if sale.state == "paid":
                at = dt.datetime.fromtimestamp(sale.at, ZONE).strftime("%Y-%m-%d %H:%M:%S")
                yuan = f"{sale.amount_fen // 100}.{sale.amount_fen % 100:02d}"
                rows.append(
                    f"9{sale.ref},{sale.ref}\t,{sale.number}\t,新年红包,{at},陈*,,-{yuan},"
                    "100.00,支付宝,转账,备注"
                )
        rows += self.bill_extra
        text = "\r\n".join(
            [
                "#支付宝账务明细查询",
                f"#账号：[{USER}0156]",
                "#-----------------账务明细列表----------------",
                "账务流水号,业务流水号,商户订单号,商品名称,发生时间,对方账号,收入金额（+元）,"
                "支出金额（-元）,账户余额（元）,交易渠道,业务类型,备注",
                *rows,
                "#-----------------账务明细列表结束------------",
                f"#支出合计：{len(rows) - 1}笔，共-9.00元",
                f"#收入合计：{int(not self.bill_cut)}笔，共9.00元",
                "",
            ]
        )
        packed = io.BytesIO()
        names = {"A": "20881_20260217_账务明细(汇总)", "B": "20881_20260217_账务明细"}
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
            for letter, inside in (("A", "#汇总"), ("B", text)):
                stand_in = letter * len(names[letter].encode("gbk"))
                file.writestr(stand_in + ".csv", inside.encode("gbk"))
        raw = packed.getvalue()
        for letter, name in names.items():  # in GBK without saying so, as Alipay's are
            raw = raw.replace(letter.encode() * len(name.encode("gbk")), name.encode("gbk"))
        return raw


def _ok(**said: Any) -> dict[str, Any]:
    return {"code": "10000", "msg": "Success", **said}


def _refused(code: str, sub_code: str) -> dict[str, Any]:
    return {"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "说明/说明"}


def _status(sale: Sale) -> str:
    return {"waiting": "DEALING", "paid": "SUCCESS", "failed": "FAIL"}[sale.state]
