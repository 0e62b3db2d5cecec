"""The desk of payouts at the screen: found by key, explained, decided by two, keys never shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from engine.lib.crypto import decrypt
from engine.models import AuditEvent
from packets.admin import payout_desk, payout_story, payout_words
from packets.models import Payout, PayoutCall, PayoutMark, ProviderAccount, ProviderChange
from packets.payouts import manual
from packets.payouts.rules import ManualReason
from packets.providers.base import CredentialsMissing, Kind, Provider, ProviderUnavailable, Result
from packets.providers.fields import Field
from tests.admin import desk
from tests.campaign import stage
from tests.packets.payouts.stage import (
    NOT_FOUND,
    PAID,
    UNKNOWN,
    Rail,
    ages,
    number_of,
    payout_of,
    provider_account,
    step,
    use,
)

pytestmark = pytest.mark.django_db(transaction=True)

LIST, ACCOUNTS = "/admin/packets/payout/", "/admin/packets/provideraccount/"
SECRET = "sk-live-never-on-a-screen"


@pytest.fixture
def rail(monkeypatch: pytest.MonkeyPatch) -> Rail:
    return use(monkeypatch, Rail())


@pytest.fixture(autouse=True)
def _counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payout_desk, "_kept", None)


def html(client: Client, address: str, status: int = 200) -> str:
    answer = client.get(address)
    assert answer.status_code == status, answer.content.decode()[:2000]
    return answer.content.decode().replace("&#x27;", "'")


def page_of(payout: Payout) -> str:
    return f"{LIST}{payout.pk}/change/"


def press(client: Client, payout: Payout, act: str, **typed: Any) -> Any:
    return client.post(f"{LIST}{payout.pk}/do/{act}/", {"reason": "looked at it", **typed})


def with_a_person(rail: Rail, **columns: Any) -> Payout:
    payout = payout_of(provider_account(**columns), amount_fen=12_345)
    rail.says(UNKNOWN)
    step(payout)
    ages(payout, 48 * 3600)
    rail.says(UNKNOWN)
    return step(payout)


def buttons(page: str) -> set[str]:
    return set(re.findall(r'data-act="([\w-]+)"', page))


# --- finding --------------------------------------------------------------------------------------


def test_payouts_are_found_by_any_of_their_names(rail: Rail) -> None:
    payout = with_a_person(rail, name="two")
    other = payout_of(provider_account("one"), "carol", amount_fen=777)
    Payout.objects.filter(pk=payout.pk).update(provider_ref="ref-1")
    fay = desk.at_desk("finance")
    for text in (
        payout.pk.hex, str(payout.pk), number_of(payout).number, "ref-1", payout.key,
        bytes(payout.participant).hex(),
    ):  # fmt: skip
        page = html(fay, f"{LIST}?q={text}")
        assert payout.pk.hex in page and other.pk.hex not in page, text
    everything = html(fay, LIST)
    assert "¥123.45" in everything and "¥7.77" in everything
    waiting = html(fay, f"{LIST}?waits=too_long")
    assert payout.pk.hex in waiting and other.pk.hex not in waiting
    assert payout.pk.hex not in html(fay, f"{LIST}?state__exact=paid")
    assert "waits for a person" in everything


def test_the_list_is_not_counted(rail: Rail) -> None:
    payout_of(provider_account())
    fay = desk.at_desk("finance")
    with CaptureQueriesContext(
        connection,
    ) as seen:
        html(fay, LIST)
    assert not [one for one in seen if "COUNT(" in one["sql"] and "packets_payout" in one["sql"]]


# --- the story of one -----------------------------------------------------------------------------


def test_the_page_tells_what_happened_and_what_comes_next(rail: Rail) -> None:
    payout = payout_of(provider_account("rail-x"))
    rail.says(Result(Kind.UNKNOWN, code="TIMEOUT-7", http_status=504), Result(Kind.ACCEPTED))
    step(payout)
    step(payout)
    page = html(desk.at_desk("support"), page_of(payout))
    assert re.findall(r'data-item="([\w-]+)"', page) == ["created", "submit", "query", "next"]
    assert "TIMEOUT-7" in page and "HTTP 504" in page
    assert "No clear answer: the outcome is unknown" in page
    assert re.search(r"Asked again in about \d", page)
    assert page.count(number_of(payout).number) == 2, "as sent, and in the list of numbers"
    assert "alice@bank" not in page
    chinese = html(desk.at_desk("support", lang="zh-hans"), page_of(payout))
    assert "结果未知" in chinese and "HTTP 504" in chinese


def test_a_repeat_is_named_as_one_and_an_end_too(rail: Rail) -> None:
    payout = payout_of(provider_account(not_found_grace_s=0))
    rail.says(UNKNOWN, NOT_FOUND, PAID)
    for _ in range(3):
        step(payout)
    page = html(desk.at_desk("finance"), page_of(payout))
    assert page.count("Sent again: the same request, the same number") == 1
    assert 'data-item="paid"' in page and "payout paid" in page.lower()
    assert not buttons(page) & {"query", "send", "mark-paid"}


def test_a_dead_process_is_seen(rail: Rail) -> None:
    payout = payout_of(provider_account())
    rail.says(UNKNOWN)
    payout = step(payout)
    payout.calls.create(number=number_of(payout), kind="query", fence=payout.fence + 1)
    assert "No end on record: the process died." in html(desk.at_desk("finance"), page_of(payout))
    Payout.objects.filter(pk=payout.pk).update(lease_until="2100-01-01T00:00Z")
    assert "A call is under way." in html(desk.at_desk("finance"), page_of(payout))


# --- acts -----------------------------------------------------------------------------------------


def test_only_what_is_possible_is_offered(rail: Rail) -> None:
    fay, sue = desk.at_desk("finance"), desk.at_desk("support")
    waits = {"manual_reason": "review", "manual_at": Now(), "next_attempt_at": None}
    review = payout_of(provider_account(), review_reasons=["wallets_per_payee"], **waits)
    page = html(fay, page_of(review))
    assert buttons(page) == {"release", "refuse"}
    assert "Many wallets paid out to one account" in page
    assert buttons(html(fay, page_of(with_a_person(rail)))) == {"query", "mark-paid", "mark-failed"}
    assert buttons(html(sue, page_of(review))) == set()


def test_an_act_says_what_it_does_and_asks_for_the_password(rail: Rail) -> None:
    payout = with_a_person(rail)
    fay = desk.at_desk("finance")
    address = f"{LIST}{payout.pk}/do/mark-failed/"
    page = html(fay, address)
    assert "¥123.45 goes back into the person's wallet" in page
    assert "If the provider has paid after all, this money is paid twice." in page
    session = fay.session
    session["laisee_password_at"] = 0
    session.save()
    words = {"evidence": "seen", "provider_ref": ""}
    assert fay.post(address, words).status_code == 422
    assert fay.post(address, {**words, "password": "wrong"}).status_code == 422
    assert not PayoutMark.objects.exists()
    assert fay.post(address, {**words, "password": stage.PASSWORD}).status_code == 302
    assert PayoutMark.objects.get().requested_by.username == "finance"


def test_who_comes_second_reads_why_not(rail: Rail) -> None:
    payout = with_a_person(rail)
    fay = desk.at_desk("finance")
    html(fay, f"{LIST}{payout.pk}/do/query/")
    rail.says(PAID)
    manual.payout_query_now(payout_id=payout.pk, actor="staff:ann", reason="x")
    step(payout)
    answer = press(fay, payout, "query")
    assert answer.status_code == 422
    assert "The payout is now: paid." in answer.content.decode()


def test_one_asks_and_another_decides_at_the_screen(rail: Rail) -> None:
    payout = with_a_person(rail)
    fay, bob = desk.at_desk("finance", "fay"), desk.at_desk("approver", "bob")
    asked = press(fay, payout, "mark-paid", provider_ref="r-9", evidence="console, 3 March")
    assert asked.status_code == 302
    mark = PayoutMark.objects.get()
    address = f"{LIST}mark/{mark.pk}/"

    queue = html(bob, f"{LIST}manual/")
    assert "console, 3 March" in queue and payout.pk.hex in queue
    own = html(fay, address)
    assert "Nobody decides on what they asked for." in own and 'value="approve"' not in own
    assert fay.post(address, {"then": "approve"}).status_code == 422

    page = html(bob, address)
    assert "r-9" in page and "¥123.45 counts as paid: it leaves our books for good." in page
    assert bob.post(address, {"then": "approve"}).status_code == 302
    payout.refresh_from_db()
    assert (payout.state, payout.provider_ref) == ("paid", "r-9")
    told = html(fay, page_of(payout))
    assert "staff:bob" in told and "console, 3 March" in told
    assert bob.post(address, {"then": "approve"}).status_code == 422


def test_a_mark_is_rejected_with_a_reason(rail: Rail) -> None:
    payout = with_a_person(rail)
    fay, bob = desk.at_desk("finance", "fay"), desk.at_desk("approver", "bob")
    press(fay, payout, "mark-failed", evidence="seen")
    address = f"{LIST}mark/{PayoutMark.objects.get().pk}/"
    assert bob.post(address, {"then": "reject", "reason": ""}).status_code == 422
    assert bob.post(address, {"then": "reject", "reason": "wrong order"}).status_code == 302
    payout.refresh_from_db()
    assert payout.state == "unknown" and PayoutMark.objects.get().decision == "wrong order"


# --- the desk -------------------------------------------------------------------------------------


def test_the_desk_shows_what_waits_where(rail: Rail) -> None:
    stuck = with_a_person(rail, name="stuck")
    opened = {"breaker": "open", "breaker_reason": "out_of_funds", "breaker_until": Now()}
    ProviderAccount.objects.filter(name="stuck").update(**opened)
    slow = provider_account(
        "slow", rate_per_minute=6, day_limit_fen=10_000, balance_fen=5_000, balance_at=Now()
    )
    for name in ("ann", "ben", "cem"):
        payout_of(slow, name, amount_fen=1_500)
    fay = desk.at_desk("finance")
    page = html(fay, f"{LIST}desk/")
    for words in (
        "6 a minute", "¥45.00 / ¥100.00", "¥50.00, as it was", "waiting <b>3</b>",
        "waiting for one of us <b>1</b>", "Our account at the provider is short of money",
        "30 s", "no campaign",
    ):  # fmt: skip
        assert words in page, words
    part = fay.get(f"{LIST}desk/?part=1")
    assert "no-store" in part["Cache-Control"] and b"<html" not in part.content
    menu = html(fay, "/admin/")
    assert "Waiting for a person" in menu
    assert stuck.pk.hex[:12] in html(fay, f"{LIST}manual/")
    assert desk.at_desk("operations").get(f"{LIST}desk/").status_code == 403


def test_what_took_long_to_count_is_counted_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    payout_of(provider_account())
    monkeypatch.setattr(payout_desk, "QUICK_S", 0.0)
    monkeypatch.setattr(payout_desk, "KEPT_TIMES", 1_000_000)
    first = payout_desk.counted()
    payout_of(provider_account())
    assert payout_desk.counted() is first

    monkeypatch.setattr(payout_desk, "_kept", None)
    assert sum(part.count for part in payout_desk.counted().parts) == 2


def test_an_empty_desk_says_so() -> None:
    fay = desk.at_desk("finance")
    assert "No provider account yet" in html(fay, f"{LIST}desk/")
    assert "Nothing waits for a person." in html(fay, f"{LIST}manual/")


# --- provider accounts ----------------------------------------------------------------------------


class Adapter(Rail):
    """Signs with one secret, and answers two harmless questions."""

    def balance(self) -> int:
        if self.unsendable:
            raise ProviderUnavailable(self.unsendable)
        return 98_765


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Adapter:
    made = Adapter()
    fields = (
        Field("merchant", "Merchant", False, True, ""),
        Field("secret", "Secret", True, True, ""),
    )

    def adapter_of(kind: str, address: str, credentials: Any) -> Provider:
        for field in fields:
            if not credentials.get(field.name):
                raise CredentialsMissing(field.name, "This is needed.")
        return made

    for module in ("payouts.accounts", "admin.provider_accounts", "admin.provider_acts",
                   "admin.provider_forms"):  # fmt: skip
        monkeypatch.setattr(f"packets.{module}.credential_fields", lambda kind: fields)
    monkeypatch.setattr("packets.payouts.accounts.adapter_of", adapter_of)
    monkeypatch.setattr("packets.payouts.accounts.provider_of", lambda account: made)
    return made


def limits(**fields: Any) -> dict[str, Any]:
    return {
        "min_fen": "0.10",
        "max_fen": "200",
        "rate_per_minute": "1800",
        "opens_at": "08:00",
        "closes_at": "22:00",
        "timezone": "Asia/Shanghai",
        "grey_percent": "100",
        "not_found_grace_s": "600",
        "reason": "as agreed",
        **fields,
    }


def act(client: Client, account: ProviderAccount, name: str, **typed: Any) -> Any:
    return client.post(f"{ACCOUNTS}{account.pk}/{name}/", {"reason": "needed", **typed})


def test_an_account_is_made_gets_keys_from_two_people_and_is_switched_on(adapter: Adapter) -> None:
    sam, fay = desk.at_desk("sre", "sam"), desk.at_desk("finance", "fay")
    made = sam.post(f"{ACCOUNTS}add/", limits(name="main", kind="wechat"))
    assert made.status_code == 302, desk.refusals(made)
    account = ProviderAccount.objects.get()
    assert (account.min_fen, account.max_fen, account.is_active) == (10, 20_000, False)
    answer = act(sam, account, "switch")
    assert answer.status_code == 422 and "It has no keys yet." in answer.content.decode()

    short = act(sam, account, "keys", merchant="m-1")
    assert short.status_code == 422 and "This is needed." in short.content.decode()
    asked = act(sam, account, "keys", merchant="m-1", secret=SECRET, base_url="https://pay.test/v3")
    assert asked.status_code == 302
    account.refresh_from_db()
    assert account.credentials_encrypted == "", "nothing is used before somebody else agrees"
    change = ProviderChange.objects.get()
    address = f"{ACCOUNTS}change/{change.pk}/"
    assert sam.post(address, {"then": "approve"}).status_code == 403
    assert fay.post(address, {"then": "approve"}).status_code == 302
    account.refresh_from_db()
    assert account.base_url == "https://pay.test/v3"
    assert SECRET.encode() in decrypt(account.credentials_encrypted)
    assert act(sam, account, "switch").status_code == 302
    account.refresh_from_db()
    assert account.is_active

    for client, where in (
        (sam, f"{ACCOUNTS}{account.pk}/change/"),
        (sam, f"{ACCOUNTS}{account.pk}/keys/"),
        (fay, address),
        (sam, ACCOUNTS),
    ):
        assert SECRET not in html(client, where)
    page = html(sam, f"{ACCOUNTS}{account.pk}/change/")
    assert "m-1" in page and account.credentials_encrypted.split(":")[0] in page
    events = AuditEvent.objects.filter(object_type="provider").order_by("id")
    assert [event.action for event in events] == [
        "provider.create", "provider.change_ask", "provider.change_approve", "provider.switch_on",
    ]  # fmt: skip
    assert not [event for event in events if SECRET in f"{event.before}{event.after}{event.reason}"]


def test_keys_that_are_refused_are_kept_nowhere(adapter: Adapter) -> None:
    account = provider_account("main", kind="wechat")
    before = account.credentials_encrypted
    sam, fay = desk.at_desk("sre", "sam"), desk.at_desk("finance", "fay")
    act(sam, account, "keys", merchant="m", secret=SECRET)
    change = ProviderChange.objects.get()
    answer = fay.post(f"{ACCOUNTS}change/{change.pk}/", {"then": "reject", "reason": "not me"})
    assert answer.status_code == 302
    change.refresh_from_db()
    account.refresh_from_db()
    assert (change.state, change.credentials_encrypted) == ("rejected", "")
    assert account.credentials_encrypted == before


def test_the_same_person_cannot_ask_and_agree(adapter: Adapter) -> None:
    account = provider_account("main", kind="wechat")
    fay = desk.at_desk("finance", "fay")
    act(fay, account, "keys", merchant="m", secret=SECRET)
    change = ProviderChange.objects.get()
    answer = fay.post(f"{ACCOUNTS}change/{change.pk}/", {"then": "approve"})
    assert answer.status_code == 422
    change.refresh_from_db()
    assert change.state == "pending"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_fen": "0.05"}, "This can't be below the smallest payout"),
        ({"opens_at": ""}, "A window has a beginning and an end."),
        ({"closes_at": "08:00"}, "This window is never open."),
        ({"timezone": "Mars"}, "There is no such time zone."),
        ({"grey_percent": "101"}, "This must be from 0 to 100."),
        ({"min_fen": "0.001"}, "At most two digits after the point"),
        ({"reason": ""}, "This field is required."),
    ],
)
def test_limits_that_cannot_be_meant(wrong: dict[str, str], said: str) -> None:
    account = provider_account()
    before = ProviderAccount.objects.values().get()
    answer = desk.at_desk("finance").post(f"{ACCOUNTS}{account.pk}/edit/", limits(**wrong))
    assert answer.status_code == 422
    assert said in answer.content.decode().replace("&#x27;", "'")
    assert ProviderAccount.objects.values().get() == before
    assert not AuditEvent.objects.exists()


def test_limits_are_changed_with_a_reason() -> None:
    account = provider_account("main")
    fay = desk.at_desk("finance")
    address = f"{ACCOUNTS}{account.pk}/edit/"
    html(fay, address)
    assert fay.post(address, limits(day_limit_fen="50000")).status_code == 302
    account.refresh_from_db()
    assert (account.day_limit_fen, account.rate_per_minute) == (5_000_000, 1_800)
    event = AuditEvent.objects.get()
    assert (event.action, event.reason, event.after["day_limit_fen"]) == (
        "provider.set", "as agreed", 5_000_000,
    )  # fmt: skip
    page = html(fay, f"{ACCOUNTS}{account.pk}/change/")
    assert "08:00 – 22:00 Asia/Shanghai" in page and "¥0.10 – ¥200.00" in page


def test_a_breaker_is_closed_and_opened_by_hand() -> None:
    account = provider_account(
        "main", breaker="open", breaker_reason="failures", breaker_until=Now(), failures=12
    )
    sam = desk.at_desk("sre")
    assert "The provider failed several times" in html(sam, f"{ACCOUNTS}{account.pk}/change/")
    assert act(sam, account, "breaker").status_code == 302
    account.refresh_from_db()
    assert (account.breaker, account.failures, account.breaker_until) == ("closed", 0, None)
    assert act(sam, account, "breaker").status_code == 302
    account.refresh_from_db()
    assert (account.breaker, account.breaker_reason) == ("open", "by_hand")
    rows = AuditEvent.objects.order_by("id").values_list("action", flat=True)
    assert list(rows) == ["provider.breaker_close", "provider.breaker_stop"]


def test_the_connection_is_tested_with_two_harmless_questions(adapter: Adapter) -> None:
    account = provider_account("main", kind="wechat")
    sam = desk.at_desk("sre")
    adapter.says(NOT_FOUND)
    page = sam.post(f"{ACCOUNTS}{account.pk}/test/", follow=True).content.decode()
    assert "The balance was read: ¥987.65." in page
    assert "A query was answered: address, keys and signatures are right." in page
    account.refresh_from_db()
    assert account.balance_fen == 98_765 and account.balance_at
    assert adapter.steps == ["query"]

    adapter.unsendable = "503"
    adapter.says(Result(Kind.UNKNOWN, code="SIGN_ERROR"))
    page = sam.post(f"{ACCOUNTS}{account.pk}/test/", follow=True).content.decode()
    assert "The balance could not be read: 503" in page and "SIGN_ERROR" in page
    account.refresh_from_db()
    assert account.balance_fen == 98_765


def test_every_reason_and_state_has_its_words() -> None:
    assert set(payout_words.WHY) == set(ManualReason)
    assert set(payout_words.TONES) == set(Payout.State)
    assert set(payout_story.RESULTS) == set(Kind)
    assert set(payout_story.ASKED) == set(PayoutCall.Kind)
