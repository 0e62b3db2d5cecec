"""Opening a share link: who counts, who never does, and what an opening hands out."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from django.db import connection
from django.test import Client

from campaign.destinations import allowed
from campaign.models import Campaign, CampaignChannel, CampaignGrowth, Channel
from packets.limit_rules import Wanted, limit_rule_set
from packets.models import Transfer
from referrals.forest.bans import person_ban
from referrals.forest.binding import Touch, touch_of_click
from referrals.linking import agents, complaints, misses, spread, visits
from referrals.linking.destinations import with_click
from referrals.models import Complaint, ShareLink, Visit
from tests.campaign import stage as campaigns
from tests.referrals.stage import app_of, bind, link_of, sharing
from tests.world import person, together

pytestmark = pytest.mark.django_db(transaction=True)

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko)"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 14; V2304A Build/UP1A.231005.007; wv) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Version/4.0 Chrome/116.0.0.0"
)
PEOPLE = {
    "wechat": f"{IPHONE} Mobile/15E148 MicroMessenger/8.0.49(0x18003137) NetType/WIFI "
    "Language/zh_CN",
    "qq": f"{ANDROID} MQQBrowser/6.2 TBS/046281 Mobile Safari/537.36 V1_AND_SQ_9.0.8_5540_YYB_D "
    "QQ/9.0.8.14755 NetType/4G WebP/0.3.0",
    "alipay": f"{IPHONE} Mobile/21E219 Ariver/1.1.0 AliApp(AP/10.5.80.6000) Nebula WK RVKType(0) "
    "AlipayDefined(nt:WIFI,ws:390|780|3.0) AlipayClient/10.5.80.6000 Alipay Language/zh-Hans",
    "safari": f"{IPHONE} Version/17.4 Mobile/15E148 Safari/604.1",
    "chrome": "Mozilla/5.0 (Linux; Android 10; CUBOT X30) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/124.0.0.0 Mobile Safari/537.36",
    "lark": f"{IPHONE} Mobile/15E148 Lark/7.12.6 LarkLocale/zh_CN",
}
PROGRAMS = [
    "",
    "curl/8.5.0",
    "Mozilla/5.0 (compatible; LarkUrl2Png/1.0)",
    "Mozilla/5.0 (Macintosh) AppleWebKit/537.36 Feishu-Link-Preview/1.0",
    "Mozilla/5.0 (compatible; WeChatBot/1.0)",
    "Mozilla/5.0 DingTalkBot-LinkService/1.0 (+https://www.dingtalk.com/)",
    "WhatsApp/2.23.20.0",
    "okhttp/4.12.0",
]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    spread.forget()
    complaints.forget()


def look(link: ShareLink | str, agent: str = PEOPLE["wechat"], **meta: Any) -> Any:
    code = link if isinstance(link, str) else link.code
    query = meta.pop("query", {})
    meta.setdefault("REMOTE_ADDR", "192.0.2.7")
    return Client().get(f"/s/{code}", query, HTTP_USER_AGENT=agent, **meta)


def open_to(
    hosts: list[str] | None = None, channel: str = Channel.WECHAT, **fields: Any
) -> tuple[CampaignGrowth, ShareLink]:
    fields.setdefault("destination", "https://app.example/red?from=share")
    growth = sharing(destination_hosts=["app.example"] if hosts is None else hosts, **fields)
    return growth, link_of(growth, "ann", channel)


def token_in(response: Any) -> str:
    found = re.search(r"click=([0-9A-Za-z_.%-]+)", response.content.decode())
    return found[1] if found else ""


# --- who counts -----------------------------------------------------------------------------------


def test_no_user_agent_of_the_maintained_list_counts() -> None:
    """Nor do our own additions, HEAD with a person's name, and fetching ahead."""
    _, link = open_to()
    instances = [one for entry in CRAWLER_USER_AGENTS_DATA for one in entry["instances"]]
    assert len(instances) > 1_500

    for agent in (*instances, *PROGRAMS):
        assert agents.reader_of("GET", {"HTTP_USER_AGENT": agent}) is agents.Reader.PROGRAM, agent

    for agent in (*PROGRAMS, *instances[::97]):
        response = look(link, agent)
        assert response.status_code == 200
        assert "og:title" in response.content.decode()
        assert not token_in(response) and not response.cookies
    assert Client().head(f"/s/{link.code}", HTTP_USER_AGENT=PEOPLE["safari"]).status_code == 200
    for header in ("PURPOSE", "SEC_PURPOSE", "X_MOZ", "X_PURPOSE"):
        for value in ("prefetch", "prefetch;prerender", "preview"):
            assert not token_in(look(link, **{f"HTTP_{header}": value}))
    assert Visit.objects.count() == 0


