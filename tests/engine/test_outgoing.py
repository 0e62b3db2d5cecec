"""Calls to others' servers end in time and in bounds, whatever the other side does."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.lib import outgoing
from engine.lib.outgoing import Answer, CallFailed, Limits, call

QUICK = Limits(connect_s=0.5, read_s=0.3, call_s=0.8, max_bytes=1_000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"

Behaviour = Callable[[socket.socket], None]


def read_request(line: socket.socket) -> bytes:
    """The whole request: its head, and as much body as it declares."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += line.recv(65536)
    head, _, body = said.partition(b"\r\n\r\n")
    length = next(
        (int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-l")),
        0,
    )
    while len(body) < length:
        body += line.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def listening(behave: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback that treats each connection with `behave`; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
                line.settimeout(10)
                with line if context is None else context.wrap_socket(line, server_side=True) as s:
                    behave(s)
            except ssl.SSLError:
                continue
            except OSError:
                if listener.fileno() == -1:
                    return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def answering(text: bytes, seen: list[bytes] | None = None) -> Behaviour:
    def behave(line: socket.socket) -> None:
        request = read_request(line)
        if seen is not None:
            seen.append(request)
        line.sendall(text)

    return behave


def dripping(start: bytes) -> Behaviour:
    """A byte every 50 ms for ever: no single wait is long."""

    def behave(line: socket.socket) -> None:
        read_request(line)
        line.sendall(start)
        while True:
            line.sendall(b"x")
            time.sleep(0.05)

    return behave


def failure(behave: Behaviour, limits: Limits = QUICK) -> tuple[str, float]:
    """What a call to such a server fails with, and after how many seconds."""
    with listening(behave) as port:
        started = time.monotonic()
        with pytest.raises(CallFailed) as failed:
            call("POST", f"http://127.0.0.1:{port}/x", body=b"{}", limits=limits)
        return failed.value.what, time.monotonic() - started


def test_a_request_arrives_whole_and_its_answer_comes_back() -> None:
    seen: list[bytes] = []
    text = HEAD + b"X-Two: 2\r\nContent-Length: 5\r\n\r\nhello"
    with listening(answering(text, seen)) as port:
        answer = call(
            "POST", f"http://127.0.0.1:{port}/a/b?c=d", headers={"X-One": "1"}, body=b"\x00\xff"
        )
    assert answer == Answer(
        200, {"content-type": "text/plain", "x-two": "2", "content-length": "5"}, b"hello"
    )
    (request,) = seen
    assert request.startswith(b"POST /a/b?c=d HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n\x00\xff")
    assert f"Host: 127.0.0.1:{port}\r\n".encode() in request
    assert b"X-One: 1\r\n" in request
    assert b"Connection: close\r\n" in request


def test_an_answer_in_chunks_or_up_to_the_end_of_the_connection_is_read_too() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    for text, body in ((chunked, b"abcde"), (HEAD + b"\r\nto the end", b"to the end")):
        with listening(answering(text)) as port:
            assert call("GET", f"http://127.0.0.1:{port}/").body == body


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD + b"\r\n"])
def test_a_server_that_drips_bytes_does_not_prolong_the_call(start: bytes) -> None:
    what, seconds = failure(dripping(start))
    assert what == "timeout"
    assert QUICK.call_s <= seconds < QUICK.call_s + 5  # a slow machine is late, never endless


def test_a_server_that_falls_silent_is_left_after_the_limit_for_one_wait() -> None:
    def silent(line: socket.socket) -> None:
        read_request(line)
        line.recv(1)  # returns when the caller has gone

    what, seconds = failure(silent)
    assert what == "timeout"
    assert seconds >= QUICK.read_s


@pytest.mark.parametrize(
    "text, what",
    [
        (HEAD + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001, "too_large"),
        (HEAD + b"\r\n" + b"x" * 5_000, "too_large"),
        (HEAD + b"Content-Length: 10\r\n\r\nshort", "broken"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "broken"),
        (b"", "broken"),
        (b"SMTP ready\r\n\r\n", "broken"),
    ],
)
def test_what_is_no_whole_answer_is_a_failure(text: bytes, what: str) -> None:
    assert failure(answering(text))[0] == what


