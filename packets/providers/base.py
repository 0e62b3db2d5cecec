"""What the payout engine needs of a provider, and the closed set of what a provider may say.

An HTTP answer describes the request, not the money: whatever isn't certain is `UNKNOWN` and goes on
through `query`. Adapters decide on codes, never on message texts, and never raise from `submit`,
`query` or `cancel`. Every call has a time limit of its own, follows no redirect, and reads a
bounded answer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

# Seconds. A provider that drips its answer byte by byte is cut off at the last one.
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
CALL_LIMIT_S = 20.0
ANSWER_MAX_BYTES = 256 * 1024  # of a call; statements are streamed and bounded by themselves


class Kind(StrEnum):
    """What an answer means for the money."""

    ACCEPTED = "accepted"  # the provider has the order; the money is on its way or will be
    PENDING = "pending"  # being worked on
    USER_ACTION = "user_action"  # the person has to confirm, with what `user_action` holds
    PAID = "paid"  # final
    FAILED_FINAL = "failed_final"  # final: nothing was paid under this number, nor ever will be
    RETRY_SAME = "retry_same"  # certainly not taken: send the same bytes again later
    UNKNOWN = "unknown"  # anything else: ask before anything


@dataclass(frozen=True, slots=True)
class Result:
    """A provider's answer to submit, query or cancel."""

    kind: Kind
    code: str = ""  # the provider's own, or ours for what isn't an answer (`timeout`, …)
    detail: str = ""
    http_status: int | None = None
    provider_ref: str = ""
    amount_fen: int | None = None  # what the provider says the order is worth
    user_action: Mapping[str, Any] | None = None
    expires_at: dt.datetime | None = None
    retry_after_s: float | None = None
    not_found: bool = False  # a query that found nothing; kind is UNKNOWN, for it may be "not yet"
    out_of_funds: bool = False  # our account at the provider is short: nothing new is sent
    rate_limited: bool = False
    # With FAILED_FINAL: this number is dead, but the payout may go on under a new one.
    retry_new: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid. Amounts in fen."""

    out_number: str
    amount_fen: int
    currency: str
    payee_account: str
    payee_name: str
    remark: str
    notify_url: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, and its own bounds. Amounts in fen, periods as named."""

    min_fen: int
    max_fen: int | None
    out_number_max: int
    user_action: bool
    cancel: bool
    query_window_days: int
    statement: bool


@dataclass(frozen=True, slots=True)
class Event:
    """What a verified callback is about. It moves no money: it only makes us ask."""

    out_number: str
    provider_ref: str = ""
    event_id: str = ""


class LineState(StrEnum):
    PAID = "paid"
    FAILED = "failed"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line of a day's statement, in fen; `raw` is the line as the provider wrote it."""

    line_no: int
    out_number: str
    provider_ref: str
    amount_fen: int
    state: LineState
    at: dt.datetime
    raw: str


class BadCallback(Exception):
    """A callback whose signature isn't the provider's, or that says nothing we can read."""


class ProviderUnavailable(Exception):
    """A statement or a balance could not be had now; ask again later."""


class CredentialsMissing(Exception):
    """The account's credentials can't be used; `field` names the first that is wrong."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field, self.why = field, why
        self.why = why


class Provider(Protocol):
    name: str
    capabilities: Capabilities

    def request(self, order: Order) -> bytes:
        """The exact request, stored before the call. No I/O. ValueError for what can't be asked."""

    def submit(self, out_number: str, request: bytes) -> Result:
        """Send exactly these bytes."""

    def query(self, out_number: str) -> Result: ...

    def cancel(self, out_number: str) -> Result: ...

    def parse_callback(self, headers: Mapping[str, str], raw: bytes) -> Event:
        """Verify the signature over the raw bytes, then read. Raises BadCallback."""

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        """The day's lines, in the provider's zone, streamed. Raises ProviderUnavailable."""

    def balance(self) -> int:
        """What our account holds, in fen. Raises ProviderUnavailable."""
