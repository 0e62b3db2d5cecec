"""Growth at the screen: a friend's phone, and the desk of whoever reviews what was held.

A share link is opened on a phone, followed into the demo's app (referrals/demo/), joined and
claimed; the inviter is paid. A reviewer opens the case of a farm, releases one hold and forfeits
another.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django_otp.plugins.otp_totp.models import TOTPDevice
from playwright.sync_api import Browser, Page, expect

from campaign.demo import APP_SLUG
from campaign.models import CampaignGrowth
from engine.lib.money import fen_of
from packets.models import Claim, Hold
from packets.selectors import wallet_balance
from referrals.demo.app import caller_of, page_of
from referrals.linking import complaints, spread
from referrals.linking.links import link_share
from referrals.models import Complaint, Visit
from tests import wallets
from tests.browser.conftest import LOCALES
from tests.browser.hand import PATIENCE_MS, PICTURES, PICTURES_ONLY, Hand, shrink
from tests.campaign import stage
from tests.referrals import rewarding
from tests.referrals.farming import CHAIN, farm_and_family, pay_out, sweep

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

RULES = {"zh-hans": "规则与概率", "en": "Rules and odds"}


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


def picture(page: Page, name: str, language: str, *, top: bool = False) -> None:
    """The whole page's content, or what the phone shows of it first (`top`)."""
    if PICTURES and (not PICTURES_ONLY or name in PICTURES_ONLY):
        path = Path(PICTURES) / f"{name}.{'zh' if language == 'zh-hans' else 'en'}.png"
        target: Page | Any = page if top else page.locator("main")
        target.screenshot(path=path, animations="disabled")
        shrink(path)


@pytest.mark.parametrize("language", WORDS)
def test_a_friend_opens_joins_and_claims_and_the_inviter_is_paid(
    language: str, phone: Any, settings: Any
) -> None:
    settings.DEMO_APP = True
    title, button, join, own, bothered, complain, thanks = WORDS[language]
    app = stage.make_app(APP_SLUG)
    growth = rewarding.rewarding(app, title_zh=WORDS["zh-hans"][0], title_en=WORDS["en"][0])
    page = phone(language)
    ann = caller_of(app, "ann")
    link = link_share(campaign=growth.campaign, caller=ann, channel="other").link

    # A friend opens the link, presses the button, joins, and has won.
    page.goto(f"/s/{link.code}")
    expect(page.locator("h1")).to_have_text(title)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "share", language)
    # What was published is one step away, and fits the phone too.
    page.get_by_role("link", name=RULES[language]).click()
    expect(page.locator("section").first).to_be_visible()
    page.wait_for_load_state("load")  # its stylesheet too
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(page, "disclosure", language, top=True)
    page.goto(f"/s/{link.code}")
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


REASON = {"zh-hans": "已核实：一家人共用一个账户", "en": "Checked: a family with one account"}
FARMED = {
    "zh-hans": "八个账号同一收款账户，无人再来",
    "en": "Eight accounts, one purse, nobody came back",
}


@pytest.fixture
def farm() -> CampaignGrowth:
    """Eight accounts, each invited by the one before, that are paid into one purse: held."""
    growth = farm_and_family()
    pay_out(growth, "purse-1", *CHAIN)
    sweep()
    assert Hold.objects.filter(state=Hold.State.OPEN).count() == len(CHAIN)
    return growth


# English pages are walked on the phone above; this longer walk in English is for the night.
@pytest.mark.parametrize("language", ["zh-hans", pytest.param("en", marks=pytest.mark.nightly)])
def test_a_reviewer_releases_one_hold_of_a_case_and_forfeits_another(
    language: str, farm: CampaignGrowth, browsers: dict[str, Browser], live_server: Any
) -> None:
    reviewer = stage.member("risk", "eva")
    device = TOTPDevice.objects.create(user=reviewer, confirmed=True)
    budget_fen = Hold.objects.all()[0].funder.balance_fen
    eva = Hand(browsers[language], live_server.url, language, "the reviewer")
    try:
        secret = base64.b32encode(device.bin_key).decode()
        eva.log_in(reviewer.username, stage.PASSWORD, secret)
        released = decided(eva, "release", REASON[language])
        forfeited = decided(eva, "forfeit", FARMED[language])
    finally:
        eva.close()

    assert (released.state, released.reason) == ("released", REASON[language])
    assert (forfeited.state, forfeited.reason) == ("forfeited", FARMED[language])
    assert released.resolved_by == forfeited.resolved_by == "staff:eva"
    assert wallet_balance(bytes(released.participant)).held_fen == 0
    assert wallet_balance(bytes(released.participant)).available_fen == released.amount_fen
    gone = wallet_balance(bytes(forfeited.participant))
    assert (gone.held_fen, gone.available_fen) == (0, 0)
    assert forfeited.funder.balance_fen == budget_fen + forfeited.amount_fen
    assert Hold.objects.filter(state=Hold.State.OPEN).count() == len(CHAIN) - 2
    wallets.assert_sound()


def decided(eva: Hand, act: str, reason: str) -> Hold:
    """From the menu to the case, to its first open hold, to the decision."""
    page = eva.page
    eva.click(page.locator("a[href$='/referrals/riskcase/']").first)
    eva.click(page.locator("a[href*='/riskcase/'][href*='/change/']").first)
    expect(page.locator("[data-dot]")).to_have_count(len(CHAIN))
    if act == "release":
        eva.picture("case", whole=True)
    eva.click(page.locator("[data-hold] a").first)
    number = page.url.split("/hold/")[1].split("/")[0]
    expect(page.locator("[data-state=open]")).to_be_visible()
    eva.click(page.locator(f"[data-act={act}]"))
    expect(page.locator("[data-consequence]")).to_contain_text("¥")
    eva.fill(page.locator("[name=reason]"), reason)
    eva.picture(f"case-{act}")
    eva.click(page.locator("[data-confirm]"))
    done = {"release": "released", "forfeit": "forfeited"}[act]
    expect(page.locator(f"[data-state={done}]")).to_be_visible()
    return Hold.objects.select_related("funder").get(pk=number)
