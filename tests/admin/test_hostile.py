"""Addresses that nobody was given, and words of others: no page of the money breaks or runs them.

What providers answer, and what people write to whoever decides about their money, is shown to staff
who may move it: it must stay text.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from packets.holds.appeals import hold_appeal
from packets.models import Payout, PayoutCall, PayoutMark, ProviderAccount, ProviderChange
from packets.payouts.manual import payout_mark_ask
from packets.providers.base import Kind, Result
from tests.admin import desk
from tests.campaign import stage
from tests.packets.holding import held_hold
from tests.packets.payouts.stage import Rail, payout_of, provider_account, step, use

pytestmark = pytest.mark.django_db(transaction=True)

ACCOUNTS = "/admin/packets/provideraccount/"
SCRIPT = "<img src=x onerror=alert(7)>\"'</script>"
# No row has any of these for its id; Python refuses to make a number of the last one.
NOWHERE = ("abc", "0", "-1", "1_3A", "%00", "²", "9" * 30, "9" * 4_400)
# Where somebody who is logged in is sent whose address leads to nothing, or what they are told.
NOTHING = (302, 404)


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> Rail:
    return use(monkeypatch, Rail())


def told(client: Client, address: str) -> int:
    client.raise_request_exception = False
    return client.get(address).status_code


def test_lists_of_growth_bear_any_address() -> None:
    places = {
        "operations": ("sharelink", "complaint", "reward", "ticketrule"),
        "risk": ("referral", "ban", "riskcase", "serverevent"),
    }
    asked = ("q=%00", "code=%00", "state=%00", "kind=%00", "o=999&p=9999999999", f"q={'9' * 4_000}")
    for group, names in places.items():
        client = desk.at_desk(group)
        for place in names:
            for name in NOWHERE:
                assert told(client, f"/admin/referrals/{place}/{name}/change/") in NOTHING, place
            for text in asked:
                found = told(client, f"/admin/referrals/{place}/?{text}")
                assert found in (200, 302), (place, text)


@pytest.mark.parametrize(
    ("group", "place"),
    [
        ("finance", "packets/payout"),
        ("finance", "packets/provideraccount"),
        ("finance", "packets/statement"),
        ("finance", "packets/difference"),
        ("finance", "packets/stockcheck"),
        ("risk", "packets/hold"),
        ("risk", "packets/riskrule"),
        ("sre", "engine/webhookendpoint"),
        ("sre", "engine/webhookdelivery"),
    ],
)
def test_an_address_without_a_row_leads_nowhere(group: str, place: str) -> None:
    client = desk.at_desk(group)
    found = {name[:8]: told(client, f"/admin/{place}/{name}/change/") for name in NOWHERE}
    assert {name: status for name, status in found.items() if status not in NOTHING} == {}


@pytest.mark.parametrize(
    "address",
    [
        "http://[",
        "https://[::1",
        "https://pay.test:99999",
        "https://pay.test:x",
        "https://pay .test",
        "https://支付.test",
        "https://pay.test/\r\nHost: other",
        "https://pay.test/?key=1",
        "https://fay:secret@pay.test/",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_nothing_could_call_is_refused(address: str) -> None:
    account = provider_account()
    answer = desk.at_desk("finance").post(
        f"{ACCOUNTS}{account.pk}/keys/", {"base_url": address, "reason": "moved"}
    )
    assert answer.status_code == 422
    assert list(desk.refusals(answer)) == ["base_url"]  # type: ignore[arg-type]
    assert not ProviderChange.objects.exists()


def test_withdrawn_a_second_time_it_says_why_not() -> None:
    account = provider_account()
    fay = desk.at_desk("finance", "fay")
    fay.post(f"{ACCOUNTS}{account.pk}/keys/", {"base_url": "https://pay.test/", "reason": "moved"})
    address = f"{ACCOUNTS}change/{ProviderChange.objects.get().pk}/"
    assert fay.post(address, {"then": "withdraw"}).status_code == 302
    again = fay.post(address, {"then": "withdraw"})
    assert again.status_code == 422
    assert ProviderChange.objects.get().state == "withdrawn"


def test_words_of_others_are_text(rail: Rail) -> None:
    account = provider_account()
    payout: Any = payout_of(account)
    rail.says(Result(Kind.UNKNOWN, code=SCRIPT, detail=SCRIPT, provider_ref=SCRIPT))
    step(payout)
    Payout.objects.filter(pk=payout.pk).update(
        manual_reason="too_long", manual_at=Now(), next_attempt_at=None
    )
    assert PayoutCall.objects.filter(detail__contains="<img").exists()
    payout_mark_ask(
        payout_id=payout.pk,
        outcome="failed",
        provider_ref=SCRIPT,
        evidence=SCRIPT,
        by=stage.member("finance", "zoe"),
    )
    _packet, [hold] = held_hold()
    hold_appeal(hold_id=hold.pk, participant=bytes(hold.participant), text=SCRIPT, actor="person:x")
    ProviderAccount.objects.update(breaker="open", breaker_until=Now(), breaker_reason=SCRIPT[:20])
    fay = desk.at_desk("finance", "fay")
    for address in (
        f"/admin/packets/payout/{payout.pk}/change/",
        f"/admin/packets/payout/mark/{PayoutMark.objects.get().pk}/",
        "/admin/packets/payout/",
        "/admin/packets/payout/desk/",
        "/admin/packets/payout/manual/",
        f"{ACCOUNTS}{account.pk}/change/",
        ACCOUNTS,
        f"/admin/packets/hold/{hold.pk}/change/",
    ):
        page = fay.get(address)
        assert page.status_code == 200, address
        assert "<img src=x" not in page.content.decode(), address
    assert "&lt;img src=x" in fay.get(f"/admin/packets/hold/{hold.pk}/change/").content.decode()
    assert "&lt;img src=x" in fay.get(f"/admin/packets/payout/{payout.pk}/change/").content.decode()
