"""A payout whose outcome nobody knows, from the queue for people to two people's decision.

A person withdraws over HTTP and the copy's own sandbox plays a provider that knows nothing of it.
Two days are passed by moving the payout's times back; everything else is done by hands.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.crowd import Crowd
from tests.browser.hand import PATIENCE_MS, PICTURES, WINDOW, Hand
from tests.private_copy import Copy

pytestmark = [pytest.mark.timeout(300), pytest.mark.nightly]

Person = Callable[..., Hand]
MANUAL = "Waiting for a person"
EVIDENCE = {
    "zh-hans": "3 月 3 日 10:20 在渠道后台查到该单：已付款，金额一致，见截图 A-17",
    "en": "Seen in the provider's console on 3 March, 10:20: paid, same amount; screenshot A-17",
}
REASON = {"zh-hans": "两天没有结果", "en": "No result for two days"}
# The provider takes the order, answers nothing, and knows nothing of it for a day.
LOST = "fault:not_found_first:86400"
# For a picture of a busy desk: what happens to further withdrawals.
OTHERS = (
    "fault:paid_late:3600", "fault:user_action", "fault:paid_late:7200", "fine", "fine",
    "slow-1", "slow-2", "slow-3", "slow-4", "slow-5",
)  # fmt: skip
SLOW = 5  # of them wait for their turn
PATIENCE_S = 60
LEAST_FEN = 10  # the sandbox pays no less
PHONE = {"width": 390, "height": 850}


@dataclass(frozen=True)
class Customer:
    """Somebody with money in a wallet, and the app that speaks for them."""

    crowd: Crowd
    who: str

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        address = urlsplit(self.crowd.copy.base_url)
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        try:
            link.request(
                method,
                f"/api/v1{path}",
                body=None if body is None else json.dumps(body),
                headers={
                    "Authorization": f"Bearer {self.crowd._token(self.who)}",
                    "Content-Type": "application/json",
                    **headers,
                },
            )
            answer = link.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            assert answer.status < 300, (answer.status, found)
            return found
        finally:
            link.close()

    def available_fen(self) -> int:
        return int(self.call("GET", "/me/wallet")["available_fen"])

    def withdraw(self, provider: str, amount_fen: int, payee: str) -> str:
        body = {"amount_fen": amount_fen, "provider": provider, "payee": {"account": payee}}
        made = self.call("POST", "/me/withdrawals", body, **{"Idempotency-Key": uuid.uuid4().hex})
        return str(made["id"])


def customer(demo: dict[str, Any], laisee: Copy) -> tuple[Customer, int]:
    """Somebody new who has won something, once it is in the wallet."""
    key = demo["client_key"]
    crowd = Crowd(laisee, key["kid"], key["secret"])
    amount_fen = 0
    while amount_fen < LEAST_FEN:
        found = Customer(crowd, f"winner-{uuid.uuid4().hex[:8]}")
        amount_fen = int(crowd.claim(demo["packet"], found.who)["claim"]["amount_fen"])
    until(lambda: found.available_fen() >= amount_fen, "the portion in the wallet")
    return found, amount_fen


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.3)


def two_days_pass(laisee: Copy, payout: str) -> None:
    """It was sent two days ago and is due to be asked about."""
    with psycopg.connect(laisee.env["DATABASE_URL"]) as link:
        link.execute(
            "UPDATE packets_payout SET next_attempt_at = now(),"
            " first_submitted_at = first_submitted_at - interval '49 hours'"
            " WHERE id = %s AND lease_until IS NULL",
            [payout],
        )


def busy(demo: dict[str, Any], laisee: Copy) -> None:
    """A slow rail with a day's limit, and people who wait: for pictures."""
    for payee in OTHERS:
        other, other_fen = customer(demo, laisee)
        if payee == OTHERS[-SLOW]:
            pace(laisee, "rate_per_minute = 2, day_limit_fen = 5000")
        other.withdraw(demo["provider"], other_fen, payee)


def pace(laisee: Copy, columns: str) -> None:
    with psycopg.connect(laisee.env["DATABASE_URL"]) as link:
        link.execute(f"UPDATE packets_provideraccount SET {columns}")  # type: ignore[arg-type]


