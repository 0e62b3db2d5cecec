"""What the stories of webhooks share: an app, its endpoints, and a receiver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from django.db import connection, transaction

from engine.lib import crypto
from engine.lib.outbox import EventKind, outbox_emit
from engine.models import ClientApp, WebhookDelivery, WebhookEndpoint

SECRET = b"0123456789abcdef0123456789abcdef"
OLD_SECRET = b"fedcba9876543210fedcba9876543210"


def make_app(slug: str = "shop") -> ClientApp:
    return ClientApp.objects.create(slug=slug, name=slug.title())


def make_endpoint(
    app: ClientApp,
    *,
    url: str = "https://a.example/hooks",
    kinds: Sequence[EventKind] = (EventKind.PAYOUT_PAID,),
    **fields: Any,
) -> WebhookEndpoint:
    return WebhookEndpoint.objects.create(
        client_app=app,
        url=url,
        kinds=[kind.value for kind in kinds],
        secret_encrypted=crypto.encrypt(SECRET),
        **fields,
    )


def happen(app: ClientApp, count: int = 1, start: int = 0) -> None:
    """So many payouts are paid."""
    with transaction.atomic():
        for number in range(start, start + count):
            data = {"payout": f"p{number}", "amount_fen": 100 + number, "name": "小明"}
            outbox_emit(EventKind.PAYOUT_PAID, app.pk, data, key=f"p{number}")


def due_now(**filters: Any) -> None:
    """Their time has come: what waits for its next attempt is due at once."""
    rows = WebhookDelivery.objects.filter(state="waiting", lease_until=None, **filters)
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp() - interval '1 millisecond'")
        rows.update(next_attempt_at=cursor.fetchone()[0])


@dataclass
class Call:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A server on loopback. `answer` decides what each call gets: a status, and a text if any."""

    answer: Callable[[Call], int | tuple[int, bytes]] = lambda call: 200
    calls: list[Call] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks?a=1"

    def handle(self, call: Call) -> tuple[int, bytes]:
        with self.lock:
            self.calls.append(call)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            said = self.answer(call)
        finally:
            with self.lock:
                self.in_flight -= 1
        return said if isinstance(said, tuple) else (said, b"")


@contextmanager
def receiving(
    answer: Callable[[Call], int | tuple[int, bytes]] | None = None,
) -> Iterator[Receiver]:
    receiver = Receiver(answer) if answer else Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, text = receiver.handle(Call(self.path, headers, body))
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except OSError:
                pass  # whoever called is gone

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