def test_a_large_answer_goes_to_a_file_piece_by_piece_up_to_its_bound(tmp_path: Path) -> None:
    text = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
    with listening(answering(text)) as port, (tmp_path / "day").open("w+b") as file:
        url = f"http://127.0.0.1:{port}/"
        answer = call("GET", url, limits=Limits(max_bytes=300_000), into=file)
        assert (answer.body, file.tell()) == (b"", 300_000)
        with pytest.raises(CallFailed) as failed:
            call("GET", url, limits=Limits(max_bytes=299_999), into=file)
    assert failed.value.what == "too_large"
    refusal = b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nnone"
    with listening(answering(refusal)) as port, (tmp_path / "none").open("w+b") as file:
        assert call("GET", f"http://127.0.0.1:{port}/", into=file).body == b"none"
        assert file.tell() == 0


@pytest.mark.parametrize(
    "text, body",
    [
        (HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * 5_000, b"x" * 1_000),
        (HEAD + b"\r\n" + b"x" * 5_000, b"x" * 1_000),
        (HEAD + b"Content-Length: 10\r\n\r\nshort", b"short"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    ],
)
def test_who_needs_the_status_only_gets_the_beginning_of_any_answer(
    text: bytes, body: bytes
) -> None:
    limits = Limits(0.5, 0.3, 0.8, 1_000, cut=True)
    with listening(answering(text)) as port:
        assert call("POST", f"http://127.0.0.1:{port}/x", limits=limits).body == body


def test_the_status_counts_though_the_text_never_comes() -> None:
    limits = Limits(0.5, 0.3, 0.8, 1_000, cut=True)
    with listening(dripping(HEAD + b"\r\n")) as port:
        assert call("POST", f"http://127.0.0.1:{port}/x", limits=limits).status == 200


def test_a_redirect_is_handed_back_and_not_followed() -> None:
    seen: list[bytes] = []
    text = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    with listening(answering(text, seen)) as port:
        answer = call("POST", f"http://127.0.0.1:{port}/x", body=b"secret")
    assert (answer.status, answer.headers["location"]) == (307, "/elsewhere")
    assert len(seen) == 1


def test_proxies_of_the_environment_have_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with listening(answering(HEAD + b"Content-Length: 0\r\n\r\n")) as port:
        assert call("GET", f"http://127.0.0.1:{port}/").status == 200


def test_a_checked_address_is_connected_to_under_the_name_s_host() -> None:
    seen: list[bytes] = []
    with listening(answering(HEAD + b"Content-Length: 0\r\n\r\n", seen)) as port:
        call("GET", f"http://nowhere.invalid:{port}/", address="127.0.0.1")
    assert f"Host: nowhere.invalid:{port}\r\n".encode() in seen[0]


def test_nobody_there_and_no_such_name_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CallFailed) as failed:
        call("GET", f"http://127.0.0.1:{port}/", limits=QUICK)
    assert failed.value.what == "connect"
    with pytest.raises(CallFailed) as failed:
        call("GET", f"http://{'a' * 64}.invalid/", limits=QUICK)
    assert failed.value.what == "resolve"


@pytest.mark.parametrize("url", ["ftp://a/", "http:///x", "http://u:p@127.0.0.1/", "file:///etc"])
def test_only_plain_http_addresses_are_called(url: str) -> None:
    with pytest.raises(ValueError):
        call("GET", url)


def certificate(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def test_a_certificate_is_checked_for_the_name_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "pay.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    with listening(answering(HEAD + b"Content-Length: 0\r\n\r\n"), server) as port:
        good, other = f"https://pay.example:{port}/", f"https://other.example:{port}/"
        with pytest.raises(CallFailed) as unknown_issuer:
            call("GET", good, address="127.0.0.1")
        trusting = ssl.create_default_context(cafile=str(pem))
        monkeypatch.setattr(outgoing, "_tls", lambda: trusting)
        assert call("GET", good, address="127.0.0.1").status == 200
        with pytest.raises(CallFailed) as other_name:
            call("GET", other, address="127.0.0.1")
    assert (unknown_issuer.value.what, other_name.value.what) == ("tls", "tls")
