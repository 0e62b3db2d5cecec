"""A day is reconciled by hand: a statement is uploaded, what differs is looked at and resolved.

People withdraw over HTTP and the copy's own sandbox pays; their payouts are moved three days back,
and the statement of that day is a file in which one amount is wrong and one line is nobody's.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from playwright.sync_api import expect

from tests.browser.hand import PATIENCE_MS
from tests.browser.test_payouts import Person, customer, until
from tests.private_copy import Copy

pytestmark = [pytest.mark.timeout(300), pytest.mark.nightly]

ZONE = ZoneInfo("Asia/Shanghai")
REASON = {
    "zh-hans": "渠道客服确认：多记 1 分，已更正",
    "en": "Their desk confirms one fen too many",
}
PEOPLE = 4


def paid_three_days_ago(laisee: Copy, payouts: list[str], day: dt.date) -> list[tuple[str, int]]:
    """(number, fen) of each, as if all of them had been paid at noon of that day."""
    noon = dt.datetime.combine(day, dt.time(12), ZONE)
    with psycopg.connect(laisee.env["DATABASE_URL"]) as link:
        link.execute(
            "UPDATE packets_payout SET first_submitted_at = %s, ended_at = %s WHERE id = ANY(%s)",
            [noon, noon, payouts],
        )
        return link.execute(
            "SELECT number.number, payout.amount_fen FROM packets_payout AS payout"
            "  JOIN packets_payoutnumber AS number ON number.payout_id = payout.id"
            " WHERE payout.id = ANY(%s) ORDER BY number.id",
            [payouts],
        ).fetchall()


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_a_day_is_reconciled(
    language: str, person: Person, laisee: Copy, demo: dict[str, Any], tmp_path: Path
) -> None:
    # A day of its own for each language: what the other one left is not in the way.
    day = dt.datetime.now(ZONE).date() - dt.timedelta(days=3 if language == "en" else 5)
    payouts = []
    for _ in range(PEOPLE):
        winner, fen = customer(demo, laisee)
        payouts.append(winner.withdraw(demo["provider"], fen, "fine"))
    with psycopg.connect(laisee.env["DATABASE_URL"], autocommit=True) as link:
        until(
            lambda: (
                link.execute(
                    "SELECT count(*) FROM packets_payout WHERE state = 'paid' AND id = ANY(%s)",
                    [payouts],
                ).fetchone()
                == (PEOPLE,)
            ),
            "four payouts paid",
        )
    numbers = paid_three_days_ago(laisee, payouts, day)
    rows = [(number, fen + (index == 0)) for index, (number, fen) in enumerate(numbers)]
    file = tmp_path / f"{day}.csv"
    file.write_text(
        "商户订单号,金额（元）,状态,发生时间\n"
        + "".join(f"{n},{fen / 100:.2f},成功,{day} 12:00:00\n" for n, fen in rows)
        + f"NOBODYS{language[:2].upper()},8.88,成功,{day} 12:00:01\n",
        encoding="gbk",
    )

    finance = person(language, "finance")
    [member] = [one for one in demo["staff"] if one["group"] == "finance"]
    finance.log_in(member["username"], member["password"], member["totp_secret"])
    finance.click(finance.page.locator("a[href$='/packets/statement/overview/']").first)
    finance.click(finance.page.locator("a[href$='/packets/statement/upload/']"))
    finance.choose(finance.page.locator("select[name=account]"), index_of(laisee, demo))
    finance.fill(finance.page.locator("input[name=day]"), day.isoformat())
    finance.page.locator("input[name=file]").set_input_files(file)
    finance.click(finance.page.locator("[data-confirm]"))

    # The copy's own worker compares it; the page follows and then shows what differs.
    expect(finance.page.locator("[data-label]")).to_have_text(
        finance.say("compared"), timeout=4 * PATIENCE_MS
    )
    expect(finance.page.locator("[data-finished=yes]")).to_be_visible(timeout=PATIENCE_MS)
    finance.sees(finance.say("another amount"))
    finance.sees("NOBODYS")
    finance.picture("statement", whole=True)
    finance.click(finance.page.locator("a", has_text=finance.say("another amount")).first)
    expect(finance.page.locator("[data-side=ours]")).to_contain_text(numbers[0][0])
    finance.picture("difference", whole=True)
    finance.click(finance.page.locator("a[href$='/resolve/']"))
    finance.choose(finance.page.locator("select[name=resolution]"), "corrected_there")
    finance.fill(finance.page.locator("textarea[name=reason]"), REASON[language])
    finance.click(finance.page.locator("[data-confirm]"))
    finance.sees(REASON[language])
    expect(finance.page.locator("a[href$='/resolve/']")).to_have_count(0)
    finance.click(finance.page.locator("a[href$='/packets/statement/overview/']").first)
    expect(finance.page.locator(f".ls-day.is-open[title^='{day.isoformat()}']")).to_be_visible()
    finance.picture("reconciliation", whole=True)
    laisee.manage("audit_money")


def index_of(laisee: Copy, demo: dict[str, Any]) -> str:
    """The demo's provider account as the form's list names it."""
    with psycopg.connect(laisee.env["DATABASE_URL"]) as link:
        row = link.execute(
            "SELECT id FROM packets_provideraccount WHERE name = %s", [demo["provider"]]
        ).fetchone()
    assert row is not None
    return str(row[0])
