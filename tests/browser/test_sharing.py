"""A share link on a phone: opened, followed into the app, joined and claimed; the inviter is paid.

The app is the demo's own (referrals/demo/). The last part asks the API what an app would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from campaign.demo import APP_SLUG
from engine.lib.money import fen_of
from packets.models import Claim
from referrals.demo.app import caller_of, page_of
from referrals.linking import complaints, spread
from referrals.linking.links import link_share
from referrals.models import Complaint, Visit
from tests.browser.conftest import LOCALES
from tests.browser.hand import PATIENCE_MS, PICTURES, PICTURES_ONLY, shrink
from tests.campaign import stage
from tests.referrals import rewarding

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = {"width": 390, "height": 844}
WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Mobile/15E148 MicroMessenger/8.0.49(0x18003137) NetType/WIFI Language/zh_CN"
)
WORDS = {
    "zh-hans": ("新春红包,人人有份", "在 App 中打开", "加入并拆开", "我的邀请赚了多少",
                "我不想收到这个链接", "投诉", "谢谢"),
    "en": ("A packet for the new year", "Open in the app", "Join and open it",
           "What my invitations have earned", "This link bothers me", "Complain", "Thank you"),
}  # fmt: skip


@pytest.fixture
def phone(browsers: dict[str, Browser], live_server: Any) -> Iterator[Any]:
    spread.forget()
    complaints.forget()
    contexts = []

    def hold(language: str) -> Page:
        context = browsers[language].new_context(
            base_url=live_server.url,
            locale=LOCALES[language],
            viewport=PHONE,  # type: ignore[arg-type]
            device_scale_factor=2,
            user_agent=WECHAT,
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        return context.new_page()

    yield hold
    for context in contexts:
        context.close()


def picture(page: Page, name: str, language: str) -> None:
    if PICTURES and (not PICTURES_ONLY or name in PICTURES_ONLY):
        path = Path(PICTURES) / f"{name}.{'zh' if language == 'zh-hans' else 'en'}.png"
        page.locator("main").screenshot(path=path, animations="disabled")
        shrink(path)


@pytest.mark.parametrize("language", WORDS)
def test_a_friend_opens_joins_and_claims_and_the_inviter_is_paid(
    language: str, phone: Any, settings: Any
) -> None:
    settings.DEMO_APP = True
    title, button, join, own, bothered, complain, thanks = WORDS[language]
    app = stage.make_app(APP_SLUG)
    growth = rewarding.rewarding(app, title_zh=WORDS["zh-hans"][0], title_en=WORDS["en"][0])
    rewarding.known(growth, "ann")
    page = phone(language)
    ann = caller_of(app, "ann")
    link = link_share(campaign=growth.campaign, caller=ann, channel="wechat").link

    # A friend opens the link, presses the button, joins, and has won.
    page.goto(f"/s/{link.code}")
    expect(page.locator("h1")).to_have_text(title)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "share", language)
    page.get_by_role("link", name=button).click()
    expect(page.get_by_role("button", name=join)).to_be_visible()
    picture(page, "share-app", language)
    page.get_by_role("button", name=join).click()
    expect(page.locator("[data-won]")).to_contain_text("¥")
    expect(page.locator("[data-joined]")).to_be_visible()
    won_fen = fen_of(page.locator("[data-won]").inner_text().removeprefix("¥"))
    assert won_fen == Claim.objects.get().amount_fen
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "share-won", language)
    page.get_by_role("link", name=own).click()
    expect(page.locator("[data-earned]")).to_have_text("0 · ¥0.00")

    # The workers pay both; the inviter sees it on their page, and their app in the API.
    rewarding.sweep()
    rewarding.settle(growth)
    page.goto(page_of("ann"))
    expect(page.locator("[data-visits]")).to_have_text("1")
    expect(page.locator("[data-joins]")).to_have_text("1")
    expect(page.locator("[data-earned]")).to_have_text("1 · ¥1.00")
    expect(page.locator("[data-wallet]")).to_have_text("¥1.00")
    picture(page, "share-earned", language)
    answer = page.request.get(
        "/api/v1/me/share-links",
        headers={"Authorization": f"Bearer {stage.token(app, 'ann')}"},
    )
    [row] = answer.json()["results"]
    assert (row["visits"], row["joins"]) == (1, 1)
    assert row["rewards"] == {"granted": 1, "granted_fen": 100, "refused": 0, "currency": "CNY"}
    assert Visit.objects.get().agent == "wechat"

    # Whoever is bothered says so.
    page.goto(f"/s/{link.code}")
    page.get_by_text(bothered).click()
    page.get_by_role("button", name=complain).click()
    expect(page.locator("h1")).to_have_text(thanks)
    assert Complaint.objects.count() == 1
