"""The sandbox's page: faults are set and seen, orders confirmed, by whoever has the right."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from engine.lib.crypto import encrypt
from engine.models import AuditEvent
from packets.models import ProviderAccount
from packets.providers.base import Kind, Order
from packets.providers.sandbox.adapter import SandboxProvider
from tests.admin import desk
from tests.packets.payouts.stage import provider_account
from tests.packets.providers.sandbox_server import SandboxServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    with SandboxServer(tmp_path_factory.mktemp("sandbox")) as made:
        yield made


@pytest.fixture
def account(server: SandboxServer) -> ProviderAccount:
    credentials = json.dumps(server.credentials).encode()
    return provider_account(
        "sandbox", base_url=server.url, credentials_encrypted=encrypt(credentials)
    )


def address(account: ProviderAccount) -> str:
    return reverse("admin:packets_provider_sandbox", args=[account.pk])


def typed(**fields: Any) -> dict[str, Any]:
    return {"seed": "7", "settle_s": "0", "check_numbers": "on", **fields}


def sent(provider: SandboxProvider, payee: str) -> Order:
    order = Order(uuid.uuid4().hex, 1_234, "CNY", payee, "Ann", "", "")
    provider.submit(order.out_number, provider.request(order))
    return order


@pytest.mark.parametrize(
    "lang, words", [("en", "No real money moves here."), ("zh-hans", "这里没有真实资金流动。")]
)
def test_the_page_shows_faults_orders_and_calls(
    server: SandboxServer, account: ProviderAccount, lang: str, words: str
) -> None:
    order = sent(server.provider(), "fault:failed")
    page = desk.at_desk("finance", lang=lang).get(address(account)).content.decode()
    assert words in page
    assert order.out_number in page
    assert "fault:timeout_after_paying" in page
    assert server.secret not in page


def test_faults_and_balance_are_set_and_written_down(
    server: SandboxServer, account: ProviderAccount
) -> None:
    ann = desk.at_desk("finance")
    change = typed(rate_paid_late="5", seconds_paid_late="9", balance="12.34")
    assert ann.post(address(account), change).status_code == 302
    shown = server.provider().control()
    assert shown["rates"] == {"paid_late": 0.05}
    assert shown["seconds"]["paid_late"] == 9
    assert (shown["balance_fen"], shown["seed"]) == (1_234, "7")
    event = AuditEvent.objects.get(action="sandbox.set")
    assert event.after["balance_fen"] == 1_234
    # The page shows what is set, and leaves the balance alone when nothing is typed.
    assert 'value="9' in ann.get(address(account)).content.decode()
    assert ann.post(address(account), typed()).status_code == 302
    assert server.provider().balance() == 1_234
    server.provider().control({"rates": {}, "seconds": {}, "balance_fen": 1_000_000})


def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    server: SandboxServer, account: ProviderAccount
) -> None:
    ann = desk.at_desk("finance")
    before = server.provider().control()
    for wrong in (
        {"rate_failed": "101"},
        {"rate_failed": "60", "rate_closed": "60"},
        {"seconds_paid_late": "-1"},
        {"settle_s": ""},
        {"balance": "a lot"},
    ):
        assert ann.post(address(account), typed(**wrong)).status_code == 422
    after = server.provider().control()
    assert {name: after[name] for name in ("rates", "seconds", "seed", "balance_fen")} == {
        name: before[name] for name in ("rates", "seconds", "seed", "balance_fen")
    }
    assert not AuditEvent.objects.filter(action="sandbox.set").exists()


def test_an_order_is_confirmed_in_its_payee_s_place(
    server: SandboxServer, account: ProviderAccount
) -> None:
    server.provider().control({"balance_fen": 1_000_000})
    order = sent(server.provider(), "fault:user_action")
    ann = desk.at_desk("finance")
    confirm = reverse("admin:packets_provider_sandbox_confirm", args=[account.pk])
    assert ann.get(confirm).status_code == 405
    assert ann.post(confirm, {"number": order.out_number}).status_code == 302
    assert server.provider().query(order.out_number).kind is Kind.PAID
    assert AuditEvent.objects.get(action="sandbox.confirm").after["state"] == "paid"
    assert ann.post(confirm, {"number": "../nothing"}).status_code == 302
    assert AuditEvent.objects.filter(action="sandbox.confirm").count() == 1


def test_whoever_lacks_the_right_is_refused(
    server: SandboxServer, account: ProviderAccount
) -> None:
    support = desk.at_desk("support")
    confirm = reverse("admin:packets_provider_sandbox_confirm", args=[account.pk])
    assert support.post(address(account), typed()).status_code == 403
    assert support.post(confirm, {"number": "1"}).status_code == 403


def test_a_sandbox_that_is_away_is_said_so_and_another_provider_has_no_such_page(
    account: ProviderAccount,
) -> None:
    ann = desk.at_desk("finance")
    ProviderAccount.objects.filter(pk=account.pk).update(base_url="http://127.0.0.1:9")
    page = ann.get(address(account))
    assert (page.status_code, "does not answer" in page.content.decode()) == (200, True)
    ProviderAccount.objects.filter(pk=account.pk).update(kind="wechat")
    assert ann.get(address(account)).status_code == 404
