"""The desk of payouts: how much waits where and for how long, and what waits for a person.

Read every few seconds by whoever looks. Every number is bounded or kept by an index: the open
payouts are counted up to `queue.COUNTED`, today's sums per account by its newest payouts.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from engine.lib.adminkit import require
from engine.lib.money import yuan
from engine.staff.pages import page
from packets.admin.payout_story import database_now, local, span
from packets.admin.payout_words import TONES, why_of
from packets.models import Gate, Payout, PayoutMark, ProviderAccount
from packets.payouts import queue

SEE = "packets.view_payout"
QUEUE_SHOWN = 100
MARKS_SHOWN = 50
BALANCE_OLD_S = 3600
# Older than this and still waiting to be sent: somebody should look.
WAITING_BAD_S = 24 * 3600
# Counting a long queue takes a while: each count is shown so many times as long as it took.
KEPT_TIMES = 20
QUICK_S = 0.1

_OPEN = """
SELECT account_id,
       CASE WHEN manual_reason <> '' THEN 'manual'
            WHEN state = 'user_action' THEN 'person'
            WHEN step = 'submit' AND (lease_until IS NULL OR lease_until <= now()) THEN 'waiting'
            WHEN step = 'submit' THEN 'sending'
            ELSE 'asking' END AS part,
       count(*), sum(amount_fen)::bigint,
       EXTRACT(epoch FROM now() - min(created_at))::float8
  FROM (SELECT account_id, state, step, manual_reason, lease_until, amount_fen, created_at
          FROM packets_payout WHERE state NOT IN ('paid', 'failed', 'cancelled')
         ORDER BY created_at LIMIT %s) AS counted
 GROUP BY 1, 2
"""

# A withdrawal counts on the day it was asked for, in the account's zone, unless it failed.
_TODAY = """
SELECT COALESCE(sum(amount_fen) FILTER (WHERE state NOT IN ('failed', 'cancelled')), 0)::bigint,
       count(*) FILTER (WHERE state = 'paid'),
       COALESCE(sum(amount_fen) FILTER (WHERE state = 'paid'), 0)::bigint
  FROM packets_payout
 WHERE account_id = %s
   AND created_at >= date_trunc('day', now() AT TIME ZONE %s) AT TIME ZONE %s
