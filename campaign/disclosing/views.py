"""`/d/{slug}`: what participants were told, the newest version first, each as it was published.

For everybody, on a phone, without a script or a cookie; it prints. Before something was approved
there is nothing here, as for a campaign that doesn't exist.
"""

from __future__ import annotations

import json
from typing import Any, assert_never

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from campaign.disclosing.publishing import LANGUAGES, State
from campaign.models import Campaign, Disclosure, slug_is_valid
from engine.lib.adminkit import moment
from engine.lib.middleware import staff_language

CACHE_S = 60
HEADERS = {
    "Cache-Control": f"public, max-age={CACHE_S}",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Language, Cookie",
}


@require_safe
def disclosure(request: HttpRequest, slug: str, number: int | None = None) -> HttpResponse:
    language = LANGUAGES.get(request.GET.get("lang", "")) or staff_language(request)
    short = "en" if language.startswith("en") else "zh"
    rows = _versions(slug)
    shown = next((row for row in rows if number in (None, row.number)), None)
    with translation.override(LANGUAGES[short]):
        if shown is None:
            return _answer("campaign/disclosure_missing.html", short, 404)
        return _answer("campaign/disclosure.html", short, 200, **_context(shown, rows, short))


def _versions(slug: str) -> list[Disclosure]:
    """All that was published of the campaign, the newest first."""
    if not slug_is_valid(slug):
        return []
    rows = Disclosure.objects.filter(campaign__slug=slug).select_related("campaign")
    return list(rows.order_by("-number"))


def _context(shown: Disclosure, rows: list[Disclosure], short: str) -> dict[str, Any]:
    campaign, newest = shown.campaign, rows[0]
    return {
        "words": json.loads(shown.body)[short],
        "shown": shown,
        "at": _at(shown, campaign),
        "note": _note(campaign, shown, newest),
        "versions": [
            {
                "number": row.number,
                "at": _at(row, campaign),
                "what": cause_words(row),
                "changes": json.loads(row.body)[short]["changes"],
                "address": f"/d/{campaign.slug}/{row.number}?lang={short}",
                "is_shown": row.number == shown.number,
            }
            for row in rows
        ],
        "other": f"?lang={'zh' if short == 'en' else 'en'}",
    }


def _at(row: Disclosure, campaign: Campaign) -> str:
    return moment(row.at, campaign.timezone, seconds=True)


def _note(campaign: Campaign, shown: Disclosure, newest: Disclosure) -> str:
    """What the reader must know of a version that isn't in force."""
    if shown.number != newest.number:
        return _("This is an earlier version; a newer one has taken its place.")
    if campaign.state in (State.DRAFT, State.REVIEW):
        return _("This version was withdrawn before its start. It is not in force.")
    return ""


def cause_words(row: Disclosure) -> str:
    """Why there is this version."""
    cause = Disclosure.Cause(row.cause)
    if cause is Disclosure.Cause.APPROVED:
        return _("published") if row.number == 1 else _("approved anew before the start")
    if cause is Disclosure.Cause.GROWTH:
        return _("changed how people share it")
    if cause is Disclosure.Cause.ROUND_MOVED:
        return _("changed the time of a round")
    if cause is Disclosure.Cause.EXTENDED or cause is Disclosure.Cause.TOPPED_UP:
        return _("changed in participants' favour")
    assert_never(cause)


def _answer(template: str, short: str, status: int, **context: Any) -> HttpResponse:
    language = "en" if short == "en" else "zh-CN"
    text = render_to_string(template, {"language": language, **context})
    response = HttpResponse(text, status=status, headers={**HEADERS, "Content-Language": language})
    response.is_page = True  # type: ignore[attr-defined]  # not to be answered as a problem
    return response
