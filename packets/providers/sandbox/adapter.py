"""Our side of the sandbox: the provider interface over its HTTP API, and its control."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib import clock
from engine.lib.outgoing import READ_S, Answer, CallFailed, Limits, call
from packets.providers.base import (
    BadCallback,
    Capabilities,
    CredentialsMissing,
    Event,
    Kind,
    LineState,
    Order,
    ProviderUnavailable,
    Result,
    StatementLine,
)
from packets.providers.fields import Field, only_known, text_of
from packets.providers.sandbox.signing import (
    EVENT_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    signature,
    verified,
)

CAPABILITIES = Capabilities(
    min_fen=1,
    max_fen=20_000_000,
    out_number_max=32,
    user_action=True,
    cancel=True,
    query_window_days=365,
    statement=True,
)
# A day's statement and the whole of the books: a million lines, in the time that takes.
STATEMENT = Limits(read_s=60.0, call_s=300.0, max_bytes=256 * 1024 * 1024)
MIN_SECRET_CHARS = 16
DETAIL_MAX_CHARS = 200
FIELDS = (
    Field(
        "secret", gettext_lazy("secret"), True, True, gettext_lazy("SANDBOX_SECRET of its server.")
    ),
    Field(
        "patience_s",
        gettext_lazy("patience in seconds"),
        False,
        False,
        gettext_lazy("How long an answer is waited for; 10 where it is empty."),
    ),
)
# Refusals that leave nothing behind under this number, by their codes.
_NEVER_TAKEN = frozenset({"PARAM_ERROR", "AMOUNT_OUT_OF_RANGE"})
# Failures of a number, not of the payout.
_ANOTHER_NUMBER = frozenset({"ORDER_CLOSED"})


class SandboxProvider:
    """Implements `base.Provider`; what `credentials` hold is said by FIELDS."""

    name = "sandbox"
    capabilities = CAPABILITIES

    def __init__(self, base_url: str, credentials: Mapping[str, Any]) -> None:
        only_known(credentials, FIELDS)
        secret = text_of(credentials, "secret")
        if len(secret) < MIN_SECRET_CHARS:
            raise CredentialsMissing("secret", _("At least 16 characters are needed."))
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise CredentialsMissing("base_url", _("It begins with http:// or https://."))
        self._base_url = base_url.rstrip("/")
        self._secret = secret.encode()
        self._limits = Limits(read_s=_patience_s(credentials))

    # --- orders -------------------------------------------------------------------------------

    def request(self, order: Order) -> bytes:
        """The order as JSON with sorted keys: the same order gives the same bytes."""
        return json.dumps(
            {
                "out_number": order.out_number,
                "amount_fen": order.amount_fen,
                "currency": order.currency,
                "payee_account": order.payee_account,
                "payee_name": order.payee_name,
                "remark": order.remark,
                "notify_url": order.notify_url,
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()

    def submit(self, out_number: str, request: bytes) -> Result:
        return self._result("POST", "/v1/transfers", request)

    def query(self, out_number: str) -> Result:
        return self._result("GET", f"/v1/transfers/{out_number}")

    def cancel(self, out_number: str) -> Result:
        return self._result("POST", f"/v1/transfers/{out_number}/cancel")

    def _result(self, method: str, path: str, body: bytes = b"") -> Result:
        try:
            reply = self._call(method, path, body)
        except CallFailed as failure:
            return Result(Kind.UNKNOWN, code=failure.what)
        return result_of(reply, sent=bool(body))

    def _call(
        self, method: str, path: str, body: bytes = b"", limits: Limits | None = None
    ) -> Answer:
        timestamp = str(int(clock.now().timestamp()))
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: signature(self._secret, timestamp, f"{method} {path}", body),
        }
        url = self._base_url + path
        return call(method, url, headers=headers, body=body, limits=limits or self._limits)

    # --- callbacks, statements, balance -------------------------------------------------------

    def parse_callback(self, headers: Mapping[str, str], raw: bytes) -> Event:
        known = {name.lower(): value for name, value in headers.items()}
        event_id = known.get(EVENT_HEADER.lower(), "")
        good = verified(
            self._secret,
            known.get(TIMESTAMP_HEADER.lower(), ""),
            event_id,
            raw,
            known.get(SIGNATURE_HEADER.lower(), ""),
            clock.now().timestamp(),
        )
        if not good:
            raise BadCallback("the signature is not the provider's")
        try:
            said = json.loads(raw)
            return Event(str(said["out_number"]), str(said["provider_ref"]), event_id)
        except (ValueError, KeyError, TypeError) as error:
            raise BadCallback("the callback can't be read") from error

    def statement(self, day: dt.date) -> Iterator[StatementLine]:
        lines = io.BytesIO(self._good(f"/v1/statements/{day.isoformat()}", STATEMENT).body)
        next(lines, None)  # the columns' names
        for line in lines:
            raw = line.decode("utf-8", "replace").rstrip("\r\n")
            if raw:
                yield _statement_line(raw)

    def balance(self) -> int:
        said = _json(self._good("/v1/balance"))
        amount = said.get("balance_fen")
        if type(amount) is not int:
            raise ProviderUnavailable("the balance can't be read")
        return amount

    def _good(self, path: str, limits: Limits | None = None) -> Answer:
        try:
            reply = self._call("GET", path, limits=limits)
        except CallFailed as failure:
            raise ProviderUnavailable(failure.what) from failure
        if reply.status != 200:
            raise ProviderUnavailable(f"status {reply.status}")
        return reply

    # --- the control (the admin's page and tests) ---------------------------------------------

    def control(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the sandbox is set to and did last; with `changes`, after making them.

        ProviderUnavailable; ValueError with the sandbox's own words for what can't be set.
        """
        method, body = ("GET", b"") if changes is None else ("PUT", json.dumps(changes).encode())
        return self._controlled(method, "/control", body)

    def control_all(self) -> dict[str, Any]:
        """The same with every call and order in its books."""
        return self._controlled("GET", "/control/all")

    def confirm(self, out_number: str) -> dict[str, Any]:
        """What the payee would do on their phone."""
        return self._controlled("POST", f"/control/confirm/{out_number}")

    def _controlled(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        try:
            reply = self._call(method, path, body, STATEMENT)
        except CallFailed as failure:
            raise ProviderUnavailable(failure.what) from failure
        said = _json(reply)
        if reply.status in (400, 404):
            raise ValueError(str(said.get("message") or said.get("code")))
        if reply.status != 200:
            raise ProviderUnavailable(f"status {reply.status}")
        return said


# --- what an answer means -------------------------------------------------------------------------


def result_of(reply: Answer, *, sent: bool) -> Result:
    """By status and code; whatever isn't known is UNKNOWN.

    `sent`: the answer is to an order that was sent. A refused question says nothing of the order.
    """
    said = _json(reply)
    code = said.get("code")
    code = code[:80] if isinstance(code, str) else ""
    status = reply.status
    kind, retry_after_s = Kind.UNKNOWN, None
    if status == 200 and code == "OK":
        return _of_order(said)
    limited = status == 429 and code == "FREQUENCY_LIMITED"
    short = status == 403 and code == "NOT_ENOUGH"
    if limited or short:
        retry_after_s = _seconds(reply.headers.get("retry-after", ""))
    if sent and (limited or short):
        kind = Kind.RETRY_SAME
    elif sent and status == 400 and code in _NEVER_TAKEN:
        kind = Kind.FAILED_FINAL
    return Result(
        kind,
        code=code or f"http_{status}",
        http_status=status,
        retry_after_s=retry_after_s,
        not_found=not sent and status == 404 and code == "NOT_FOUND",
        out_of_funds=sent and short,
        rate_limited=limited,
    )


def _of_order(said: Mapping[str, Any]) -> Result:
    amount = said.get("amount_fen")
    ref, fail_code = said.get("provider_ref"), said.get("fail_code")
    kinds = {
        "accepted": Kind.ACCEPTED,
        "waiting": Kind.USER_ACTION,
        "paid": Kind.PAID,
        "failed": Kind.FAILED_FINAL,
        "cancelled": Kind.FAILED_FINAL,
    }
    kind = kinds.get(str(said.get("state")))
    if kind is None or type(amount) is not int or not isinstance(ref, str):
        return Result(Kind.UNKNOWN, code="unreadable", http_status=200)
    action = said.get("user_action")
    return Result(
        kind,
        code=fail_code if isinstance(fail_code, str) else "",
        http_status=200,
        provider_ref=ref[:80],
        amount_fen=amount,
        user_action=action if isinstance(action, dict) else None,
        expires_at=_moment(said.get("expires_at")),
        retry_new=kind is Kind.FAILED_FINAL and fail_code in _ANOTHER_NUMBER,
    )


def _json(reply: Answer) -> dict[str, Any]:
    try:
        said = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _patience_s(credentials: Mapping[str, Any]) -> float:
    text = text_of(credentials, "patience_s", required=False)
    try:
        patience_s = float(text or READ_S)
    except ValueError:
        patience_s = 0.0
    if not 0 < patience_s <= READ_S:
        raise CredentialsMissing("patience_s", _("Enter more than 0 and at most 10 seconds."))
    return patience_s


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def _moment(text: Any) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def _statement_line(raw: str) -> StatementLine:
    try:
        number, out_number, ref, amount, state, at = next(csv.reader([raw]))
        return StatementLine(
            line_no=int(number),
            out_number=out_number,
            provider_ref=ref,
            amount_fen=int(amount),
            state=LineState(state),
            at=dt.datetime.fromisoformat(at),
            raw=raw,
        )
    except (ValueError, StopIteration) as error:
        raise ProviderUnavailable("a line of the statement can't be read") from error
