"""What the stand-ins for real providers share: HTTP on loopback, orders by number, behaviours.

A stand-in is strict where the provider is: it verifies our signatures and signs its own answers as
documented, keeps the first order of a number, and refuses the number with other parameters.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from packets.providers.base import ANSWER_MAX_BYTES
from tests.packets.providers.contract import Behaviour

LINE_S = 10.0  # seconds after which a connection is given up, whatever it waits for


@functools.cache
def key(name: str) -> rsa.RSAPrivateKey:
    """A key of this run's own; the same for the same name, for making one takes a while."""
    return rsa.generate_private_key(65537, 2048)


def private_pem(name: str) -> str:
    return (
        key(name)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def public_pem(name: str) -> str:
    return (
        key(name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def sign(name: str, text: bytes) -> bytes:
    return key(name).sign(text, padding.PKCS1v15(), hashes.SHA256())


def signed_by(name: str, text: bytes, signature: bytes) -> bool:
    try:
        key(name).public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class Asked:
    method: str
    target: str  # path and query, as they stood in the request line
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


NO_REPLY = Reply(0, b"")  # nothing is said until the caller hangs up


@dataclass
class Sale:
    number: str
    payee: str
    amount_fen: int
    decides: bytes  # the parameters: another order under this number has others
    behaviour: Behaviour
    ref: str
    state: str  # waiting, paid, failed, cancelled
    at: float


class RailServer:
    """One stand-in. `answer` is its own; the rest is here."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sales: dict[str, Sale] = {}
        self.bodies: dict[str, list[bytes]] = {}
        self.seen: list[Asked] = []
        self.balance_fen = 1_000_000
        self.address = ""

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    # --- orders -------------------------------------------------------------------------------

    def take(self, number: str, payee: str, amount_fen: int, decides: bytes) -> Sale | None:
        """The number's order, the first that was sent; None: this one has other parameters."""
        known = self.sales.get(number)
        if known is not None:
            return known if known.decides == decides else None
        behaviour = behaviour_of(payee)
        waits = behaviour in (Behaviour.ACCEPTED, Behaviour.USER_ACTION)
        state = "waiting" if waits else "failed" if behaviour is Behaviour.FAILED else "paid"
        sale = Sale(
            number=number,
            payee=payee,
            amount_fen=amount_fen,
            decides=decides,
            behaviour=behaviour,
            ref=f"1330{len(self.sales):020d}",
            state=state,
            at=time.time(),
        )
        self.sales[number] = sale
        return sale

    def finish(self, number: str) -> None:
        with self.lock:
            self.sales[number].state = "paid"

    def odd_reply(self, behaviour: Behaviour) -> Reply | None:
        """Of those behaviours that are the same for all: what isn't an answer."""
        match behaviour:
            case Behaviour.TIMEOUT:
                return NO_REPLY
            case Behaviour.SERVER_ERROR:
                return Reply(500, b"<html>down</html>")
            case Behaviour.MALFORMED:
                return Reply(200, b"<html>ok</html>")
            case Behaviour.HUGE:
                return Reply(200, b'{"x":"' + b"x" * ANSWER_MAX_BYTES + b'"}')
            case Behaviour.REDIRECT:
                return Reply(307, b"", {"Location": f"{self.address}/elsewhere"})
            case _:
                return None

    # --- HTTP ---------------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = LINE_S

            def do_POST(self) -> None:
                self.handle_it()

            def do_GET(self) -> None:
                self.handle_it()

            def handle_it(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                with outer.lock:
                    outer.seen.append(asked)
                    reply = outer.answer(asked)
                if reply is NO_REPLY:
                    self.rfile.read(1)  # returns when the caller hangs up
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        errors: list[BaseException | None] = []

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                error = sys.exc_info()[1]
                if not isinstance(error, OSError):  # callers hang up, that's what they're for
                    errors.append(error)

        server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(LINE_S)
            server.server_close()
        assert not errors, errors


def payee(behaviour: Behaviour) -> str:
    return f"payee-{behaviour}"


def behaviour_of(account: str) -> Behaviour:
    return Behaviour(account.removeprefix("payee-"))
