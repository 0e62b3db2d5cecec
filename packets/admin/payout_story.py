"""The story of one payout for people: what was asked for, said and done, in the order of time.

Read from what is on record (calls, decisions, the audit log); nothing here is kept or changed. The
request itself stays encrypted: that the same bytes were sent is said by their hash.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.models import AuditEvent
from packets.models import Payout, PayoutCall, PayoutMark

CALLS_SHOWN = 200
Kind = PayoutCall.Kind
State = Payout.State


@dataclass(frozen=True)
class Item:
    """One point of the line. `at` None: what comes next."""

    code: str
    at: dt.datetime | None
    icon: str
    tone: str  # good, bad, open, next; empty: neither
    title: str
    aside: str = ""
    text: str = ""
    codes: tuple[str, ...] = ()

    @property
    def time(self) -> str:
        return f"{local(self.at):%H:%M:%S}" if self.at else ""

    @property
    def day(self) -> str:
        return f"{local(self.at):%Y-%m-%d}" if self.at else ""


def local(at: dt.datetime) -> dt.datetime:
    return at.astimezone(ZoneInfo(settings.STAFF_TIME_ZONE))


def database_now() -> dt.datetime:
    """The clock by which payouts become due; a process's own may be minutes off."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: dt.datetime = cursor.fetchone()[0]
    return found


def span(seconds: float) -> str:
    """`2 d 4 h`, `3 h 20 min`, `12 min 5 s`, `1.4 s`, `87 ms`."""
    if seconds < 1:
        return _("%(number)s ms") % {"number": max(0, round(seconds * 1000))}
    if seconds < 10:
        return _("%(seconds)s s") % {"seconds": f"{max(0.0, seconds):.1f}"}
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole % 86_400 // 3_600, whole % 3_600 // 60
    if days:
        return _("%(days)s d %(hours)s h") % {"days": days, "hours": hours}
    if hours:
        return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}
    if minutes:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": whole % 60}
    return _("%(seconds)s s") % {"seconds": whole}


# --- calls ----------------------------------------------------------------------------------------

RESULTS: dict[str, tuple[str | Promise, str]] = {
    "accepted": (gettext_lazy("The provider has accepted it"), "open"),
    "pending": (gettext_lazy("The provider is working on it"), "open"),
    "user_action": (gettext_lazy("The person has to confirm"), "open"),
    "paid": (gettext_lazy("The provider has paid"), "good"),
    "failed_final": (gettext_lazy("Finally failed: the provider will not pay"), "bad"),
    "retry_same": (gettext_lazy("Not taken; to be sent again under the same number"), "open"),
    "unknown": (gettext_lazy("No clear answer: the outcome is unknown"), "bad"),
}
ASKED: dict[str, tuple[str | Promise, str]] = {
    Kind.SUBMIT: (gettext_lazy("Sent to the provider"), "send"),
    Kind.QUERY: (gettext_lazy("Asked the provider what became of it"), "search"),
    Kind.CANCEL: (gettext_lazy("Asked the provider to cancel it"), "cancel"),
    Kind.CALLBACK: (gettext_lazy("The provider called back"), "call_received"),
}


def call_item(call: PayoutCall, now: dt.datetime, lease_until: dt.datetime | None) -> Item:
    said, icon = ASKED[call.kind]
    if call.kind == Kind.CALLBACK:
        return Item("callback", call.started_at, icon, "open", str(said), text=_(
            "A callback is never believed by itself: it only makes us ask."
        ), codes=_codes(call))  # fmt: skip
    title, tone, aside = str(said), "bad", ""
    if call.ended_at is not None:
        words, tone = RESULTS.get(call.result, (call.result, ""))
        aside = span((call.ended_at - call.started_at).total_seconds())
        text = str(words)
        if call.not_found:
            text = _("The provider knows no such number")
    elif lease_until is not None and lease_until > now:
        tone, text = "open", _("Under way.")
    else:
        text = _("No end on record: the process died. Nobody knows what came of it.")
    detail = f"{text} {call.detail}".strip() if call.detail else text
    return Item(call.kind, call.started_at, icon, tone, title, aside, detail, _codes(call))


def _codes(call: PayoutCall) -> tuple[str, ...]:
    # Questions are about the number that was sent last.
    found = [call.number.number] if call.kind == Kind.SUBMIT else []
    if call.code:
        found.append(call.code)
    if call.http_status:
        found.append(f"HTTP {call.http_status}")
    return tuple(found)


