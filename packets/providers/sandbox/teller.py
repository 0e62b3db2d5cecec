"""What the sandbox does with a call, faults included; without HTTP, threads or waiting.

A call becomes an `Answer`: status and body, how long it is held back, and whether the callbacks of
the order go out before it. What a call changes is in the books before its answer exists.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from packets.providers.sandbox import faults
from packets.providers.sandbox.books import Books, Order, State, new_ref
from packets.providers.sandbox.faults import Decision, Fault, asked_for

MIN_FEN = 1  # a demo pays out whatever somebody won
MAX_FEN = 20_000_000
OUT_NUMBER_MAX_CHARS = 32
TEXT_MAX_CHARS = 500
HUGE_BYTES = 4_000_000  # more than any client should read
DUPLICATES = 3
JSON = "application/json"
FIELDS: Mapping[str, type] = {
    "out_number": str,
    "amount_fen": int,
    "currency": str,
    "payee_account": str,
    "payee_name": str,
    "remark": str,
    "notify_url": str,
}
# Half of the orders that meet an unknown code are paid: nobody can know.
_UNKNOWN_PAYS = 0.5
_BEFORE = (Fault.RATE_LIMITED, Fault.OUT_OF_FUNDS, Fault.ERROR_BEFORE_PAYING, Fault.REDIRECT)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    hold_s: float = 0.0  # before it leaves
    deliver_first: str = ""  # the out-number whose callbacks leave before it


def answer(status: int, code: str, **values: Any) -> Answer:
    return Answer(status, json.dumps({"code": code, **values}).encode())


def refusal(code: str, status: int = 400) -> Answer:
    return answer(status, code, message="see the code")


# --- an order is sent -----------------------------------------------------------------------------


def submit(books: Books, raw: bytes, now: float) -> Answer:
    wanted = _parsed(raw)
    if isinstance(wanted, Answer):
        return wanted
    settings = books.settings()
    number, body_hash = wanted["out_number"], hashlib.sha256(raw).hexdigest()
    seen = books.seen(number, now, submit=True)
    known = books.order(number)
    if known is not None and settings.check_numbers:
        if known.body_hash != body_hash:
            return refusal("INVALID_REQUEST")
        return told(known)
    decision = faults.of_order(settings, number, wanted["payee_account"])
    rate = settings.rate(Fault.OUT_OF_FUNDS)
    if decision.fault is Fault.OUT_OF_FUNDS and rate and not asked_for(wanted["payee_account"]):
        # An account is empty for everybody, and by its rate for that share of the time.
        books.short_begin(now, decision.seconds, decision.seconds / rate)
        decision = faults.NOTHING
    if (short_s := books.short_for_s(now)) > 0:
        return replace(_not_enough(short_s), fault=str(Fault.OUT_OF_FUNDS))
    if known is None and decision.fault in _BEFORE:
        early = _before(decision, seen.first_at, seen.submits, now)
        if early is not None:
            return replace(early, fault=str(decision.fault))
    waits_s = settings.settle_s
    if decision.fault in (Fault.PAID_LATE, Fault.NOT_FOUND_FIRST, Fault.USER_ACTION):
        waits_s = decision.seconds
    order = Order(
        ref=new_ref(),
        body_hash=body_hash,
        state=State.WAITING if decision.fault is Fault.USER_ACTION else State.ACCEPTED,
        code="",
        fault=str(decision.fault or ""),
        seconds=decision.seconds,
        accepted_at=now,
        due_at=now + waits_s,
        final_at=0.0,
        hidden_until=now + waits_s if decision.fault is Fault.NOT_FOUND_FIRST else 0.0,
        **{name: wanted[name] for name in FIELDS if name != "remark"},
    )
    unknown = decision.fault is Fault.UNKNOWN_CODE
    if unknown and seen.submits == 1 and not _unknown_pays(settings.seed, number):
        return replace(refusal("MYSTERY"), fault=str(decision.fault))
    if not books.order_add(order):
        return _not_enough(0.0)
    if decision.fault is Fault.FORGED_CALLBACK:
        books.callback_add(
            order, event_body(order, State.PAID, "forged"), "forged", now, forged=True
        )
    if waits_s <= 0:
        order = finish(books, order, now)
    return replace(_after(order, decision), fault=order.fault)


def _parsed(raw: bytes) -> dict[str, Any] | Answer:
    try:
        wanted = json.loads(raw)
    except ValueError:
        return refusal("PARAM_ERROR")
    if not isinstance(wanted, dict) or set(wanted) != set(FIELDS):
        return refusal("PARAM_ERROR")
    for name, kind in FIELDS.items():
        if type(wanted[name]) is not kind:
            return refusal("PARAM_ERROR")
        if kind is str and len(wanted[name]) > TEXT_MAX_CHARS:
            return refusal("PARAM_ERROR")
    number = wanted["out_number"]
    if not (number.isascii() and number.isalnum() and len(number) <= OUT_NUMBER_MAX_CHARS):
        return refusal("PARAM_ERROR")
    if wanted["currency"] != "CNY" or not wanted["payee_account"]:
        return refusal("PARAM_ERROR")
    if not MIN_FEN <= wanted["amount_fen"] <= MAX_FEN:
        return refusal("AMOUNT_OUT_OF_RANGE")
    return wanted


def _unknown_pays(seed: str, number: str) -> bool:
    return faults.draw(seed, "unknown", number) < _UNKNOWN_PAYS


def _before(decision: Decision, first_at: float, submits: int, now: float) -> Answer | None:
    """The answers that leave no order behind; None once their time is over."""
    if decision.fault is Fault.RATE_LIMITED and now < first_at + decision.seconds:
        wait_s = str(max(1, round(decision.seconds)))
        return replace(refusal("FREQUENCY_LIMITED", 429), headers=(("retry-after", wait_s),))
    if decision.fault is Fault.OUT_OF_FUNDS and now < first_at + decision.seconds:
        return _not_enough(first_at + decision.seconds - now)
    if decision.fault is Fault.ERROR_BEFORE_PAYING and submits == 1:
        return refusal("SYSTEM_ERROR", 500)
    if decision.fault is Fault.REDIRECT and submits == 1:
        return replace(refusal("MOVED", 302), headers=(("location", "/v1/balance"),))
    return None


def _not_enough(seconds: float) -> Answer:
    """With a Retry-After where it is known when there will be money again."""
    short = refusal("NOT_ENOUGH", 403)
    return replace(short, headers=(("retry-after", str(math.ceil(seconds))),)) if seconds else short


def _after(order: Order, decision: Decision) -> Answer:
    """The answer to an order that stands in the books, as its fault makes it."""
    plain = told(order)
    match decision.fault:
        case Fault.TIMEOUT_AFTER_PAYING | Fault.SLOW_ANSWER:
            return replace(plain, hold_s=decision.seconds)
        case Fault.ERROR_AFTER_PAYING | Fault.NOT_FOUND_FIRST:
            return refusal("SYSTEM_ERROR", 500)
        case Fault.CALLBACK_FIRST:
            return replace(plain, deliver_first=order.out_number)
        case Fault.UNKNOWN_CODE:
            return refusal("MYSTERY")
        case Fault.MALFORMED_BODY:
            return replace(plain, body=plain.body[: len(plain.body) // 2])
        case Fault.HUGE_BODY:
            return replace(plain, body=plain.body[:-1] + b" " * HUGE_BYTES + b"}")
        case _:
            return plain


def told(order: Order) -> Answer:
    """An order as answers show it."""
    wrong = order.fault == Fault.WRONG_AMOUNT
    values: dict[str, Any] = {
        "out_number": order.out_number,
        "provider_ref": order.ref,
        "state": str(order.state),
        "fail_code": order.code,
        "amount_fen": order.amount_fen + int(wrong),
        "currency": order.currency,
    }
    if order.state is State.WAITING:
        values["user_action"] = {"confirm": f"sandbox:{order.ref}"}
        values["expires_at"] = moment(order.due_at)
    return replace(answer(200, "OK", **values), fault=order.fault if wrong else "")


# --- an order moves -------------------------------------------------------------------------------


def finish(books: Books, order: Order, now: float) -> Order:
    """Pay an accepted order, or let it fail, or close one that nobody confirmed."""
    state, code = State.PAID, ""
    if order.state is State.WAITING:
        state, code = State.FAILED, "EXPIRED"
    elif order.fault == Fault.FAILED:
        state, code = State.FAILED, "PAYEE_REFUSED"
    elif order.fault == Fault.CLOSED:
        state, code = State.FAILED, "ORDER_CLOSED"
    return _finished(books, order, state, code, now)


def _finished(books: Books, order: Order, state: State, code: str, now: float) -> Order:
    if not books.order_finish(order.ref, state, code, now):
        return books.order(order.out_number) or order
    order = replace(order, state=state, code=code, final_at=now)
    if not order.notify_url:
        return order
    due_at = now
    if order.fault == Fault.CALLBACK_LATE:
        due_at = now + order.seconds
        # The older news comes after the newer one.
        event = uuid.uuid4().hex
        books.callback_add(order, event_body(order, State.ACCEPTED, event), event, due_at + 0.001)
    event = uuid.uuid4().hex
    for _ in range(DUPLICATES if order.fault == Fault.DUPLICATE_CALLBACKS else 1):
        books.callback_add(order, event_body(order, state, event), event, due_at)
    return order


def settle_due(books: Books, now: float) -> int:
    """Everything whose time has come; returns how many orders."""
    due = books.orders_due(now)
    if due:
        with books.transaction():
            for order in due:
                finish(books, order, now)
    return len(due)


def confirm(books: Books, number: str, now: float) -> Answer:
    """What the payee would do on their phone; an order that is only slow is finished at once."""
    order = books.order(number)
    if order is None:
        return refusal("NOT_FOUND", 404)
    if order.state is State.WAITING and now < order.due_at:
        order = _finished(books, order, State.PAID, "", now)
    elif order.state is State.ACCEPTED:
        order = finish(books, order, now)
    return told(order)


def cancel(books: Books, number: str, now: float) -> Answer:
    """An order that isn't paid yet is cancelled; the answer says what it is now."""
    order = books.order(number)
    if order is None or now < order.hidden_until:
        return refusal("NOT_FOUND", 404)
    if order.state in (State.ACCEPTED, State.WAITING):
        order = _finished(books, order, State.CANCELLED, "CANCELLED", now)
    return told(order)


