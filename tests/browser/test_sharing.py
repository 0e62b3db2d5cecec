"""A share link on a phone: opened, followed into the app, joined and claimed; the inviter is paid.

The app is played by this test: it gets the click token from the address that the button opens, and
speaks to the API as an app does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from referrals.linking import complaints, spread
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
    "zh-hans": ("新春红包,一人一份", "在 App 中打开", "我不想收到这个链接", "投诉", "谢谢"),
    "en": ("A packet for the new year", "Open in the app", "This link bothers me", "Complain",
           "Thank you"),
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
        page = context.new_page()
        page.route(
            "https://app.example/**",
            lambda route: route.fulfill(status=200, content_type="text/html", body="the app"),
        )
        return page

    yield hold
    for context in contexts:
        context.close()


def picture(page: Page, name: str, language: str) -> None:
    if PICTURES and (not PICTURES_ONLY or name in PICTURES_ONLY):
        path = Path(PICTURES) / f"{name}.{'zh' if language == 'zh-hans' else 'en'}.png"
        page.screenshot(path=path, animations="disabled")
        shrink(path)


@pytest.mark.parametrize("language", WORDS)
def test_a_friend_opens_joins_and_claims_and_the_inviter_is_paid(language: str, phone: Any) -> None:
    title, button, bothered, complain, thanks = WORDS[language]
    growth = rewarding.rewarding(
        destination="https://app.example/red",
        destination_hosts=["app.example"],
        title_zh=WORDS["zh-hans"][0],
        title_en=WORDS["en"][0],
    )
    rewarding.known(growth, "ann")
    app = growth.campaign.client_apps.get()
    page = phone(language)

    def call(method: str, path: str, who: str, body: dict[str, Any] | None = None) -> Any:
        token = stage.token(app, who)
        answer = page.request.fetch(
            f"/api/v1/{path}",
            method=method,
            data=body,
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status == 200, answer.text()
        return answer.json()

    slug = growth.campaign.slug
    shared = call("POST", f"campaigns/{slug}/share-links", "ann", {"channel": "wechat"})

    page.goto(urlsplit(shared["url"]).path)
    expect(page.locator("h1")).to_have_text(title)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "share", language)
    page.get_by_role("link", name=button).click()
    expect(page).to_have_url(re.compile("^https://app.example/red"))
    [click] = parse_qs(urlsplit(page.url).query)["click"]

    bound = call("POST", f"campaigns/{slug}/referral", "bob", {"click_token": click})
    won = call("POST", f"packets/{rewarding.open_to_all(growth).public_id}/claims", "bob", {})
    rewarding.sweep()
    [row] = call("GET", "me/share-links", "ann")["results"]

    assert (bound["result"], won["result"]) == ("bound", "won")
    assert (row["visits"], row["joins"]) == (1, 1)
    assert row["rewards"] == {"granted": 1, "granted_fen": 100, "refused": 0, "currency": "CNY"}
    assert Visit.objects.get().agent == "wechat"

    page.goto(urlsplit(shared["url"]).path)
    page.get_by_text(bothered).click()
    page.get_by_role("button", name=complain).click()
    expect(page.locator("h1")).to_have_text(thanks)
    assert Complaint.objects.count() == 1
