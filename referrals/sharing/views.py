"""`/s/{code}`: opening a share link, its pictures, and complaining about it.

A GET moves no money. A person's opening becomes a Visit and gets a click token; programs, previews
and HEAD get the card and leave nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation
from django.views.decorators.http import require_POST, require_safe

from campaign.models import Vehicle
from engine.lib.middleware import client_ip
from referrals.demo.app import button_of
from referrals.linking import agents, clicks, codes, misses
from referrals.linking.complaints import complaint_record
from referrals.linking.destinations import with_click
from referrals.linking.links import address_of
from referrals.linking.places import Place, place_of
from referrals.linking.spread import Spread, spread_of
from referrals.linking.visits import visit_record
from referrals.models import ShareLink
from referrals.sharing import pictures
from referrals.sharing.pages import HEADERS, closed, from_here, language_of, page, too_many
from referrals.sharing.words import words_of

# What somebody may say bothers them; anything else is kept without a reason.
REASONS = ("unwanted", "too_often", "misleading")


@dataclass(frozen=True, slots=True)
class Opened:
    link: ShareLink
    spread: Spread


def _place(request: HttpRequest) -> Place:
    return place_of(client_ip(request), agents.agent_of(request.META))


def _open(typed: str, place: Place) -> Opened | None:
    """The link behind the code, if it leads anywhere now. A miss is counted against the network."""
    code = codes.canonical(typed)
    link = ShareLink.objects.filter(code=code, revoked_at=None).first() if code else None
    spread = spread_of(link.campaign_id) if link else None
    if link is None or spread is None or not spread.is_open:
        misses.missed(place.network)
        return None
    return Opened(link, spread)


def _vehicle(request: HttpRequest) -> str:
    named = request.GET.get("v", "")
    return named if named in Vehicle.values else Vehicle.LINK.value


@require_safe
def share_page(request: HttpRequest, code: str) -> HttpResponse:
    place = _place(request)
    if wait_s := misses.wait_s(place.network):
        return too_many(request, wait_s)
    opened = _open(code, place)
    if opened is None:
        return closed(request)
    link, spread, vehicle = opened.link, opened.spread, _vehicle(request)
    ways = spread.ways(link.channel)
    if vehicle not in ways:
        # The same status and frame as of any closed link, with the ways that are open.
        return page(
            request,
            "closed.html",
            status=404,
            code=_grouped(link.code) if Vehicle.TEXT in ways else "",
            other=_other(link, ways),
        )
    token = _click(request, link, spread, vehicle, place)
    growth, language = spread.growth, language_of(request)
    with translation.override(language):
        words = words_of(spread, language, link.channel)
    return page(
        request,
        "share.html",
        words=words,
        address=address_of(link.code),
        action=f"/s/{link.code}/complaint",
        picture=growth.image_url if growth.image_url.startswith("https://") else "",
        code=_grouped(link.code) if Vehicle.TEXT in ways else "",
        button=button_of(link, token, language)
        or with_click(growth.destination, growth.destination_hosts, token),
        rules=f"/d/{spread.campaign.slug}?lang={'zh' if language.startswith('zh') else 'en'}",
        switch=_switch(vehicle, language),
        reasons=REASONS,
    )


def _click(
    request: HttpRequest, link: ShareLink, spread: Spread, vehicle: str, place: Place
) -> str:
    """The click token of a person's opening; empty for programs, and over the link's cap."""
    if agents.reader_of(request.method or "", request.META) is not agents.Reader.PERSON:
        return ""
    visit = visit_record(
        link=link,
        vehicle=vehicle,
        place=place,
        agent=agents.kind_of(agents.agent_of(request.META)),
        most_per_hour=spread.growth.visits_per_link_hour,
    )
    return clicks.sign(clicks.Click(visit.click_id, int(visit.at.timestamp()))) if visit else ""


def _grouped(code: str) -> str:
    return f"{code[:5]} {code[5:]}"


def _other(link: ShareLink, ways: list[str]) -> str:
    """The address of an open way that a browser can follow."""
    return address_of(link.code) if Vehicle.LINK in ways else ""


def _switch(vehicle: str, language: str) -> str:
    to = "en" if language.startswith("zh") else "zh"
    named = {} if vehicle == Vehicle.LINK else {"v": vehicle}
    return "?" + urlencode({**named, "lang": to})


# --- pictures -------------------------------------------------------------------------------------


@require_safe
def share_picture(request: HttpRequest, code: str, kind: str) -> HttpResponse:
    """`qr.svg`, `qr.png` or `poster.svg`, while that way is open."""
    place = _place(request)
    if wait_s := misses.wait_s(place.network):
        return too_many(request, wait_s)
    opened = _open(code, place)
    vehicle = Vehicle.POSTER if kind == "poster.svg" else Vehicle.QR
    if opened is None or vehicle not in opened.spread.ways(opened.link.channel):
        return closed(request)
    found, language = opened.link.code, language_of(request)
    if kind == "qr.png":
        return HttpResponse(pictures.qr_png(found), content_type="image/png", headers=HEADERS)
    if kind == "qr.svg":
        body: bytes | str = pictures.qr_svg(found)
    else:
        with translation.override(language):
            words = words_of(opened.spread, language, opened.link.channel)
            facts = pictures.poster(found, words, language)
            body = render_to_string("referrals/poster.svg", facts)
    # The poster's code is an embedded picture; styles stand in the drawing.
    headers = {**HEADERS, "Content-Security-Policy": "default-src 'none'; img-src data:"}
    return HttpResponse(body, content_type="image/svg+xml", headers=headers)


# --- complaints -----------------------------------------------------------------------------------


@require_POST
def share_complaint(request: HttpRequest, code: str) -> HttpResponse:
    """Somebody is bothered. The answer is the same whether there is such a link or not."""
    place = _place(request)
    if wait_s := misses.wait_s(place.network):
        return too_many(request, wait_s)
    if not from_here(request):
        return page(request, "closed.html", status=403)
    opened = _open(code, place)
    if opened is not None:
        reason = request.POST.get("reason", "")
        complaint_record(
            link=opened.link,
            growth=opened.spread.growth,
            network=place.network,
            reason=reason if reason in REASONS else "",
        )
    return page(request, "thanks.html")