def column(laisee: Copy, payout: str, name: str) -> Any:
    with psycopg.connect(laisee.env["DATABASE_URL"]) as link:
        row = link.execute(
            f"SELECT {name} FROM packets_payout WHERE id = %s",  # type: ignore[arg-type]
            [payout],
        ).fetchone()
    assert row is not None
    return row[0]


def menu(hand: Hand, name: str) -> Locator:
    """The line of the navigation, whose icon is part of its name."""
    return hand.page.locator(f"a[href$='/packets/payout/{name}/']").first


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_a_payout_that_nobody_knows_of_is_ended_by_two(
    language: str, person: Person, laisee: Copy, demo: dict[str, Any]
) -> None:
    staff = {member["group"]: member for member in demo["staff"]}
    finance, approver = person(language, "finance"), person(language, "approver")
    winner, amount_fen = customer(demo, laisee)
    payout = winner.withdraw(demo["provider"], amount_fen, LOST)
    if PICTURES:
        busy(demo, laisee)
    until(lambda: column(laisee, payout, "state") == "unknown", "an unknown outcome")
    two_days_pass(laisee, payout)
    until(lambda: column(laisee, payout, "manual_reason") == "too_long", "a person's turn")

    # Finance sees at the desk that something waits, reads why, and asks once more.
    member = staff["finance"]
    finance.log_in(member["username"], member["password"], member["totp_secret"])
    finance.click(menu(finance, "desk"))
    expect(finance.page.locator("[data-account]")).to_contain_text(demo["provider"])
    finance.picture("payout-desk", whole=True)
    pace(laisee, "rate_per_minute = NULL, day_limit_fen = NULL, paced_until = NULL")
    expect(menu(finance, "manual")).to_contain_text(finance.say(MANUAL))
    finance.click(menu(finance, "manual"))
    finance.picture("payout-queue")
    finance.click(finance.page.locator(f"[data-payout='{payout.replace('-', '')}'] a"))
    expect(finance.page.locator("[data-manual=too_long]")).to_be_visible()
    expect(finance.page.locator("[data-item=submit]").first).to_be_visible()
    finance.picture("payout", whole=True)
    finance.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert finance.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    finance.page.set_viewport_size(WINDOW)  # type: ignore[arg-type]
    asked = column(laisee, payout, "fence")
    finance.click(finance.page.locator("[data-act=query]"))
    finance.fill(finance.page.locator("textarea[name=reason]"), REASON[language])
    finance.click(finance.page.locator("[data-confirm]"))
    until(lambda: column(laisee, payout, "fence") > asked, "the query")
    until(lambda: column(laisee, payout, "lease_until") is None, "its answer")

    # The provider's console says it was paid: finance asks for the mark, and can't decide on it.
    finance.page.reload()
    finance.click(finance.page.locator("[data-act=mark-paid]"))
    finance.fill(finance.page.locator("input[name=provider_ref]"), "A-17")
    finance.fill(finance.page.locator("textarea[name=evidence]"), EVIDENCE[language])
    finance.picture("payout-mark")
    finance.click(finance.page.locator("[data-confirm]"))
    finance.click(finance.page.locator("[data-act=decide]"))
    finance.sees(finance.say("Nobody decides on what they asked for."))
    expect(finance.page.locator("button[value=approve]")).to_have_count(0)
    assert column(laisee, payout, "state") == "unknown"

    # Somebody else reads the evidence and agrees: the money has left, once.
    member = staff["approver"]
    approver.log_in(member["username"], member["password"], member["totp_secret"])
    approver.click(menu(approver, "manual"))
    approver.click(approver.page.locator("[data-mark]").first)
    approver.sees(EVIDENCE[language])
    approver.picture("payout-decide")
    approver.click(approver.page.locator("button[value=approve]"))
    expect(approver.page.locator("[data-state=paid]")).to_be_visible(timeout=PATIENCE_MS)
    expect(approver.page.locator("[data-state=paid]")).to_have_text(approver.say("paid"))
    assert winner.call("GET", f"/me/withdrawals/{payout}")["state"] == "paid"
    assert winner.available_fen() == 0
    assert re.search(r"data-item=\"payout-mark_approve\"", approver.page.content())
    books = json.loads(laisee.manage("audit_money", "--json"))
    assert all(check["verdict"] != "red" for check in books["checks"]), books