def query(books: Books, number: str, now: float) -> Answer:
    seen = books.seen(number, now, submit=False)
    order = books.order(number)
    if order is None or now < order.hidden_until:
        return refusal("NOT_FOUND", 404)
    if order.state is State.ACCEPTED and order.due_at <= now:
        order = finish(books, order, now)
    decision = faults.of_question(books.settings(), number, seen.questions)
    fault = str(decision.fault or "")
    match decision.fault:
        case None:
            return told(order)
        case Fault.RATE_LIMITED:
            limited = refusal("FREQUENCY_LIMITED", 429)
            return replace(limited, headers=(("retry-after", "1"),), fault=fault)
        case Fault.UNKNOWN_CODE:
            return replace(refusal("MYSTERY"), fault=fault)
        case Fault.MALFORMED_BODY:
            plain = told(order)
            return replace(plain, body=plain.body[: len(plain.body) // 2], fault=fault)
        case _:
            return replace(refusal("SYSTEM_ERROR", 500), fault=fault)


# --- what callbacks say ---------------------------------------------------------------------------


def event_body(order: Order, state: State, event_id: str) -> bytes:
    return json.dumps(
        {
            "event_id": event_id,
            "out_number": order.out_number,
            "provider_ref": order.ref,
            "state": str(state),
            "amount_fen": order.amount_fen,
        }
    ).encode()


def moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat().replace("+00:00", "Z")
