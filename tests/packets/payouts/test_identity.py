"""Keys of an account are renewed; the account behind them isn't exchanged under its payouts."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User

from engine.lib.crypto import encrypt
from engine.lib.errors import ServiceError
from packets.models import ProviderAccount
from packets.payouts import accounts, sending
from packets.providers import credentials_of
from tests.packets.payouts import stage
from tests.packets.providers import alipay_server, wechat_server
from tests.packets.providers.contract import Behaviour
from tests.packets.providers.rail_server import payee, private_pem
from tests.packets.providers.wechat_server import WechatServer

pytestmark = pytest.mark.django_db(transaction=True)

GIVEN = {"wechat": wechat_server.credentials, "alipay": alipay_server.credentials}
OTHERS = [("wechat", "merchant_id"), ("alipay", "app_id"), ("alipay", "user_id")]


@pytest.fixture
def people() -> tuple[User, User]:
    return User.objects.create(username="sam"), User.objects.create(username="fay")


def account_of(kind: str, address: str = "") -> ProviderAccount:
    return stage.provider_account(
        kind,
        kind=kind,
        base_url=address,
        credentials_encrypted=encrypt(json.dumps(GIVEN[kind]()).encode()),
    )


def ask(account: ProviderAccount, by: User, **credentials: str) -> int:
    return accounts.provider_change_ask(
        account_id=account.pk,
        base_url=account.base_url,
        credentials=credentials,
        by=by,
        reason="renewed",
    ).pk


@pytest.mark.parametrize(("kind", "field"), OTHERS)
def test_another_account_is_refused_once_payouts_went_through_this_one(
    people: tuple[User, User], kind: str, field: str
) -> None:
    sam, fay = people
    account = account_of(kind)
    early = ask(account, sam, **{field: "2088000000000002"})
    stage.payout_of(account, payee_account="2088000000000003")
    with pytest.raises(ServiceError) as refused:
        accounts.provider_change_approve(change_id=early, by=fay)
    assert (refused.value.field, refused.value.code) == (field, "fixed")
    assert credentials_of(ProviderAccount.objects.get())[field] == GIVEN[kind]()[field]
    accounts.provider_change_withdraw(change_id=early, by=sam)
    with pytest.raises(ServiceError) as refused:
        ask(account, sam, **{field: "2088000000000002"})
    assert (refused.value.field, refused.value.code) == (field, "fixed")


def test_an_account_that_was_not_used_may_become_another(people: tuple[User, User]) -> None:
    sam, fay = people
    account = account_of("wechat")
    accounts.provider_change_approve(change_id=ask(account, sam, merchant_id="19"), by=fay)
    assert credentials_of(ProviderAccount.objects.get())["merchant_id"] == "19"


def test_keys_are_renewed_while_payouts_are_under_way(people: tuple[User, User]) -> None:
    sam, fay = people
    account = account_of("wechat")
    stage.payout_of(account)
    new = private_pem("a new one")
    accounts.provider_change_approve(change_id=ask(account, sam, private_key=new), by=fay)
    assert credentials_of(ProviderAccount.objects.get())["private_key"] == new


@pytest.mark.control
def test_without_the_check_what_was_paid_is_paid_again(
    people: tuple[User, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other merchant has never heard of the number."""
    sam, fay = people
    server = WechatServer()
    first, second = server.books[wechat_server.MERCHANT], server.books.setdefault("19", {})
    with server.running():
        account = account_of("wechat", server.address)
        payout = stage.payout_of(account, payee_account=payee(Behaviour.SERVER_ERROR))
        assert sending.payout_step()
        monkeypatch.setattr(accounts, "identity_check", lambda *_: None)
        accounts.provider_change_approve(change_id=ask(account, sam, merchant_id="19"), by=fay)
        stage.ages(payout, account.not_found_grace_s)
        for _ in range(2):  # asked: nothing under that number; sent again
            stage.due_now(payout)
            assert sending.payout_step()
    (number,) = payout.numbers.all()
    assert [books[number.number].state for books in (first, second)] == ["paid", "paid"]
