"""The sandbox's HTTP server: `python -m packets.providers.sandbox.server`, or any RSGI server.

    POST /v1/transfers                     send an order (the body is the order)
    GET  /v1/transfers/{out_number}        ask about it
    POST /v1/transfers/{out_number}/cancel
    GET  /v1/balance
    GET  /v1/statements/{YYYY-MM-DD}       CSV
    GET  /control, PUT /control            faults, rates, seed, balance; the last calls and orders
    POST /control/confirm/{out_number}     what the payee does on their phone
    GET  /healthz

Everything but /healthz is signed with the account's secret (see `signing`). One thread does
everything, so the books need no locks; waiting costs nothing, for the loop waits. Callbacks leave
from a few threads and are in the books first, so a killed server sends them when it is back.

Environment: SANDBOX_SECRET, SANDBOX_DIR (where the books are), and for the module as a program
SANDBOX_PORT.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import http.client
import json
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packets.providers.sandbox import faults, statements, teller
from packets.providers.sandbox.books import MAX_ROWS, SHOWN_ROWS, Books, Callback
from packets.providers.sandbox.faults import StatementFault
from packets.providers.sandbox.signing import (
    EVENT_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    signature,
    verified,
)
from packets.providers.sandbox.teller import JSON, Answer, refusal

# Seconds between two looks at what is due.
TICK_S = 0.05
# Callbacks under way at once, and the seconds that one may take.
SENDERS = 8
CALLBACK_TIMEOUT_S = 5.0
MAX_BODY_BYTES = 65_536
MAX_BALANCE_FEN = 2**53 - 1
MAX_SETTLE_S = 3_600.0

_TRANSFER = re.compile(r"/v1/transfers/([0-9A-Za-z]{1,64})(/cancel)?\Z")
_STATEMENT = re.compile(r"/v1/statements/(\d{4}-\d{2}-\d{2})\Z")
_CONFIRM = re.compile(r"/control/confirm/([0-9A-Za-z]{1,64})\Z")


class Server:
    """The RSGI application."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._books = Books(folder / "sandbox.sqlite3")
        self._secret = secret
        self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="callback")
        self._sending = 0
        self._ticker: asyncio.Task[None] | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticker = loop.create_task(self._tick())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self._senders.shutdown(wait=False, cancel_futures=True)

    # --- what happens by itself -----------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            try:
                now = time.time()
                teller.settle_due(self._books, now)
                for callback in self._books.callbacks_due(now, SENDERS - self._sending):
                    self._spawn(callback)
            except Exception as error:  # noqa: BLE001 (one bad row must not stop the others)
                sys.stderr.write(f"sandbox: {type(error).__name__}: {error}\n")
            await asyncio.sleep(TICK_S)

    def _spawn(self, callback: Callback) -> asyncio.Task[None]:
        self._books.callback_lease(callback, time.time() + 2 * CALLBACK_TIMEOUT_S)
        self._sending += 1
        return asyncio.create_task(self._deliver(callback))

    async def _deliver(self, callback: Callback) -> None:
        try:
            loop = asyncio.get_running_loop()
            status = await loop.run_in_executor(self._senders, self._post, callback)
            self._books.callback_tried(callback, status, time.time())
        finally:
            self._sending -= 1

    def _post(self, callback: Callback) -> int:
        """The status that the receiver answered; 0 where there was none."""
        url = urlsplit(callback.notify_url)
        secret = b"not the secret" if callback.forged else self._secret
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": JSON,
            TIMESTAMP_HEADER: timestamp,
            EVENT_HEADER: callback.event_id,
            SIGNATURE_HEADER: signature(secret, timestamp, callback.event_id, callback.body),
        }
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        try:
            link = kind(url.hostname or "", url.port, timeout=CALLBACK_TIMEOUT_S)
            with contextlib.closing(link):
                link.request("POST", url.path or "/", body=callback.body, headers=headers)
                return link.getresponse().status
        except (OSError, ValueError, http.client.HTTPException):
            return 0

    # --- what is asked --------------------------------------------------------------------------

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        if scope.path == "/healthz":
            protocol.response_bytes(200, [("content-type", JSON)], b'{"status":"ok"}')
            return
        raw = await protocol()
        answer, call_id = self._answer(scope, raw)
        left = await self._held(answer, protocol)
        if call_id:
            status = 0 if left else answer.status
            self._books.call_end(call_id, status, answer.fault, time.time_ns())
        kind = (
            []
            if any(name == "content-type" for name, _ in answer.headers)
            else [("content-type", JSON)]
        )
        protocol.response_bytes(answer.status, [*kind, *answer.headers], answer.body)

    async def _held(self, answer: Answer, protocol: Any) -> bool:
        """What happens before an answer leaves; whether whoever asked left earlier."""
        if not answer.hold_s and not answer.deliver_first:
            return False
        gone = asyncio.ensure_future(protocol.client_disconnect())
        if answer.deliver_first:
            due = self._books.callbacks_due(time.time(), SENDERS, answer.deliver_first)
            sent = asyncio.gather(*(self._spawn(callback) for callback in due))
            # They go on without whoever has left.
            await asyncio.wait({gone, sent}, return_when=asyncio.FIRST_COMPLETED)
        if answer.hold_s:
            await asyncio.wait({gone}, timeout=answer.hold_s)
        left: bool = gone.done()
        gone.cancel()
        return left

    def _answer(self, scope: Any, raw: bytes) -> tuple[Answer, int]:
        target = scope.path + (f"?{scope.query_string}" if scope.query_string else "")
        if len(raw) > MAX_BODY_BYTES:
            return refusal("PARAM_ERROR", 413), 0
        if not verified(
            self._secret,
            scope.headers.get(TIMESTAMP_HEADER.lower()) or "",
            f"{scope.method} {target}",
            raw,
            scope.headers.get(SIGNATURE_HEADER.lower()) or "",
            time.time(),
        ):
            return refusal("SIGN_ERROR", 401), 0
        if scope.path.startswith("/control"):
            return self._control(scope.method, scope.path, raw), 0
        return self._call(scope.method, scope.path, raw)

    def _call(self, method: str, path: str, raw: bytes) -> tuple[Answer, int]:
        """A call that belongs to the provider's API; those about an order are in the log."""
        books, now = self._books, time.time()
        if method == "POST" and path == "/v1/transfers":
            return self._logged(
                "submit", _number_in(raw), raw, lambda: teller.submit(books, raw, now)
            )
        if match := _TRANSFER.match(path):
            number = match[1]
            if method == "GET" and not match[2]:
                return self._logged("query", number, raw, lambda: teller.query(books, number, now))
            if method == "POST" and match[2]:
                return self._logged(
                    "cancel", number, raw, lambda: teller.cancel(books, number, now)
                )
        if method == "GET" and path == "/v1/balance":
            return teller.answer(200, "OK", balance_fen=books.balance_fen(), currency="CNY"), 0
        if method == "GET" and (match := _STATEMENT.match(path)):
            try:
                day = dt.date.fromisoformat(match[1])
            except ValueError:
                return refusal("PARAM_ERROR"), 0
            text = statements.of_day(books, day).encode()
            return Answer(200, text, (("content-type", "text/csv; charset=utf-8"),)), 0
        return refusal("NO_SUCH_ADDRESS", 404), 0

    def _logged(
        self, operation: str, number: str, raw: bytes, run: Callable[[], Answer]
    ) -> tuple[Answer, int]:
        digest = hashlib.sha256(raw).hexdigest() if raw else ""
        with self._books.transaction():
            call_id = self._books.call_begin(operation, number, digest, time.time_ns())
            return run(), call_id

    # --- the control --------------------------------------------------------------------------

    def _control(self, method: str, path: str, raw: bytes) -> Answer:
        if method == "GET" and path == "/control":
            return self._shown(SHOWN_ROWS)
        if method == "GET" and path == "/control/all":
            return self._shown(MAX_ROWS)
        if method == "PUT" and path == "/control":
            try:
                changes = checked(json.loads(raw))
            except (ValueError, TypeError, AttributeError) as error:
                return teller.answer(400, "PARAM_ERROR", message=str(error))
            balance_fen = changes.pop("balance_fen", None)
            if balance_fen is not None:
                self._books.balance_set(balance_fen)
            self._books.settings_set(**changes)
            return self._shown(SHOWN_ROWS)
        if method == "POST" and (match := _CONFIRM.match(path)):
            with self._books.transaction():
                return teller.confirm(self._books, match[1], time.time())
        return refusal("NO_SUCH_ADDRESS", 404)

    def _shown(self, limit: int) -> Answer:
        books = self._books
        settings = books.settings()
        return teller.answer(
            200,
            "OK",
            seed=settings.seed,
            rates=dict(settings.rates or {}),
            seconds=dict(settings.seconds or {}),
            default_seconds={str(fault): s for fault, s in faults.DEFAULT_SECONDS.items()},
            settle_s=settings.settle_s,
            check_numbers=settings.check_numbers,
            balance_fen=books.balance_fen(),
            totals=books.totals(),
            orders_open=books.open_count(),
            calls=books.calls(limit=limit),
            callbacks=books.callbacks(limit),
            orders=[
                {
                    "out_number": order.out_number,
                    "provider_ref": order.ref,
                    "amount_fen": order.amount_fen,
                    "state": str(order.state),
                    "code": order.code,
                    "fault": order.fault,
                    "accepted_at": teller.moment(order.accepted_at),
                }
                for order in books.orders(limit)
            ],
        )


