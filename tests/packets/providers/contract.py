"""What every payout provider's adapter must do, whatever it speaks: one suite for all of them.

A provider's own test module has a `Stand`: its real adapter in front of a real server on loopback
that speaks and signs as the provider documents. Derive from `ProviderContract`, give the `stand`:

    class TestThisProvider(ProviderContract):
        @pytest.fixture
        def stand(self) -> Iterator[Stand]: ...
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol

import pytest

from packets.providers.base import BadCallback, Kind, LineState, Order, Provider
from tests.conftest import wait_until

AMOUNT_FEN = 1_234


class Behaviour(StrEnum):
    """How the stand's server treats an order."""

    PAID = "paid"  # in the first answer, or right after it
    ACCEPTED = "accepted"  # and paid when the test says so
    FAILED = "failed"
    USER_ACTION = "user_action"
    TIMEOUT = "timeout"  # no answer; the order is taken
    SERVER_ERROR = "server_error"  # 5xx; the order is taken
    UNKNOWN_CODE = "unknown_code"
    MALFORMED = "malformed"
    HUGE = "huge"
    REDIRECT = "redirect"
    OUT_OF_FUNDS = "out_of_funds"
    RATE_LIMITED = "rate_limited"
    WRONG_AMOUNT = "wrong_amount"


# Whoever hears one of these knows nothing of the money.
UNCERTAIN = (
    Behaviour.TIMEOUT,
    Behaviour.SERVER_ERROR,
    Behaviour.UNKNOWN_CODE,
    Behaviour.MALFORMED,
    Behaviour.HUGE,
    Behaviour.REDIRECT,
)


class Stand(Protocol):
    """A provider and the strings behind it."""

    provider: Provider
    notify_url: str  # taken by the stand; see `callback`

    def payee(self, behaviour: Behaviour) -> str:
        """The payee account whose orders the server treats so."""

    def bodies(self, out_number: str) -> list[bytes]:
        """What the server received each time this number was sent: raw, in order.

        A stand that signs or stamps each sending anew gives only what the stored request decides.
        """

    def finish(self, out_number: str) -> None:
        """An accepted order is paid; what waits for the payee is confirmed."""

    def callback(self, out_number: str) -> tuple[dict[str, str], bytes]:
        """Headers and raw body of a genuine callback about an order that is paid."""

    def day(self) -> dt.date:
        """Today, as the provider's statements count days."""