# --- people ---------------------------------------------------------------------------------------

ACTS: dict[str, tuple[str | Promise, str]] = {
    "payout.query_now": (gettext_lazy("Asked for a query now"), "search"),
    "payout.send_again": (gettext_lazy("Had it sent again"), "replay"),
    "payout.release": (gettext_lazy("Released from review"), "task_alt"),
    "payout.refuse": (gettext_lazy("Refused; the money went back"), "block"),
    "payout.mark_ask": (gettext_lazy("Asked to mark it by hand"), "gavel"),
    "payout.mark_approve": (gettext_lazy("Approved the mark"), "task_alt"),
    "payout.mark_reject": (gettext_lazy("Rejected the mark"), "block"),
    "payout.mark_withdraw": (gettext_lazy("Withdrew the mark"), "undo"),
}


def act_item(event: AuditEvent) -> Item:
    said, icon = ACTS[event.action]
    outcome = (event.after or {}).get("outcome")
    words = str(said)
    if outcome in PayoutMark.Outcome.values:
        words = f"{words}: {PayoutMark.Outcome(outcome).label}"
    return Item(
        event.action.replace(".", "-"), event.at, icon, "", words, event.actor, event.reason
    )


# --- the whole ------------------------------------------------------------------------------------


def story(payout: Payout, why_manual: str) -> list[Item]:
    now = database_now()
    calls = PayoutCall.objects.filter(payout=payout).select_related("number").order_by("-id")
    items = [call_item(call, now, payout.lease_until) for call in calls[:CALLS_SHOWN]]
    events = AuditEvent.objects.filter(
        object_type="payout", object_id=payout.pk.hex, action__in=list(ACTS)
    )
    items += [act_item(event) for event in events.order_by("-id")[:CALLS_SHOWN]]
    if payout.manual_reason and payout.manual_at:
        items.append(
            Item("manual", payout.manual_at, "front_hand", "bad", _("Waits for a person"),
                 text=why_manual)
        )  # fmt: skip
    items.sort(key=lambda item: item.at or now)
    first = Item(
        "created", payout.created_at, "account_balance_wallet", "",
        _("Asked for; the money left the wallet"), text=payout.payee_masked,
    )  # fmt: skip
    return [first, *_renumbered(items), last(payout, now)]


def _renumbered(items: list[Item]) -> list[Item]:
    """Sends after the first one under a number are repeats of the same bytes: say so."""
    seen: set[str] = set()
    found = []
    for item in items:
        if item.code == Kind.SUBMIT:
            if item.codes[0] in seen:
                item = replace(item, title=_("Sent again: the same request, the same number"))
            seen.add(item.codes[0])
        found.append(item)
    return found


def last(payout: Payout, now: dt.datetime) -> Item:
    """How it ended, or what comes next and when."""
    if payout.state == State.PAID:
        return Item("paid", payout.ended_at, "paid", "good", _("Paid"), text=payout.provider_ref)
    if payout.state in (State.FAILED, State.CANCELLED):
        failed = payout.state == State.FAILED
        title = _("Failed: the money is back in the wallet") if failed else _(
            "Cancelled: the money is back in the wallet"
        )  # fmt: skip
        codes = (payout.failure_code,) if payout.failure_code else ()
        return Item(
            payout.state, payout.ended_at, "undo", "bad", title,
            text=payout.failure_detail, codes=codes,
        )  # fmt: skip
    return Item("next", None, "schedule", "next", next_words(payout, now))


def next_words(payout: Payout, now: dt.datetime) -> str:
    """What happens next, in words: `Asked again in about 4 min 10 s`."""
    if payout.lease_until is not None and payout.lease_until > now:
        return _("A call is under way.")
    if payout.next_attempt_at is None:
        return _("Nothing happens by itself: a person decides.")
    wait_s = (payout.next_attempt_at - now).total_seconds()
    step = Payout.Step(payout.step)
    if step == Payout.Step.SUBMIT:
        if wait_s <= 0:
            return _("Waits for its turn to be sent.")
        return _("Sent in about %(time)s.") % {"time": span(wait_s)}
    if step == Payout.Step.CANCEL:
        return _("Cancelled at the provider as soon as a worker is free.")
    if wait_s <= 0:
        return _("Asked as soon as a worker is free.")
    return _("Asked again in about %(time)s.") % {"time": span(wait_s)}
