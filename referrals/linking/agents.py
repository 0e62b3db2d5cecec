"""Who asks for a share page: a person, or a program that must leave no trace.

Chat apps fetch a link to draw its card, crawlers follow it, browsers fetch it ahead of time; X asks
with HEAD under a person's name. None of them is a visit. The maintained list of
`crawler-user-agents` knows most; `OURS` adds what it misses, and whatever doesn't call itself a
browser is none.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping

from crawleruseragents import is_crawler

REMEMBERED = 4_096  # user agents; judging one by 1,500 patterns takes a millisecond
AGENT_MAX_CHARS = 1_024  # longer ones are judged, and remembered, by their beginning

# Previews and tools that the list misses. The in-app browsers of the same apps are people:
# `Lark/7` and `MicroMessenger/8` alone must not match.
OURS = re.compile(
    r"LarkUrl2Png|(?:lark|feishu|wechat|weixin|qq|alipay|weibo|dingtalk|douyin)"
    r"[-_ ./]?(?:bot|spider|preview|link|url|share|card|fetch)"
    r"|(?<!cu)bot\b|crawler|spider|scraper|prefetch|prerender|unfurl"
    r"|(?:link|url|page|site)[-_ ]?(?:preview|expan|check|resolv|inspect)"
    r"|headless|phantomjs|lighthouse|python|curl/|wget|httpclient|http-client|okhttp|java/"
    r"|facebookexternalhit|whatsapp/",
    re.IGNORECASE,
)
# Every browser in use says so, in-app browsers too.
_BROWSER = re.compile(r"(?:Mozilla|Opera)/\d")
# What browsers send when nobody has looked yet.
AHEAD = ("HTTP_PURPOSE", "HTTP_SEC_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ")
_AHEAD = re.compile(r"prefetch|prerender|preview", re.IGNORECASE)

# The first that fits names the kind; in-app browsers also call themselves Safari or Chrome.
_KINDS = (
    ("wechat", re.compile(r"MicroMessenger/")),
    ("qq", re.compile(r"\bQQ/\d|MQQBrowser/")),
    ("alipay", re.compile(r"AlipayClient/")),
    ("weibo", re.compile(r"Weibo|__weibo__")),
    ("lark", re.compile(r"\b(?:Lark|Feishu)/")),
    ("dingtalk", re.compile(r"DingTalk/")),
    ("edge", re.compile(r"\bEdgA?(?:iOS)?/")),
    ("firefox", re.compile(r"Firefox/|FxiOS/")),
    ("chrome", re.compile(r"Chrome/|CriOS/")),
    ("safari", re.compile(r"Safari/")),
)


class Reader(enum.StrEnum):
    PERSON = "person"
    PROGRAM = "program"
    AHEAD = "ahead"  # a person's browser, before the person


def reader_of(method: str, meta: Mapping[str, object]) -> Reader:
    """Who asks, by the request's method and its headers as WSGI names them."""
    if method != "GET" or is_program(agent_of(meta)):
        return Reader.PROGRAM
    if any(_AHEAD.search(str(meta.get(name, ""))) for name in AHEAD):
        return Reader.AHEAD
    return Reader.PERSON


def agent_of(meta: Mapping[str, object]) -> str:
    return str(meta.get("HTTP_USER_AGENT", ""))[:AGENT_MAX_CHARS]


@functools.lru_cache(maxsize=REMEMBERED)
def is_program(agent: str) -> bool:
    if not _BROWSER.match(agent):
        return True
    return bool(OURS.search(agent)) or is_crawler(agent)


def kind_of(agent: str) -> str:
    """The kind of browser, for the funnel."""
    return next((kind for kind, pattern in _KINDS if pattern.search(agent)), "other")
