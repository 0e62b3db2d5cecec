"""No mixed screens: every page of the admin is all Chinese or all English.

A spider logs in as somebody with every right and follows every link, in each language. What may
stand on a Chinese page in Latin letters is listed here: names of things, codes, and what people
have typed. Anything else is a text that nobody translated.
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit
from zoneinfo import available_timezones

import pytest
from django.conf import settings
from django.template.loader import render_to_string
from django.test import Client
from django.utils import translation

from campaign import people
from campaign.models import Campaign
from engine.models import ClientApp
from tests.campaign import staffed, stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

LIST = "/admin/campaign/campaign/"
# Pages with other rows, sorted otherwise or filtered are the same screen: a second row may be in
# another state, a second value of one filter shows nothing that the list itself doesn't.
MAX_PAGES_A_SHAPE, MAX_PAGES_A_FILTER = 2, 1
MAX_PAGES = 600
_SKIPPED = re.compile(r"/(logout|export|download|preview)/?|\.csv|[?&](o|p|all|q|e|template|copy)=")
_ID = re.compile(r"/(?:[0-9a-f]{32}|[0-9a-f-]{36}|[0-9a-f_]{32,}|\d+|[\w.-]+_[\w.-]+)(?=/|$)")

# --- what may stand in Latin letters on a Chinese page --------------------------------------------

NAMES = set(
    """
    Laisee CNY UTC API JWT HS EdDSA Ed PEM SHA CSV TXT BOM ID IP URL HTTP SRE TOTP QR JSON LDAP
    Redis GET POST Accept Control Command Mac esc MB HTTPS Webhook QQ
    """.split()
)
# Words for programs that staff type as they are: object types of the audit log and its filters,
# the gate and the account that stand for everything, an API key's scopes, the groups' own names.
NAMES |= set(
    """
    campaign packet payout provider hold people gate all All outside ops system staff test Test GBK
    """.split()
)
NAMES |= {text for group in people.Group for text in (group.value, group.value.capitalize())}
# Codes by their shape, the longer shapes first.
_CODES = [
    re.compile(pattern)
    for pattern in (
        r"\b\w[\w-]*(?:[:._][\w:.*-]+)+…?",  # `campaign.launch`, `settle:…`, `127.0.0.1`
        r"\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b…?",  # ids and hashes
        r"\b[\w-]*\d[\w-]*\b",  # anything with a digit in it: slugs, times, versions
        r"\S*\*{4,}",  # a masked secret
        r"%\(\w+\)s",  # a place that a script fills
    )
]
_ZONE = re.compile(r"\b[\w+-]+(?:/[\w+-]+)*")
ZONES = available_timezones()
_WORD = re.compile(r"[A-Za-z][A-Za-z'’]+")
_CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass
class Words(HTMLParser):
    """Everything that a reader sees or hears of a page, one text each."""

    language: str
    texts: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    QUIET = {"script", "style", "code", "pre", "textarea"}
    VOID = {"input", "img", "br", "hr", "meta", "link", "source", "wbr", "col", "area", "base"}

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, bool]] = []
        self._json = False

    @property
    def quiet(self) -> bool:
        return any(quiet for _tag, quiet in self._open)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._json = tag == "script" and given.get("type") == "application/json"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if not self.quiet:
            said = [given.get(name, "") for name in ("title", "placeholder", "aria-label", "alt")]
            if tag == "input" and given.get("type") in ("submit", "button", "reset"):
                said.append(given.get("value", ""))
            self.texts += [text for text in said if text.strip()]
        if tag in self.VOID:
            return
        foreign = given.get("lang", self.language).lower() != self.language and tag != "html"
        quiet = (
            tag in self.QUIET
            or foreign
            or given.get("translate") == "no"
            or "material-symbols-outlined" in given.get("class", "")
        )
        self._open.append((tag, quiet))

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            closed, _quiet = self._open.pop()
            if closed == tag:
                return

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "script" and self._json:
            self.texts += strings_of(json.loads(data), self.language)
        if data.strip() and not self.quiet:
            self.texts.append(" ".join(data.split()))


# Members that a page's script reads and nobody else.
FOR_SCRIPTS = {"state", "address"}


def strings_of(value: Any, language: str) -> list[str]:
    """Every text inside a JSON value. Members' names are for programs, but one that is a language
    says what is inside: the phones of the preview show both.
    """
    if isinstance(value, dict):
        foreign = {code.lower() for code, _name in settings.LANGUAGES} - {language}
        parts = [part for name, part in value.items() if name.lower() not in foreign | FOR_SCRIPTS]
        return [text for part in parts for text in strings_of(part, language)]
    if isinstance(value, list):
        return [text for part in value for text in strings_of(part, language)]
    return [value] if isinstance(value, str) and value.strip() else []


def read(html: str, language: str) -> Words:
    words = Words(language)
    words.feed(html)
    return words


def without(text: str, typed: list[str]) -> str:
    """The text without what people have typed, where it stands as words of its own."""
    for pattern in _typed_patterns(tuple(typed)):
        text = pattern.sub(" ", text)
    return text


@lru_cache
def _typed_patterns(typed: tuple[str, ...]) -> list[re.Pattern[str]]:
    return [re.compile(rf"(?<![A-Za-z]){re.escape(known)}(?![A-Za-z])") for known in typed]


def english_in(text: str, typed: list[str]) -> list[str]:
    """The English words of a text on a Chinese page that have no business there."""
    text = without(text, typed)
    text = _ZONE.sub(lambda match: " " if match[0] in ZONES else match[0], text)
    for pattern in _CODES:
        text = pattern.sub(" ", text)
    return [word for word in _WORD.findall(text) if word not in NAMES]


def chinese_in(text: str, typed: list[str]) -> list[str]:
    """The Chinese of a text on an English page that have no business there."""
    text = without(text, typed)
    return [text] if _CHINESE.search(text) else []


def spider(client: Client, language: str) -> dict[str, Words]:
    """Every page that can be reached by links from the first one."""
    seen: dict[str, int] = {}
    pages: dict[str, Words] = {}
    queue = deque(["/admin/"])
    known = {"/admin/"}
    while queue and len(pages) < MAX_PAGES:
        address = queue.popleft()
        parts = urlsplit(address)
        shape = _ID.sub("/…", parts.path) + "?" + ",".join(k for k, _v in parse_qsl(parts.query))
        if seen.get(shape, 0) >= (MAX_PAGES_A_FILTER if parts.query else MAX_PAGES_A_SHAPE):
            continue
        seen[shape] = seen.get(shape, 0) + 1
        response = client.get(address)
        while response.status_code in (301, 302):
            address = urljoin(address, response["Location"])
            response = client.get(address)
        assert response.status_code == 200, f"{address}: {response.status_code}"
        if "text/html" not in response["Content-Type"]:
            continue
        pages[address] = page = read(response.content.decode(), language)
        for link in page.links:
            target = urljoin(address, link).split("#")[0]
            if target.startswith("/admin/") and target not in known and not _SKIPPED.search(target):
                known.add(target)
                queue.append(target)
    return pages


def speak(client: Client, language: str) -> None:
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = language


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_every_page_speaks_one_language(language: str) -> None:
    typed = staffed.furnish()
    client = staffed.everything_allowed()
    speak(client, language)
    find = english_in if language == "zh-hans" else chinese_in
    pages = spider(client, language)
    # Navigation stands on every page: each text is judged once.
    wrong = {
        text
        for text in {text for page in pages.values() for text in page.texts}
        if find(text, typed)
    }
    mixed = {
        address: found
        for address, page in pages.items()
        if (found := [f"{text!r}" for text in page.texts if text in wrong])
    }
    print(f"{language}: {len(pages)} pages")
    for address, found in mixed.items():
        print(address, *found, sep="\n    ")
    assert len(pages) > 40, "the spider found too little to prove anything"
    assert mixed == {}


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_what_pages_fetch_speaks_one_language(language: str) -> None:
    """The live boards, and the preview with a refusal and without."""
    typed = staffed.furnish()
    client = staffed.everything_allowed()
    speak(client, language)
    find = english_in if language == "zh-hans" else chinese_in
    running = Campaign.objects.get(slug="lantern-1")
    app = ClientApp.objects.get(slug="app-1")
    answers = [
        client.get(f"{LIST}board-data/"),
        client.get(f"{LIST}{running.pk}/board-data/"),
        client.post(f"{LIST}preview/", staffed.typed(app)),
        client.post(f"{LIST}preview/", staffed.typed(app, **{"packets-0-least": "9999"})),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.request["PATH_INFO"]
        texts = strings_of(answer.json(), language)
        assert [text for text in texts if find(text, typed)] == [], answer.request["PATH_INFO"]


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_the_log_in_page_speaks_one_language_and_offers_both(language: str) -> None:
    client = Client()
    speak(client, language)
    html = client.get("/admin/login/").content.decode()
    find = english_in if language == "zh-hans" else chinese_in
    assert [text for text in read(html, language).texts if find(text, [])] == []
    assert ">简体中文</button>" in html and ">English</button>" in html


@pytest.mark.parametrize("language", ["zh-hans", "en"])
def test_dead_ends_speak_one_language(language: str) -> None:
    """No right, no such page, a fault, and the page of a second factor that isn't set up yet."""
    find = english_in if language == "zh-hans" else chinese_in
    support = Client(raise_request_exception=False)
    support.force_login(stage.member("support", "sue"))
    newcomer = Client()
    newcomer.force_login(stage.member("finance", "fay"))
    for client, address, status in (
        (support, f"{LIST}kill-switch/", 403),
        (support, "/admin/nonsense/", 404),
        (newcomer, "/admin/second-factor/", 200),
    ):
        speak(client, language)
        answer = client.get(address)
        assert answer.status_code == status, address
        html = answer.content.decode()
        assert f'lang="{language}"' in html
        assert [text for text in read(html, language).texts if find(text, ["fay"])] == [], address
    with translation.override(language):
        html = render_to_string("500.html")
    assert [text for text in read(html, language).texts if find(text, [])] == []


def test_the_reader_sees_what_is_mixed() -> None:
    html = (
        '<p title="Delete it">预算 Budget</p><span class="material-symbols-outlined">add</span>'
        '<script>var no = "this";</script><div lang="en">Happy <b>New</b> Year</div>'
        '<input type="submit" value="Save"><input value="typed">尾'
    )
    assert read(html, "zh-hans").texts == ["Delete it", "预算 Budget", "Save", "尾"]
    assert english_in("预算 Budget of lantern-2027, 9f8e7d6c5b4a", ["lantern"]) == ["Budget", "of"]
    assert english_in("UTC+8 Asia/Shanghai campaign.launch 12:30", []) == []
    assert chinese_in("Budget of 春节", []) == ["Budget of 春节"]
    assert chinese_in("Budget of 春节", ["春节"]) == []


def test_a_campaign_of_the_stage_is_known_to_the_reader() -> None:
    """What people typed is found on the pages, or the test above would prove nothing."""
    typed = staffed.furnish()
    client = staffed.everything_allowed()
    speak(client, "en")
    texts = read(client.get("/admin/campaign/campaign/").content.decode(), "en").texts
    assert any(name in text for name in typed for text in texts)
    assert stage.ACTOR