@pytest.mark.parametrize("kind", PEOPLE)
def test_a_persons_browser_counts_exactly_once(kind: str) -> None:
    _, link = open_to()
    before = Transfer.objects.count()

    first, again = look(link, PEOPLE[kind]), look(link, PEOPLE[kind])

    [visit] = Visit.objects.all()
    assert (visit.agent, visit.vehicle) == (kind, "link")
    assert token_in(first) == token_in(again) != ""
    assert "192.0.2" not in visit.network_hash + visit.visitor_hash
    assert Transfer.objects.count() == before  # a GET moves no money


@pytest.mark.control
def test_without_the_list_a_preview_would_count(monkeypatch: pytest.MonkeyPatch) -> None:
    _, link = open_to()
    monkeypatch.setattr(agents, "is_program", lambda agent: False)

    look(link, "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")

    assert Visit.objects.count() == 1


def test_twenty_openings_at_once_are_one_visit() -> None:
    _, link = open_to()

    together([lambda: look(link).status_code for _ in range(20)], threads=8)

    assert Visit.objects.count() == 1


@pytest.mark.control
def test_without_the_lock_they_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    _, link = open_to()
    both = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(visits, "_one_after_the_other", lambda link: None)
    real = visits.uuid.uuid4

    def slow() -> Any:
        both.wait()
        return real()

    monkeypatch.setattr(visits.uuid, "uuid4", slow)

    together([lambda: look(link).status_code for _ in range(2)], threads=2)

    assert Visit.objects.count() == 2


def test_other_people_are_other_visits_up_to_the_links_cap() -> None:
    _, link = open_to(visits_per_link_hour=3)

    tokens = {token_in(look(link, REMOTE_ADDR=f"192.0.2.{n}")) for n in range(1, 6)}

    assert Visit.objects.count() == 3
    assert len(tokens) == 4 and "" in tokens  # beyond the cap: the page, without a click
    assert look(link, REMOTE_ADDR="192.0.2.99").status_code == 200


def test_a_click_leads_to_the_link_until_it_is_used() -> None:
    growth, link = open_to()
    token = token_in(look(link))

    touch = touch_of_click(growth, token)

    assert isinstance(touch, Touch) and touch.link == link
    assert bind(growth, "bob", "ann") == "bound"  # by code: the click stays free
    assert token_in(look(link)) == token


def test_the_vehicle_is_kept() -> None:
    _, link = open_to()
    for number, vehicle in enumerate(("qr", "text", "poster", "nonsense")):
        look(link, query={"v": vehicle}, REMOTE_ADDR=f"198.51.100.{number}")

    assert sorted(Visit.objects.values_list("vehicle", flat=True)) == [
        "link",
        "poster",
        "qr",
        "text",
    ]


# --- where it leads -------------------------------------------------------------------------------

EVIL = [
    "//evil.example/x",
    "/\\evil.example",
    "\\\\evil.example",
    "https:\\\\evil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,x",
    "http://app.example/",
    "https://app.example@evil.example/",
    "https://evil.example#@app.example/",
    "https://evil.example\\@app.example/",
    "https://app.example:pw@app.example/",
    "https://app.example.evil.example/",
    "https://evilapp.example/",
    "https://app.example%2eevil.example/",
    "https://app.example:8443/",
    "https://app.example\r\nLocation: https://evil.example/",
    "https://app.example/\r\nSet-Cookie: a=b",
    "https://app.example/%0d%0a\x00",
    "https://аpp.example/",  # a Cyrillic letter
    "https://app.example。evil.example/",
    " https://evil.example/",
    "https:///evil.example/",
    "https:evil.example",
    "https://",
    "https://[app.example]/",
    "",
]


@pytest.mark.parametrize("url", EVIL, ids=range(len(EVIL)))
def test_nothing_leads_outside_the_list(url: str) -> None:
    assert not allowed(url, ["app.example"])
    assert with_click(url, ["app.example"], "t") == ""


