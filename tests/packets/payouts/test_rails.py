"""The whole way over the real adapters: keys are tried out, a payout is paid, the day agrees."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator

import pytest

from engine.lib.crypto import encrypt
from packets import invariants
from packets.models import Difference, Payout, ProviderAccount, Statement
from packets.payouts import accounts, sending
from packets.providers import provider_of
from packets.reconciling import matching, statements
from tests.packets.payouts import stage
from tests.packets.providers import alipay_server, wechat_server
from tests.packets.providers.alipay_server import AlipayServer
from tests.packets.providers.contract import Behaviour
from tests.packets.providers.rail_server import RailServer, payee, private_pem
from tests.packets.providers.wechat_server import WechatServer

pytestmark = pytest.mark.django_db(transaction=True)

Rail = tuple[ProviderAccount, RailServer]
RAILS: dict[str, tuple[Callable[[], RailServer], Callable[[], dict[str, str]], str]] = {
    "wechat": (WechatServer, wechat_server.credentials, ""),
    "alipay": (AlipayServer, alipay_server.credentials, "/gateway.do"),
}


def kept(credentials: dict[str, str]) -> str:
    return encrypt(json.dumps(credentials).encode())


@pytest.fixture(params=RAILS)
def rail(request: pytest.FixtureRequest) -> Iterator[Rail]:
    make, credentials, path = RAILS[request.param]
    server = make()
    with server.running():
        account = stage.provider_account(
            request.param,
            kind=request.param,
            base_url=server.address + path,
            credentials_encrypted=kept(credentials()),
        )
        yield account, server


def test_good_keys_are_told_from_bad_ones_without_moving_money(rail: Rail) -> None:
    account, server = rail
    good = accounts.provider_account_test(account_id=account.pk, actor="sam")
    assert (good.good, good.balance_fen) == (True, server.balance_fen)
    stranger = {**RAILS[account.name][1](), "private_key": private_pem("somebody else")}
    ProviderAccount.objects.update(credentials_encrypted=kept(stranger))
    bad = accounts.provider_account_test(account_id=account.pk, actor="sam")
    assert not bad.good and bad.balance_trouble and bad.query_trouble
    assert not server.sales


def test_a_payout_is_paid_and_found_in_the_statement_of_its_day(rail: Rail) -> None:
    account, server = rail
    payout = stage.payout_of(account, amount_fen=1_234, payee_account=payee(Behaviour.ACCEPTED))
    assert sending.payout_step()
    server.finish(payout.numbers.get().number)
    stage.due_now(payout)
    assert sending.payout_step()
    paid = Payout.objects.get()
    assert (paid.state, paid.provider_ref) == (
        "paid",
        server.sales[payout.numbers.get().number].ref,
    )

    today = dt.datetime.now(wechat_server.ZONE).date()
    told = statements.statement_fetch(account=account, day=today, provider_of=provider_of)
    assert matching.statement_match(statement_id=told.pk)
    told.refresh_from_db()
    assert told.state == Statement.State.MATCHED
    assert not Difference.objects.exists()
    assert invariants.invariants_check().holds