"""


@dataclass(frozen=True)
class Part:
    """Open payouts of one account that are in the same place."""

    account_id: int
    code: str
    count: int
    fen: int
    oldest_s: float


def open_parts() -> list[Part]:
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, [queue.COUNTED])
        return [Part(*row) for row in cursor.fetchall()]


@dataclass(frozen=True)
class Counted:
    """What was counted, and until when (by this process's clock) it is shown to everybody."""

    parts: list[Part]
    backlog: list[queue.Backlog]
    kept_until_s: float


_kept: Counted | None = None


def counted() -> Counted:
    """The open payouts, counted; what took long to count is shown for a while.

    So a process spends no more than a twentieth of its time on counting, however many look.
    """
    global _kept
    began_s = time.monotonic()
    if _kept is not None and began_s < _kept.kept_until_s:
        return _kept
    parts, backlog = open_parts(), queue.backlog()
    took_s = time.monotonic() - began_s
    kept_s = took_s * KEPT_TIMES if took_s > QUICK_S else 0.0
    _kept = Counted(parts, backlog, began_s + kept_s)
    return _kept


def desk(request: HttpRequest) -> HttpResponse:
    """The whole page, or (for its script) only what changes."""
    require(request, SEE)
    if request.GET.get("part"):
        return render(request, "packets/desk_part.html", picture())
    return page(
        request,
        "packets/desk.html",
        _("Payout desk"),
        part_url=f"{request.path}?part=1",
        **picture(),
    )


def picture() -> dict[str, Any]:
    found, now = counted(), database_now()
    parts, backlog = found.parts, found.backlog
    accounts = list(ProviderAccount.objects.order_by("name"))
    return {
        "tiles": _tiles(parts, accounts),
        "accounts": [
            _account(account, [part for part in parts if part.account_id == account.pk], now)
            for account in accounts
        ],
        "campaigns": _campaigns(backlog, {account.pk: account for account in accounts}),
        "at": f"{local(now):%H:%M:%S}",
    }


def _tiles(parts: list[Part], accounts: list[ProviderAccount]) -> list[dict[str, Any]]:
    def of(*codes: str) -> tuple[int, int, float]:
        found = [part for part in parts if part.code in codes]
        return (
            sum(part.count for part in found),
            sum(part.fen for part in found),
            max((part.oldest_s for part in found), default=0.0),
        )

    waiting, waiting_fen, oldest_s = of("waiting", "sending")
    asking, asking_fen, _asking_s = of("asking")
    person, person_fen, _person_s = of("person")
    manual, manual_fen, manual_s = of("manual")
    stopped = [account.name for account in accounts if account.breaker != "closed"]
    return [
        _tile(
            _("Waiting to be sent"),
            _counted(waiting),
            _("the oldest for %(time)s") % {"time": span(oldest_s)} if waiting else _("none"),
            bad=oldest_s > WAITING_BAD_S,
        ),
        _tile(_("In money"), yuan(waiting_fen)),
        _tile(_("At the provider"), _counted(asking), yuan(asking_fen)),
        _tile(_("To be confirmed by people"), _counted(person), yuan(person_fen)),
        _tile(
            _("Wait for one of us"),
            _counted(manual),
            _("%(sum)s, the oldest for %(time)s")
            % {"sum": yuan(manual_fen), "time": span(manual_s)}
            if manual
            else _("none"),
            bad=manual > 0,
        ),
        _tile(
            _("Breakers open"),
            str(len(stopped)),
            ", ".join(stopped) or _("none"),
            bad=bool(stopped),
        ),
    ]


def _tile(name: str, value: str, note: str = "", *, bad: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "note": note, "bad": bad}


def _counted(number: int) -> str:
    return f"{number:,}" + ("+" if number >= queue.COUNTED else "")


# --- one account ----------------------------------------------------------------------------------


def part_labels() -> dict[str, str]:
    return {
        "waiting": _("waiting"),
        "sending": _("being sent"),
        "asking": _("at the provider"),
        "person": _("to be confirmed by people"),
        "manual": _("waiting for one of us"),
    }


def breaker_words(reason: str) -> str:
    """Why a breaker is open, in words."""
    known = {
        "failures": _("The provider failed several times in a row."),
        "out_of_funds": _("Our account at the provider is short of money: put money in."),
        "by_hand": _("Somebody has stopped it by hand."),
    }
    return known.get(reason, reason or "–")


def _account(account: ProviderAccount, parts: list[Part], now: dt.datetime) -> dict[str, Any]:
    labels = part_labels()
    shown = sorted(parts, key=lambda part: list(labels).index(part.code))
    waiting = sum(part.count for part in parts if part.code in ("waiting", "sending"))
    oldest_s = max((part.oldest_s for part in parts), default=0.0)
    with connection.cursor() as cursor:
        cursor.execute(_TODAY, [account.pk, account.timezone, account.timezone])
        asked_fen, paid, paid_fen = cursor.fetchone()
    stopped = account.breaker != "closed"
    return {
        "name": account.name,
        "kind": account.get_kind_display(),
        "address": reverse("admin:packets_provideraccount_change", args=[account.pk]),
        "state": _("switched on") if account.is_active else _("switched off"),
        "tone": "live" if account.is_active else "paused",
        "breaker": _("breaker open") if stopped else "",
        "breaker_reason": breaker_words(account.breaker_reason) if stopped else "",
        "parts": [
            {
                "code": part.code,
                "label": labels[part.code],
                "count": _counted(part.count),
                "count_plain": part.count,
            }
            for part in shown
        ],
        "parts_words": ", ".join(f"{labels[part.code]}: {_counted(part.count)}" for part in shown),
        "facts": [
            (_("Rate"), _rate(account)),
            (_("What waits is sent in about"), _eta(account, waiting)),
            (_("The oldest open one"), span(oldest_s) if parts else "–"),
            (_("Paid of today's"), f"{paid:,} · {yuan(paid_fen)}"),
            (_("Balance"), _balance(account, now)),
        ],
        "bars": _bars(account, asked_fen),
    }


def _rate(account: ProviderAccount) -> str:
    if account.rate_per_minute:
        return _("%(number)s a minute") % {"number": f"{account.rate_per_minute:,}"}
    return _("no limit")


def _eta(account: ProviderAccount, waiting: int) -> str:
    if not waiting:
        return "–"
    if account.breaker != "closed" or not account.is_active:
        return _("unknown while nothing is sent")
    rate = queue.rate_per_s(account.pk, account.rate_per_minute)
    more = "≥ " if waiting >= queue.COUNTED else ""
    return more + span(max(queue.ETA_LEAST_S, waiting / rate))


def _balance(account: ProviderAccount, now: dt.datetime) -> str:
    if account.balance_fen is None or account.balance_at is None:
        return _("not asked for yet")
    age = span((now - account.balance_at).total_seconds())
    return _("%(sum)s, as it was %(time)s ago") % {"sum": yuan(account.balance_fen), "time": age}


def _bars(account: ProviderAccount, asked_fen: int) -> list[dict[str, Any]]:
    if not account.day_limit_fen:
        return []
    return [
        {
            "label": _("Asked for today, of the day's limit"),
            "text": f"{yuan(asked_fen)} / {yuan(account.day_limit_fen)}",
            "percent": min(100, asked_fen * 100 // account.day_limit_fen),
        }
    ]


# --- by campaign ----------------------------------------------------------------------------------


def _campaigns(
    backlog: list[queue.Backlog], accounts: dict[int, ProviderAccount]
) -> list[dict[str, Any]]:
    """What waits, by the campaign whose people wait; how long it takes when shares take turns."""
    keys = dict(Gate.objects.filter(pk__in=[one.share for one in backlog]).values_list("pk", "key"))
    names = gate_names(list(keys.values()))
    whole = sum(one.waiting for one in backlog) or 1
    rows = []
    for one in sorted(backlog, key=lambda found: -found.oldest_s):
        account = accounts[one.account_id]
        # The shares take turns: each gets an equal part of the rate, until the smaller are done.
        ahead = sum(
            min(other.waiting, one.waiting) for other in backlog if other.account_id == account.pk
        )
        key = keys.get(one.share, "")
        rows.append(
            {
                "name": names.get(key, key) or _("no campaign"),
                "count": _counted(one.waiting),
                "amount": yuan(one.waiting_fen),
                "percent": one.waiting * 100 // whole,
                "oldest": span(one.oldest_s),
                "eta": _eta(account, ahead),
            }
        )
    return rows


# What stands behind gates is known by the rooms above this one: each says what it calls them.
Namer = Callable[[list[str]], dict[str, str]]
gate_namers: list[Namer] = []


def gate_names(keys: list[str]) -> dict[str, str]:
    return {key: name for namer in gate_namers for key, name in namer(keys).items()}


# --- what waits for a person ----------------------------------------------------------------------


def manual(request: HttpRequest) -> HttpResponse:
    """The oldest first; and what somebody has asked for and somebody else decides."""
    require(request, SEE)
    now = database_now()
    rows = Payout.objects.exclude(manual_reason="").select_related("account")
    marks = PayoutMark.objects.filter(
        state=PayoutMark.State.PENDING, payout__ended_at=None
    ).select_related("payout", "requested_by")
    return page(
        request,
        "packets/manual.html",
        _("Waiting for a person"),
        payouts=[
            {
                "payout": payout,
                "tone": TONES[payout.state],
                "why": why_of(payout),
                "amount": yuan(payout.amount_fen),
                "since": span((now - (payout.manual_at or payout.created_at)).total_seconds()),
                "address": reverse("admin:packets_payout_change", args=[payout.pk]),
            }
            for payout in rows.order_by("manual_at")[:QUEUE_SHOWN]
        ],
        marks=[
            {
                "mark": mark,
                "amount": yuan(mark.payout.amount_fen),
                "address": reverse("admin:packets_payout_mark", args=[mark.pk]),
                "own": mark.requested_by_id == request.user.pk,
            }
            for mark in marks.order_by("requested_at")[:MARKS_SHOWN]
        ],
    )