def test_a_good_destination_gets_the_click_and_keeps_its_query() -> None:
    hosts = ["app.example", "xn--fiqs8s"]
    assert allowed("https://app.example:443/a?b=c#d", hosts)
    assert allowed("https://APP.example/", hosts)
    assert with_click("https://app.example/a?b=c#d", hosts, "k.t") == (
        "https://app.example/a?b=c&click=k.t#d"
    )


def test_the_query_never_chooses_the_destination() -> None:
    _, link = open_to()
    for name in ("redirect", "url", "next", "redir_url", "destination", "to"):
        for url in EVIL[:6]:
            response = look(link, query={name: url})
            body = response.content.decode()
            assert response.status_code == 200 and "Location" not in response
            assert "evil" not in body and "alert(1)" not in body


@pytest.mark.parametrize("url", EVIL[:12], ids=range(12))
def test_a_bad_destination_of_the_campaigns_own_makes_no_button(url: str) -> None:
    growth, link = open_to()
    CampaignGrowth.objects.filter(pk=growth.pk).update(destination=url)
    spread.forget()

    assert 'class="button"' not in look(link).content.decode()


# --- what is closed -------------------------------------------------------------------------------


def test_links_that_lead_nowhere_all_answer_alike() -> None:
    growth, link = open_to()
    revoked = link_of(growth, "bob")
    ShareLink.objects.filter(pk=revoked.pk).update(revoked_at=link.created_at)
    over_growth, over = open_to(title_en="over")
    Campaign.objects.filter(pk=over_growth.campaign_id).update(state=Campaign.State.PAUSED)
    off_growth, off = open_to(is_on=False)
    assert off_growth.is_on is False

    answers = [look(code) for code in ("AAAAAAAAAA", "x", revoked.code, over.code, off.code)]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert Visit.objects.count() == 0


def test_who_tries_codes_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    _, link = open_to()
    monkeypatch.setattr(misses, "MISSES", 3)

    seen = [look("AAAAAAAAAA").status_code for _ in range(5)]

    assert seen == [404, 404, 404, 429, 429]
    waiting = look(link)
    assert waiting.status_code == 429 and int(waiting["Retry-After"]) > 0
    assert look(link, REMOTE_ADDR="192.0.2.200").status_code == 429  # the same network
    assert look(link, REMOTE_ADDR="198.51.100.1").status_code == 200


def test_a_channel_that_is_off_says_so_and_offers_another_way() -> None:
    growth, link = open_to()
    way = CampaignChannel.objects.create(
        campaign=growth.campaign, channel="wechat", vehicle="link", is_on=False
    )

    closed = look(link)

    body = closed.content.decode()
    assert closed.status_code == 404 and f"{link.code[:5]} {link.code[5:]}" in body
    assert look(link, query={"v": "qr"}).status_code == 200
    CampaignChannel.objects.filter(pk=way.pk).update(vehicle="qr")
    spread.forget()
    assert look(link).status_code == 200
    assert f"/s/{link.code}" in look(link, query={"v": "qr"}).content.decode()


# --- the page -------------------------------------------------------------------------------------


