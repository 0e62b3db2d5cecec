"""`/demo/app`: the app in which a friend opens the packet. `/demo/me/…`: what a person has earned.

Both are 404 wherever the demo's app isn't on. A GET moves no money.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe

from engine.lib.money import yuan
from packets.claiming.effects import Outcome, Result
from packets.selectors import wallet_balance
from referrals.demo import app as demo
from referrals.linking.links import address_of
from referrals.linking.selectors import links_of
from referrals.sharing.pages import closed, from_here, language_of, page

LINKS_SHOWN = 20
# What a friend reads who got nothing; whatever isn't named here may be better in a moment.
NOTHING = {
    Result.SOLD_OUT: _("Every portion has been taken."),
    Result.ENDED: _("It is over."),
    Result.NOT_STARTED: _("It hasn't begun yet."),
    Result.NOT_ELIGIBLE: _("It isn't for you."),
    Result.BLOCKED: _("It isn't for you."),
}


@require_http_methods(["GET", "HEAD", "POST"])
def app_page(request: HttpRequest) -> HttpResponse:
    """Before the packet is opened, and after: the press of the button is the POST."""
    app = demo.demo_app()
    if app is None:
        return closed(request)
    if request.method != "POST":
        return page(
            request,
            "demo_app.html",
            action=f"{demo.PATH}?lang={request.GET.get('lang', '')[:2]}",
            click=request.GET.get("click", ""),
        )
    played = demo.friend_plays(app, request.POST.get("click", "")) if from_here(request) else None
    if played is None:
        return closed(request)
    shared = demo.shared_by(played.campaign, played.friend)
    return page(
        request,
        "demo_opened.html",
        **_opened(played.claimed),
        joined=played.joined,
        link=address_of(shared.link.code) if shared else "",
        own=demo.page_of(played.friend.subject),
    )


def _opened(outcome: Outcome | None) -> dict[str, Any]:
    """The amount, or why there is none."""
    if outcome is not None and outcome.claim is not None:
        return {"won": yuan(outcome.claim.portion.amount_fen)}
    why = NOTHING.get(outcome.result) if outcome else None
    return {"why": why or _("Nothing is decided yet. Press once more in a moment.")}


@require_safe
def own_page(request: HttpRequest, signed: str) -> HttpResponse:
    """An inviter's links, what they led to, and the wallet."""
    app, subject = demo.demo_app(), demo.subject_of(signed)
    if app is None or subject is None:
        return closed(request)
    person = demo.caller_of(app, subject).participant
    rows = links_of(person).order_by("-id")[:LINKS_SHOWN]
    balance = wallet_balance(person)
    return page(
        request,
        "demo_own.html",
        who=subject,
        wallet=yuan(balance.available_fen),
        coming=yuan(balance.pending_fen) if balance.pending_fen else "",
        held=yuan(balance.held_fen) if balance.held_fen else "",
        rows=[_numbers(row) for row in rows],
        switch="?lang=en" if language_of(request).startswith("zh") else "?lang=zh",
    )


def _numbers(link: Any) -> dict[str, Any]:
    """`link` is a ShareLink with the numbers of `selectors.with_numbers`."""
    return {
        "address": address_of(link.code),
        "visits": link.visit_count,
        "joins": link.join_count,
        "rewards": link.reward_count,
        "earned": yuan(link.reward_fen),
    }