def _number_in(raw: bytes) -> str:
    try:
        number = json.loads(raw)["out_number"]
    except (ValueError, KeyError, TypeError):
        return ""
    return number if isinstance(number, str) else ""


def checked(changes: dict[str, Any]) -> dict[str, Any]:
    """The settings that a control call may change; ValueError says which isn't one."""
    known: dict[str, Callable[[Any], Any]] = {
        "seed": lambda value: str(value)[:100],
        "rates": _rates,
        "seconds": _seconds,
        "settle_s": lambda value: _number(value, "settle_s", MAX_SETTLE_S),
        "check_numbers": bool,
        "balance_fen": lambda value: int(_number(value, "balance_fen", MAX_BALANCE_FEN)),
    }
    unknown = set(changes) - set(known)
    if unknown:
        raise ValueError(f"no setting named {', '.join(sorted(unknown))}")
    return {name: known[name](value) for name, value in changes.items()}


def _number(value: Any, name: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} must lie in 0..{most:g}")
    return value


def _rates(value: dict[str, Any]) -> dict[str, float]:
    if unknown := set(value) - faults.ALL_RATES:
        raise ValueError(f"no fault named {', '.join(sorted(unknown))}")
    rates = {name: float(_number(rate, name, 1.0)) for name, rate in value.items()}
    kinds = set(map(str, StatementFault))
    for group in (rates.keys() & kinds, rates.keys() - kinds):
        if sum(rates[name] for name in group) > 1.0 + 1e-9:
            raise ValueError("the rates of faults add up to more than 1")
    return rates


def _seconds(value: dict[str, Any]) -> dict[str, float]:
    if unknown := set(value) - {str(fault) for fault in faults.DEFAULT_SECONDS}:
        raise ValueError(f"no lasting fault named {', '.join(sorted(unknown))}")
    return {name: float(_number(s, name, faults.MAX_SECONDS)) for name, s in value.items()}


def from_environment() -> Server:
    return Server(Path(os.environ["SANDBOX_DIR"]), os.environ["SANDBOX_SECRET"].encode())
