"""What a provider's answer means for a payout: the state machine, pure.

    created → submitting → accepted → paid | failed | cancelled,  plus unknown and user_action

Invariant 11: an outcome that isn't known is asked for, never guessed. A payout is sent again only
with the same bytes under the same number, and only after the provider said that it has nothing
under it; it gets another number only after the old one is finally dead. What can't be learned in
48 hours goes to a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from packets.models.payouts import Payout
from packets.providers.base import Kind, Result

State = Payout.State
Step = Payout.Step

MAX_NUMBERS = 3  # numbers that may die before the payout fails and the money goes back
JITTER = 0.2  # of each wait, so that what failed together doesn't ask together
RETRY_S = 5.0  # where the provider names no time
NEW_NUMBER_S = 30.0


class ManualReason(StrEnum):
    """Why a payout waits for a person."""

    REVIEW = "review"  # not sent yet: risk rules, or an amount that a person looks at
    TOO_LONG = "too_long"  # no final word within 48 hours
    AMOUNT_DIFFERS = "amount_differs"  # the provider speaks of another amount
    NOT_SENDABLE = "not_sendable"  # the request can't be made: credentials, payee


@dataclass(frozen=True)
class Timing:
    """When to ask again, in seconds since the last answer; then every `then_s`, until `give_up_s`
    after the first send."""

    schedule_s: tuple[float, ...] = (5, 30, 120, 600, 3_600, 6 * 3_600)
    then_s: float = 3_600
    give_up_s: float = 48 * 3_600

    def wait_s(self, asked: int) -> float:
        return self.schedule_s[asked] if asked < len(self.schedule_s) else self.then_s


@dataclass(frozen=True)
class Standing:
    """The payout as it was when the answer came. Periods in seconds, by the database's clock."""

    state: str
    made: str  # the step that was answered
    queries: int  # made since the last send, this one included
    numbers: int  # used up to now
    amount_fen: int
    cancel_asked: bool
    since_submit_s: float
    since_first_s: float
    grace_s: float  # how long "no such number" may mean "not yet"


@dataclass(frozen=True)
class Decision:
    """What becomes of it. `after_s` is None where nothing is due any more."""

    state: State
    step: Step
    after_s: float | None
    number: str = "live"  # what becomes of the number: live, paid, failed
    manual: ManualReason | None = None

    @property
    def ends(self) -> bool:
        return self.state in Payout.TERMINAL


def decide(now: Standing, result: Result, timing: Timing, jitter: float) -> Decision:
    """The next step after this answer. `jitter` lies in [0, 1)."""
    if result.amount_fen is not None and result.amount_fen != now.amount_fen:
        return _to_person(now, ManualReason.AMOUNT_DIFFERS)
    match result.kind:
        case Kind.PAID:
            return Decision(State.PAID, Step.NONE, None, number="paid")
        case Kind.FAILED_FINAL:
            return _failed(now, result)
        case _ if now.since_first_s >= timing.give_up_s:
            return _to_person(now, ManualReason.TOO_LONG)
        case Kind.ACCEPTED | Kind.PENDING:
            return _ask(now, State.ACCEPTED, timing, jitter)
        case Kind.USER_ACTION:
            return _confirmable(now, timing, jitter)
        case Kind.RETRY_SAME:
            return _retry(now, result, timing, jitter)
        case Kind.UNKNOWN:
            return _unknown(now, result, timing, jitter)
        case _ as never:
            assert_never(never)


def _failed(now: Standing, result: Result) -> Decision:
    if now.cancel_asked:
        return Decision(State.CANCELLED, Step.NONE, None, number="failed")
    if result.retry_new and now.numbers < MAX_NUMBERS:
        return Decision(State.SUBMITTING, Step.SUBMIT, NEW_NUMBER_S, number="failed")
    return Decision(State.FAILED, Step.NONE, None, number="failed")


def _ask(now: Standing, state: State, timing: Timing, jitter: float) -> Decision:
    return Decision(state, Step.QUERY, _spread(timing.wait_s(now.queries), jitter))


def _confirmable(now: Standing, timing: Timing, jitter: float) -> Decision:
    """It waits for its owner, who may have asked meanwhile that it be cancelled."""
    if now.cancel_asked and now.made != Step.CANCEL:
        return Decision(State.USER_ACTION, Step.CANCEL, 0.0)
    return _ask(now, State.USER_ACTION, timing, jitter)


def _retry(now: Standing, result: Result, timing: Timing, jitter: float) -> Decision:
    """Certainly not taken. That is news only of a send; of a question it says: ask later."""
    if now.made != Step.SUBMIT:
        wait = result.retry_after_s or timing.wait_s(now.queries)
        return Decision(State(now.state), Step.QUERY, _spread(wait, jitter))
    wait = result.retry_after_s if result.retry_after_s is not None else RETRY_S
    return Decision(State.SUBMITTING, Step.SUBMIT, _spread(wait, jitter))


def _unknown(now: Standing, result: Result, timing: Timing, jitter: float) -> Decision:
    if result.not_found:
        left = now.grace_s - now.since_submit_s
        if left <= 0:
            return Decision(State.SUBMITTING, Step.SUBMIT, 0.0)
        wait = min(timing.wait_s(now.queries), left)
        return Decision(State.UNKNOWN, Step.QUERY, _spread(wait, jitter))
    # A question that failed takes nothing away from what the provider had confirmed before.
    known = now.made != Step.SUBMIT and now.state in (State.ACCEPTED, State.USER_ACTION)
    return _ask(now, State(now.state) if known else State.UNKNOWN, timing, jitter)


def _to_person(now: Standing, reason: ManualReason) -> Decision:
    """It waits, as it stands, for somebody who looks at the evidence."""
    kept = now.state in (State.ACCEPTED, State.USER_ACTION)
    state = State(now.state) if kept else State.UNKNOWN
    return Decision(state, Step.QUERY, None, manual=reason)


def _spread(wait_s: float, jitter: float) -> float:
    return wait_s * (1 + JITTER * jitter)
