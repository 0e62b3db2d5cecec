"""What the sandbox can do wrong, and when it does: pure decisions from a seed.

A fault is asked for by the payee account of one order (`fault:timeout_after_paying`, with a time
where it has one: `fault:paid_late:30`), or happens to a share of all orders by its rate. Whether it
happens to an order depends on the seed and on the order's number alone: not on time, order or
threads, so a storm can be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What can happen to an order. USER_ACTION isn't wrong, but is chosen the same way."""

    TIMEOUT_AFTER_PAYING = "timeout_after_paying"
    ERROR_AFTER_PAYING = "error_after_paying"
    ERROR_BEFORE_PAYING = "error_before_paying"
    PAID_LATE = "paid_late"
    CALLBACK_FIRST = "callback_first"
    DUPLICATE_CALLBACKS = "duplicate_callbacks"
    FORGED_CALLBACK = "forged_callback"
    CALLBACK_LATE = "callback_late"
    NOT_FOUND_FIRST = "not_found_first"
    RATE_LIMITED = "rate_limited"
    UNKNOWN_CODE = "unknown_code"
    MALFORMED_BODY = "malformed_body"
    HUGE_BODY = "huge_body"
    REDIRECT = "redirect"
    OUT_OF_FUNDS = "out_of_funds"
    FAILED = "failed"
    CLOSED = "closed"
    SLOW_ANSWER = "slow_answer"
    WRONG_AMOUNT = "wrong_amount"
    USER_ACTION = "user_action"


class StatementFault(StrEnum):
    """What can happen to a line of a day's statement."""

    LOST = "statement_lost"
    INVENTED = "statement_invented"
    AMOUNT = "statement_amount"
    STATE = "statement_state"
    DUPLICATE = "statement_duplicate"


# A question about an order meets these too: how a call ends says nothing of the money.
CALL_FAULTS = (
    Fault.ERROR_BEFORE_PAYING,
    Fault.RATE_LIMITED,
    Fault.UNKNOWN_CODE,
    Fault.MALFORMED_BODY,
)
# Seconds that a fault lasts where neither the order nor the settings say otherwise.
DEFAULT_SECONDS: Mapping[Fault, float] = {
    Fault.TIMEOUT_AFTER_PAYING: 60.0,  # longer than any client waits
    Fault.PAID_LATE: 20.0,
    Fault.CALLBACK_LATE: 30.0,
    Fault.NOT_FOUND_FIRST: 15.0,
    Fault.RATE_LIMITED: 2.0,
    Fault.OUT_OF_FUNDS: 60.0,
    Fault.SLOW_ANSWER: 5.0,
    Fault.USER_ACTION: 86_400.0,  # until an order that nobody confirmed is closed
}
_NAMES = frozenset(map(str, Fault))
ALL_RATES = _NAMES | frozenset(map(str, StatementFault))
MAX_SECONDS = 86_400.0  # a fault that lasts longer than a day is a mistake in writing it
PREFIX = "fault:"
_WHOLE = 1 << 52


@dataclass(frozen=True)
class Settings:
    """What staff or a test can change while the server runs."""

    seed: str = "sandbox"
    rates: Mapping[str, float] | None = None  # of faults of both kinds, 0..1
    seconds: Mapping[str, float] | None = None  # how long a fault lasts
    settle_s: float = 0.0  # between accepting an order and paying it
    check_numbers: bool = True  # off: a repeated number is paid again, as by a provider without it

    def rate(self, fault: Fault | StatementFault) -> float:
        return float((self.rates or {}).get(str(fault), 0.0))

    def lasting_s(self, fault: Fault) -> float:
        return float((self.seconds or {}).get(str(fault), DEFAULT_SECONDS.get(fault, 0.0)))


@dataclass(frozen=True)
class Decision:
    """What happens to an order; `seconds` where it lasts."""

    fault: Fault | None = None
    seconds: float = 0.0


NOTHING = Decision()


def draw(seed: str, *about: object) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    text = ":".join(map(str, (seed, *about)))
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 12) / _WHOLE


def _by_rate(
    settings: Settings, faults: tuple[Fault, ...] | type[Fault], *about: object
) -> Decision:
    left = draw(settings.seed, *about)
    for fault in faults:
        left -= settings.rate(fault)
        if left < 0:
            return Decision(fault, settings.lasting_s(fault))
    return NOTHING


def asked_for(payee_account: str) -> bool:
    """Whether a fault was asked for by name, not met by its rate."""
    return payee_account.startswith(PREFIX)


def of_order(settings: Settings, out_number: str, payee_account: str) -> Decision:
    """What happens to this order: what its payee account asks for, else what its number draws."""
    if asked_for(payee_account):
        name, _, seconds = payee_account.removeprefix(PREFIX).partition(":")
        if name not in _NAMES:
            return NOTHING
        fault = Fault(name)
        return Decision(fault, parse_seconds(seconds, settings.lasting_s(fault)))
    return _by_rate(settings, Fault, "order", out_number)


def of_question(settings: Settings, out_number: str, number: int) -> Decision:
    """What happens to the `number`th question about an order."""
    return _by_rate(settings, CALL_FAULTS, "question", out_number, number)


def of_line(settings: Settings, day: str, provider_ref: str) -> StatementFault | None:
    """What happens to an order's line in the statement of a day."""
    left = draw(settings.seed, "line", day, provider_ref)
    for fault in StatementFault:
        left -= settings.rate(fault)
        if left < 0:
            return fault
    return None


def parse_seconds(text: str, otherwise: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return otherwise
    return seconds if 0 <= seconds <= MAX_SECONDS else otherwise
