"""A packet in memory behind real HTTP: honest, or dishonest in exactly one way.

It stands in for the product where the crowd itself is under test: the crowd must call an honest
shop green and every dishonest one red. The product's own crowd tests are in `tests/faults`.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import jwt

KID, SECRET, PACKET = "shop-1", "a-secret-that-only-the-shop-and-its-app-know", "ab" * 16


@dataclass
class Shop:
    """`count` portions of 7 fen. `fault` names the one way in which it is dishonest."""

    count: int
    fault: str = ""
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    views: int = 0
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, user: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked[user] += 1
            if self.fault == "fails" and self.asked[user] == 1 and user.endswith("7"):
                return 500, {"code": "internal_error"}
            if self.fault == "stumbles" and self.asked[user] == 1:
                return 503, {"code": "unavailable"}
            before = self.claims.get(user)
            if before is not None and not (self.fault == "flips" and user.endswith("01")):
                told = dict(before)
                told["amount_fen"] += self.fault == "changes" and user.endswith("01")
                replayed = self.fault != "unmarked"
                return 200, {"result": "won", "claim": told, "replayed": replayed}
            if len(self.claims) >= self.count:
                return 200, {"result": "sold_out"}
            won = {"id": f"c-{user}", "amount_fen": 7}
            self.claims[user] = won
            return 200, {"result": "won", "claim": won, "replayed": False}

    @contextmanager
    def one_more_at_once(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def export(self) -> list[str]:
        """What `manage.py export_claims` prints, of this shop's books."""
        head = {"packet": PACKET, "total_fen": 7 * self.count, "count": self.count}
        rows = [
            {
                "claim": claim["id"],
                "user": user,
                "serial": 0,
                "amount_fen": claim["amount_fen"],
                "lane": 0,
                "epoch": 1,
                "index": index,
                "committed_at": "2026-01-01T00:00:00+00:00",
            }
            for index, (user, claim) in enumerate(self.claims.items())
            if not (self.fault == "loses" and index == 0)
        ]
        return [json.dumps(line) for line in (head, *rows)]


class _Counter(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one segment an answer
    shop: ClassVar[Shop]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._user()
        self.shop.views += 1
        self._answer(200, {"id": PACKET})

    def do_POST(self) -> None:
        with self.shop.one_more_at_once():
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert (self.path, json.loads(body)) == (f"/api/v1/packets/{PACKET}/claims", {})
            self._answer(*self.shop.claim(self._user()))

    def _user(self) -> str:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        assert jwt.get_unverified_header(token)["kid"] == KID
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="laisee")
        return str(claims["sub"])

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if status == 503:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()


@contextmanager
def open_shop(shop: Shop) -> Iterator[str]:
    """Serve `shop` on a free port; gives its address."""
    handler = type("Counter", (_Counter,), {"shop": shop})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
