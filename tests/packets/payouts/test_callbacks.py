"""Callbacks through the front door, from stand-ins that sign as the real providers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine.lib.crypto import encrypt
from packets.models import Account, Payout, PayoutCall, ProviderAccount, Transfer
from packets.payouts import sending
from packets.providers import base
from packets.providers.wechat import WechatProvider
from tests.api.answers import Answer
from tests.api.doors import BASE, WebDoor
from tests.packets.payouts import stage
from tests.packets.providers import alipay_server, wechat_server
from tests.packets.providers.alipay_server import AlipayServer
from tests.packets.providers.contract import Behaviour
from tests.packets.providers.rail_server import RailServer, payee
from tests.packets.providers.wechat_server import WechatServer

pytestmark = pytest.mark.django_db(transaction=True)

State = Payout.State


def account_of(kind: str, address: str, credentials: dict[str, str]) -> ProviderAccount:
    return stage.provider_account(
        kind,
        kind=kind,
        base_url=address,
        credentials_encrypted=encrypt(json.dumps(credentials).encode()),
    )


@pytest.fixture
def wechat(monkeypatch: pytest.MonkeyPatch) -> Iterator[WechatServer]:
    monkeypatch.setattr(base, "READ_TIMEOUT_S", 2.0)
    server = WechatServer()
    with server.running():
        account_of("wechat", server.address, wechat_server.credentials())
        yield server


@pytest.fixture
def ali(monkeypatch: pytest.MonkeyPatch) -> Iterator[AlipayServer]:
    monkeypatch.setattr(base, "READ_TIMEOUT_S", 2.0)
    server = AlipayServer()
    with server.running():
        account_of("alipay", f"{server.address}/gateway.do", alipay_server.credentials())
        yield server


def sent(kind: str, server: RailServer, behaviour: Behaviour) -> tuple[Payout, str]:
    """A payout whose order the provider has, and the number of that."""
    account = ProviderAccount.objects.get(name=kind)
    made = stage.payout_of(account, payee_account=payee(behaviour))
    assert sending.payout_step()
    (number,) = made.numbers.all()
    assert number.number in server.sales
    return now(made), number.number


def now(payout: Payout) -> Payout:
    return Payout.objects.get(id=payout.id)


def post(name: str, headers: dict[str, str], raw: bytes) -> Answer:
    return WebDoor().request("POST", f"{BASE}/payouts/{name}/callback", body=raw, headers=headers)


def books() -> list[Any]:
    """Everything that a callback may not change."""
    return [
        sorted(Account.objects.values_list("id", "debits_fen", "credits_fen")),
        sorted(Transfer.objects.values_list("reference")),
        sorted(Payout.objects.values_list("id", "state", "step", "next_attempt_at", "fence")),
        sorted(PayoutCall.objects.values_list("id", "kind", "ended_at")),
    ]


def test_wechat_says_that_the_person_confirmed_and_is_asked(wechat: WechatServer) -> None:
    payout, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    assert payout.state == State.USER_ACTION
    assert payout.user_action["package"]
    assert not sending.payout_step(), "nothing is due yet"
    wechat.finish(number)
    said = post("wechat", *wechat.notice(number))
    assert (said.status, said.json) == (200, {"code": "SUCCESS", "message": ""})
    assert now(payout).state == State.USER_ACTION, "a callback moves nothing"
    assert sending.payout_step()
    assert now(payout).state == State.PAID
    assert Transfer.objects.get(reference=f"payout-end:{payout.id.hex}").kind == "paid"


def test_alipay_gets_the_word_it_waits_for_and_is_asked(ali: AlipayServer) -> None:
    payout, number = sent("alipay", ali, Behaviour.ACCEPTED)
    ali.finish(number)
    said = post("alipay", *ali.notice(number))
    assert (said.status, said.body) == (200, b"success")
    assert said.headers["Content-Type"].startswith("text/plain")
    assert sending.payout_step()
    assert now(payout).state == State.PAID


def test_what_a_callback_says_of_the_outcome_is_not_what_counts(wechat: WechatServer) -> None:
    payout, number = sent("wechat", wechat, Behaviour.ACCEPTED)
    for claimed in ("SUCCESS", "FAIL", "CANCELLED"):
        assert post("wechat", *wechat.notice(number, state=claimed)).status == 200
        assert sending.payout_step()
        assert now(payout).state == State.ACCEPTED
    wechat.finish(number)
    assert post("wechat", *wechat.notice(number, state="FAIL")).status == 200
    assert sending.payout_step()
    assert now(payout).state == State.PAID


def test_late_repeated_and_reordered_callbacks_change_nothing(wechat: WechatServer) -> None:
    payout, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    old = wechat.notice(number, stamp=1_600_000_000)
    wechat.finish(number)
    new = wechat.notice(number)
    for headers, raw in (new, old, new):
        assert post("wechat", headers, raw).status == 200
    while sending.payout_step():
        pass
    assert now(payout).state == State.PAID
    before = books()[:3]
    for headers, raw in (old, new) * 3:
        assert post("wechat", headers, raw).status == 200
    assert not sending.payout_step()
    assert books()[:3] == before


def test_a_forged_callback_is_told_so_and_changes_nothing(
    wechat: WechatServer, ali: AlipayServer
) -> None:
    _, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    _, other = sent("alipay", ali, Behaviour.ACCEPTED)
    headers, raw = wechat.notice(number)
    _, form = ali.notice(other)
    before = books()
    for name, given, body in (
        ("wechat", headers, raw + b" "),
        ("wechat", headers, raw.replace(b"EV-", b"EW-")),
        ("wechat", {}, raw),
        ("wechat", headers, b""),
        ("alipay", {}, form.replace(b"SUCCESS", b"SUCCES5")),
        ("alipay", headers, raw),
        ("wechat", headers, form),
    ):
        said = post(name, given, body)
        assert (said.status, said.json["code"]) == (401, "bad_signature")
        assert said.headers["Content-Type"] == "application/problem+json"
    assert books() == before


def test_even_a_forger_who_could_sign_would_move_no_money(
    wechat: WechatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    payout, number = sent("wechat", wechat, Behaviour.ACCEPTED)
    money = books()[:2]
    forged = wechat.notice(number, state="SUCCESS")[1]
    with monkeypatch.context() as unguarded:
        unguarded.setattr(WechatProvider, "_signed", lambda *_: True)
        assert post("wechat", {}, forged).status == 200
    assert sending.payout_step()
    assert (now(payout).state, books()[:2]) == (State.ACCEPTED, money)


def test_an_order_that_is_not_ours_is_acknowledged_and_leaves_nothing(
    wechat: WechatServer,
) -> None:
    before = books()
    for number in ("f" * 32, "somebody-else's", "a\0b", "单号", "x" * 500, ""):
        assert post("wechat", *wechat.notice(number)).status == 200, number
    assert books() == before


def test_a_number_of_another_account_is_not_this_account_s(
    wechat: WechatServer, ali: AlipayServer
) -> None:
    payout, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    assert post("alipay", *ali.notice(number)).status == 200
    assert now(payout).called_back_at is None


def test_bodies_arrive_as_they_were_sent(ali: AlipayServer) -> None:
    """Whatever they call themselves: nothing on the way reads a form or a length out of them."""
    _, number = sent("alipay", ali, Behaviour.ACCEPTED)
    _, raw = ali.notice(number)
    for kind in (
        "application/x-www-form-urlencoded; charset=GBK",
        "multipart/form-data; boundary=x",
        "application/json",
        "text/html",
        "",
    ):
        for accept in ("text/html", "image/png", "nonsense"):
            said = post("alipay", {"Content-Type": kind, "Accept": accept}, raw)
            assert (said.status, said.body) == (200, b"success"), kind


def test_a_body_is_read_up_to_its_bound(wechat: WechatServer) -> None:
    bound = 64 * 1024
    assert post("wechat", {}, b"x" * bound).status == 401
    said = post("wechat", {}, b"x" * (bound + 1))
    assert (said.status, said.json["code"]) == (413, "too_large")


def test_other_addresses_and_methods_are_refused(wechat: WechatServer) -> None:
    for name in ("nobody", "we.chat", "wechat%00", "../wechat", "微信"):
        said = post(name, *wechat.notice("x"))
        assert (said.status, said.json["code"]) == (404, "not_found"), name
    got = WebDoor().request("GET", f"{BASE}/payouts/wechat/callback", headers={})
    assert got.status == 405


def test_a_closed_account_still_hears_what_became_of_its_orders(wechat: WechatServer) -> None:
    payout, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    ProviderAccount.objects.update(is_active=False)
    assert post("wechat", *wechat.notice(number)).status == 200
    assert now(payout).called_back_at is not None


def test_with_unusable_keys_the_provider_is_asked_to_come_again(wechat: WechatServer) -> None:
    _, number = sent("wechat", wechat, Behaviour.USER_ACTION)
    before = books()
    for stored in ("", "nokey:nonsense", encrypt(b"{}"), encrypt(b'{"a":"b"}')):
        ProviderAccount.objects.update(credentials_encrypted=stored)
        said = post("wechat", *wechat.notice(number))
        assert (said.status, said.json["code"]) == (503, "unavailable")
    assert books() == before
