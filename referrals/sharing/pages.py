"""The frame of the share pages: the reader's language and the headers that keep it private.

Every link that can't be opened, for whatever reason, gets the same status and the same page.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation

from engine.lib.middleware import staff_language
from referrals.sharing.words import LANGUAGES

# No script at all; what is shown comes from here, and forms lead here.
CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CSP,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Vary": "Accept-Language, User-Agent",
}


def language_of(request: HttpRequest) -> str:
    """What the switch on the page says, else the browser's, else Chinese."""
    chosen = LANGUAGES.get(request.GET.get("lang", ""))
    if chosen:
        return chosen
    return staff_language(request)


def page(request: HttpRequest, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
    language = language_of(request)
    with translation.override(language):
        text = render_to_string(
            f"referrals/{template}",
            {"language": "zh-CN" if language.startswith("zh") else "en", **context},
        )
    response = HttpResponse(text, status=status, headers={**HEADERS, "Content-Language": language})
    response.is_page = True  # type: ignore[attr-defined]  # not to be answered as a problem
    return response


def closed(request: HttpRequest) -> HttpResponse:
    """Unknown, revoked, banned, over: one answer, which says nothing about which."""
    return page(request, "closed.html", status=404)


def too_many(request: HttpRequest, wait_s: int) -> HttpResponse:
    response = page(request, "too_many.html", status=429)
    response["Retry-After"] = str(wait_s)
    return response


def from_here(request: HttpRequest) -> bool:
    """Whether the form was ours: no other site makes its visitors complain.

    Our pages send no referrer, and then browsers send `Origin: null` for our own form too; newer
    ones say in Sec-Fetch-Site what it was.
    """
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.META.get("HTTP_ORIGIN", "null")
    return origin in ("null", f"{request.scheme}://{request.get_host()}")