def order(stand: Stand, behaviour: Behaviour, **changes: object) -> Order:
    made = Order(
        out_number=uuid.uuid4().hex,
        amount_fen=AMOUNT_FEN,
        currency="CNY",
        payee_account=stand.payee(behaviour),
        payee_name="陈红",
        remark="红包提现",
        notify_url=stand.notify_url,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def sent(stand: Stand, behaviour: Behaviour) -> tuple[Order, bytes]:
    """An order of this behaviour that was sent once; and its request."""
    made = order(stand, behaviour)
    request = stand.provider.request(made)
    stand.provider.submit(made.out_number, request)
    return made, request


class ProviderContract:
    """The suite. Every test is about one promise of `packets/providers/base.py`."""

    @pytest.fixture
    def stand(self) -> Stand:
        raise NotImplementedError

    # --- orders -------------------------------------------------------------------------------

    def test_an_order_is_paid_and_a_question_says_so_with_amount_and_reference(
        self, stand: Stand
    ) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.PAID)
        told = stand.provider.query(made.out_number)
        assert (told.kind, told.amount_fen) == (Kind.PAID, AMOUNT_FEN)
        assert told.provider_ref

    def test_an_accepted_order_is_not_paid_until_the_provider_says_so(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.ACCEPTED)
        assert stand.provider.query(made.out_number).kind in (Kind.ACCEPTED, Kind.PENDING)
        stand.finish(made.out_number)
        assert stand.provider.query(made.out_number).kind is Kind.PAID

    def test_a_repeat_of_the_number_and_its_bytes_is_the_first_order(self, stand: Stand) -> None:
        made, request = sent(stand, Behaviour.PAID)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.PAID)
        first = stand.provider.query(made.out_number)
        again = stand.provider.submit(made.out_number, request)
        assert again.kind in (Kind.PAID, Kind.ACCEPTED, Kind.PENDING)
        assert stand.provider.query(made.out_number).provider_ref == first.provider_ref
        lines = [
            line
            for line in stand.provider.statement(stand.day())
            if line.out_number == made.out_number
        ]
        assert len(lines) == 1, "paid once"

    def test_the_number_with_another_body_is_never_taken_for_a_failure(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.ACCEPTED)
        other = dataclasses.replace(made, amount_fen=AMOUNT_FEN + 1)
        said = stand.provider.submit(made.out_number, stand.provider.request(other))
        assert said.kind is Kind.UNKNOWN
        assert stand.provider.query(made.out_number).amount_fen == AMOUNT_FEN

    def test_the_same_order_makes_the_same_bytes_and_they_are_sent_unchanged(
        self, stand: Stand
    ) -> None:
        made = order(stand, Behaviour.ACCEPTED)
        request = stand.provider.request(made)
        for _ in range(2):
            stand.provider.submit(made.out_number, request)
        first, second = stand.bodies(made.out_number)
        assert first == second

    def test_a_number_that_was_never_sent_is_not_found_which_is_no_failure(
        self, stand: Stand
    ) -> None:
        told = stand.provider.query(uuid.uuid4().hex)
        assert (told.kind, told.not_found) == (Kind.UNKNOWN, True)

    @pytest.mark.parametrize("behaviour", UNCERTAIN)
    def test_what_is_no_clear_answer_is_unknown(self, stand: Stand, behaviour: Behaviour) -> None:
        made = order(stand, behaviour)
        said = stand.provider.submit(made.out_number, stand.provider.request(made))
        assert said.kind is Kind.UNKNOWN
        assert not said.not_found
        assert said.code, "the log wants to say what it was"

    @pytest.mark.parametrize("behaviour", [Behaviour.TIMEOUT, Behaviour.SERVER_ERROR])
    def test_behind_an_unknown_answer_the_order_may_be_paid(
        self, stand: Stand, behaviour: Behaviour
    ) -> None:
        made, _ = sent(stand, behaviour)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.PAID)

    def test_a_final_failure_is_said_with_its_code(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.FAILED)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.FAILED_FINAL)
        assert stand.provider.query(made.out_number).code

    def test_an_empty_account_asks_for_a_resend_and_says_why(self, stand: Stand) -> None:
        made = order(stand, Behaviour.OUT_OF_FUNDS)
        said = stand.provider.submit(made.out_number, stand.provider.request(made))
        assert (said.kind, said.out_of_funds) == (Kind.RETRY_SAME, True)

    def test_too_many_calls_ask_for_a_resend_later(self, stand: Stand) -> None:
        made = order(stand, Behaviour.RATE_LIMITED)
        said = stand.provider.submit(made.out_number, stand.provider.request(made))
        assert (said.kind, said.rate_limited) == (Kind.RETRY_SAME, True)

    def test_an_amount_that_is_not_ours_is_handed_on_as_it_was_said(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.WRONG_AMOUNT)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.PAID)
        assert stand.provider.query(made.out_number).amount_fen not in (None, AMOUNT_FEN)

    # --- what the payee has to do, and what we may take back -------------------------------------

    def test_the_payee_is_told_what_to_do_and_is_paid_after_doing_it(self, stand: Stand) -> None:
        if not stand.provider.capabilities.user_action:
            return
        made, request = sent(stand, Behaviour.USER_ACTION)
        told = stand.provider.submit(made.out_number, request)
        assert told.kind is Kind.USER_ACTION
        assert told.user_action
        stand.finish(made.out_number)
        assert stand.provider.query(made.out_number).kind is Kind.PAID

    def test_an_order_that_waits_can_be_cancelled_and_a_paid_one_stays_paid(
        self, stand: Stand
    ) -> None:
        if not stand.provider.capabilities.cancel:
            return
        waiting, _ = sent(stand, Behaviour.USER_ACTION)
        stand.provider.cancel(waiting.out_number)
        wait_until(lambda: stand.provider.query(waiting.out_number).kind is Kind.FAILED_FINAL)
        paid, _ = sent(stand, Behaviour.PAID)
        wait_until(lambda: stand.provider.query(paid.out_number).kind is Kind.PAID)
        assert stand.provider.cancel(paid.out_number).kind in (Kind.PAID, Kind.UNKNOWN)
        assert stand.provider.query(paid.out_number).kind is Kind.PAID

    # --- callbacks ----------------------------------------------------------------------------

    def test_a_callback_says_which_order_it_is_about(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        headers, raw = stand.callback(made.out_number)
        event = stand.provider.parse_callback(headers, raw)
        assert event.out_number == made.out_number
        assert event.event_id
        # Headers' names have no case.
        shouted = {name.upper(): value for name, value in headers.items()}
        assert stand.provider.parse_callback(shouted, raw) == event

    def test_a_callback_may_come_again(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        headers, raw = stand.callback(made.out_number)
        first = stand.provider.parse_callback(headers, raw)
        assert stand.provider.parse_callback(headers, raw) == first

    def test_a_callback_that_was_changed_is_refused(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        headers, raw = stand.callback(made.out_number)
        for spoilt in (raw + b" ", raw[:-1], raw.swapcase(), b""):
            with pytest.raises(BadCallback):
                stand.provider.parse_callback(headers, spoilt)

    def test_a_callback_without_a_good_signature_is_refused(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        for headers, raw in self.unsigned(*stand.callback(made.out_number)):
            with pytest.raises(BadCallback):
                stand.provider.parse_callback(headers, raw)

    def unsigned(
        self, headers: dict[str, str], raw: bytes
    ) -> Iterator[tuple[dict[str, str], bytes]]:
        """A callback without its signature, and with one that is none: here it's in the headers."""
        yield {}, raw
        yield {name: "0" * len(value) for name, value in headers.items()}, raw

    # --- statement and balance -------------------------------------------------------------------

    def test_the_statement_lists_what_was_paid_in_fen(self, stand: Stand) -> None:
        made, _ = sent(stand, Behaviour.PAID)
        wait_until(lambda: stand.provider.query(made.out_number).kind is Kind.PAID)
        told = stand.provider.query(made.out_number)
        (line,) = [
            line
            for line in stand.provider.statement(stand.day())
            if line.out_number == made.out_number
        ]
        assert (line.amount_fen, line.state) == (AMOUNT_FEN, LineState.PAID)
        assert line.provider_ref == told.provider_ref
        assert line.at.tzinfo is not None
        assert made.out_number in line.raw

    def test_the_balance_is_whole_fen(self, stand: Stand) -> None:
        assert type(stand.provider.balance()) is int