def test_the_page_keeps_to_itself() -> None:
    _, link = open_to(channel=Channel.FEED, title_zh="<b>红包</b>", title_en="Red <i>packets</i>")

    response = look(link, HTTP_ACCEPT_LANGUAGE="en")

    body = response.content.decode()
    assert "noindex" in response["X-Robots-Tag"]
    assert response["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert response["Cache-Control"] == "no-store" and not response.cookies
    assert "<script" not in body and "<i>packets" not in body
    assert "Red &lt;i&gt;packets" in body and 'lang="en"' in body
    assert bytes(link.participant).hex() not in body


def test_the_page_speaks_both_languages() -> None:
    _, link = open_to(channel=Channel.FEED, title_zh="红包雨", title_en="Packet rain")

    english = look(link, HTTP_ACCEPT_LANGUAGE="en-GB,en;q=0.9").content.decode()
    chinese = look(link, HTTP_ACCEPT_LANGUAGE="zh-CN").content.decode()
    switched = look(link, HTTP_ACCEPT_LANGUAGE="zh-CN", query={"lang": "en"}).content.decode()

    assert "Open in the app" in english and "Packet rain" in english
    assert "在 App 中打开" in chinese and "红包雨" in chinese
    assert "Packet rain" in switched and "打开" not in switched
    rules = re.search(r'href="(/d/[^"]+)"', english)
    assert rules is not None
    assert "How a portion is decided" in Client().get(rules[1]).content.decode()


def test_the_link_as_pictures() -> None:
    growth, link = open_to(channel=Channel.FEED, title_zh="红包雨")
    kinds = {"qr.svg": b"<svg", "qr.png": b"\x89PNG", "poster.svg": b"<svg"}

    for kind, begin in kinds.items():
        response = Client().get(f"/s/{link.code}/{kind}")
        assert response.status_code == 200 and begin in response.content[:200]
    assert "红包雨" in Client().get(f"/s/{link.code}/poster.svg").content.decode()
    CampaignChannel.objects.create(
        campaign=growth.campaign, channel="feed", vehicle="poster", is_on=False
    )
    spread.forget()
    assert Client().get(f"/s/{link.code}/poster.svg").status_code == 404
    assert Visit.objects.count() == 0


# --- complaints -----------------------------------------------------------------------------------


def complain(link: ShareLink | str, **meta: Any) -> Any:
    code = link if isinstance(link, str) else link.code
    meta.setdefault("REMOTE_ADDR", "192.0.2.7")
    return Client().post(
        f"/s/{code}/complaint", {"reason": "too_often"}, HTTP_USER_AGENT=PEOPLE["wechat"], **meta
    )


def test_a_complaint_counts_once_a_network_and_says_nothing_of_the_link() -> None:
    _, link = open_to()

    known, again, unknown = complain(link), complain(link), complain("AAAAAAAAAA")

    [row] = Complaint.objects.all()
    assert (row.reason, row.campaign_id) == ("too_often", link.campaign_id)
    assert known.status_code == again.status_code == unknown.status_code == 200
    assert known.content == unknown.content


def test_another_site_makes_nobody_complain() -> None:
    _, link = open_to()

    assert complain(link, HTTP_ORIGIN="https://evil.example").status_code == 403
    assert complain(link, HTTP_SEC_FETCH_SITE="cross-site", HTTP_ORIGIN="null").status_code == 403
    assert Complaint.objects.count() == 0
    assert complain(link, HTTP_SEC_FETCH_SITE="same-origin", HTTP_ORIGIN="null").status_code == 200
    assert Complaint.objects.count() == 1


def ask(growth: CampaignGrowth, name: str = "zoe", **body: Any) -> Any:
    app = growth.campaign.client_apps.get()
    return Client().post(
        f"/api/v1/campaigns/{growth.campaign.slug}/share-links",
        json.dumps(body),
        content_type="application/json",
        HTTP_AUTHORIZATION=f"Bearer {campaigns.token(app, name)}",
    )


def test_many_complaints_slow_sharing_and_then_stop_it_without_anybody_acting() -> None:
    growth, link = open_to(complaint_min_visits=10, complaint_per_mille=150)
    campaigns.member("operations", "olga")
    for number in range(10):
        look(link, REMOTE_ADDR=f"10.0.{number}.1")
    assert ask(growth).status_code == 200

    for number in range(20, 30):  # networks that never looked: they don't count
        complain(link, REMOTE_ADDR=f"10.0.{number}.1")
    complaints.forget()
    assert ask(growth).status_code == 200

    for number in range(2):
        complain(link, REMOTE_ADDR=f"10.0.{number}.1")
    complaints.forget()
    slowed = ask(growth)
    assert slowed.status_code == 429 and int(slowed["Retry-After"]) > 500
    assert ask(growth, "yan").status_code == 200  # who hasn't shared yet may, once

    for number in range(2, 5):
        complain(link, REMOTE_ADDR=f"10.0.{number}.1")
    complaints.forget()
    stopped = ask(growth, "xi")
    assert stopped.status_code == 422
    assert stopped.json()["errors"][0]["code"] == "sharing_stopped"
    told = growth.campaign.notices.filter(kind="complaints", user__username="olga")
    assert sorted(notice.details["mood"] for notice in told) == ["slowed", "stopped"]


def test_one_network_is_one_voice_however_many_links_it_was_sent() -> None:
    growth, link = open_to(complaint_min_visits=10, complaint_per_mille=150)
    for number in range(10):
        look(link, REMOTE_ADDR=f"10.0.{number}.1")
    for name in ("bob", "cem", "dan", "eve"):
        sent = link_of(growth, name)
        look(sent, REMOTE_ADDR="10.0.0.1")
        complain(sent, REMOTE_ADDR="10.0.0.1")

    assert complaints.rate_of(growth.campaign_id) == complaints.Rate(14, 1)


# --- links ----------------------------------------------------------------------------------------


def test_the_same_person_and_channel_have_one_link() -> None:
    growth = sharing()

    first = ask(growth, channel="wechat").json()
    again = ask(growth, channel="wechat").json()
    other = ask(growth, channel="qq").json()
    none = ask(growth).json()

    assert first == again
    assert len({first["code"], other["code"], none["code"]}) == 3
    assert first["url"].endswith(f"/s/{first['code']}")
    assert none["channel"] == "other" and first["vehicles"] == ["link", "text", "qr", "poster"]


def test_twenty_at_once_get_one_link() -> None:
    growth = sharing()

    answers = together([lambda: ask(growth).json() for _ in range(20)], threads=8)

    assert len({answer["code"] for answer in answers}) == 1  # type: ignore[index]
    assert ShareLink.objects.count() == 1


def test_refusals_of_a_link_say_why() -> None:
    growth = sharing()
    ask(growth, "bob")
    ShareLink.objects.update(revoked_at="2026-01-01T00:00Z")
    for vehicle in ("link", "text", "qr", "poster"):
        CampaignChannel.objects.create(
            campaign=growth.campaign, channel="qq", vehicle=vehicle, is_on=False
        )
    spread.forget()

    cat = person("cat", app_of(growth.campaign)).participant
    person_ban(participant=cat, campaign=growth.campaign, actor="staff:ray", reason="a farm")

    assert ask(growth, "bob").status_code == 403
    assert ask(growth, "cat").status_code == 403  # banned before there was any link
    assert ask(growth, "bob", channel="wechat").status_code == 403
    off = ask(growth, channel="qq")
    assert (off.status_code, off.json()["errors"][0]["code"]) == (422, "channel_off")
    assert ask(growth, channel="telepathy").status_code == 422
    CampaignGrowth.objects.update(is_on=False)
    spread.forget()
    assert ask(growth).json()["errors"][0]["code"] == "sharing_off"


def test_people_pause_between_shares_by_the_databases_clock() -> None:
    growth = sharing(share_cooldown_s=60)

    first, soon = ask(growth), ask(growth, channel="qq")

    assert first.status_code == 200 and soon.status_code == 429
    assert 0 < int(soon["Retry-After"]) <= 60 and "RateLimit" in soon
    with connection.cursor() as cursor:
        cursor.execute("UPDATE referrals_sharelink SET shared_at = now() - interval '61 s'")
    assert ask(growth, channel="qq").status_code == 200


def test_own_links_are_listed_with_what_they_led_to() -> None:
    growth, link = open_to()
    look(link)
    bind(growth, "bob", "ann")
    app = growth.campaign.client_apps.get()

    page = (
        Client()
        .get("/api/v1/me/share-links", HTTP_AUTHORIZATION=f"Bearer {campaigns.token(app, 'ann')}")
        .json()
    )

    [row] = page["results"]
    assert (row["code"], row["visits"], row["joins"], row["state"]) == (link.code, 1, 1, "active")
    assert row["rewards"] == {"granted": 0, "granted_fen": 0, "refused": 0, "currency": "CNY"}


# --- limits of a link -----------------------------------------------------------------------------


def test_a_limit_of_one_link_counts_it_however_its_code_is_typed() -> None:
    growth, link = open_to()
    app = growth.campaign.client_apps.get()
    packet = campaigns.first_packet(growth.campaign)
    limit_rule_set(wanted=Wanted(subject="link", limit=2, window_s=86_400), actor="x")

    def claim(who: str, code: str | None) -> int:
        body = {} if code is None else {"share_code": code}
        answer = Client().post(
            f"/api/v1/packets/{packet.public_id}/claims",
            json.dumps(body),
            content_type="application/json",
            HTTP_AUTHORIZATION=f"Bearer {campaigns.token(app, who)}",
        )
        return int(answer.status_code)

    assert claim("a", link.code) == 200
    assert claim("b", f"{link.code[:5]}-{link.code[5:].lower()}") == 200
    assert claim("c", link.code.replace("0", "o").replace("1", "l")) == 429
    assert claim("a", link.code) == 200  # who has won hears of it
    assert claim("d", link_of(growth, "bob").code) == 200
    assert claim("e", None) == 200
