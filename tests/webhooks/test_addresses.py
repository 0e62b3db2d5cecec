"""Which addresses are called: none of our own neighbours, however they are written or resolved."""

from __future__ import annotations

import ipaddress
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.lib import outgoing
from engine.lib.errors import ServiceError
from engine.webhooks import calling
from engine.webhooks.addresses import address_is_allowed, address_is_open, url_check
from engine.webhooks.calling import deliver
from tests.engine.test_outgoing import HEAD, answering, certificate, listening
from tests.webhooks.stage import Receiver

PRIVATE = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "unique local": ["fc00::1", "fd12:3456::1"],
    "shared (carrier NAT)": ["100.64.0.1", "100.127.255.255"],
    "link-local": ["169.254.0.1", "169.254.169.254", "fe80::1", "fe80::1%1"],
    "site-local": ["fec0::1"],
    "cloud metadata": [
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
    ],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1", "4000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::ffff:8.8.8.8"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "translated (NAT64)": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "192.88.99.1"],
    "Teredo": ["2001:0:53aa:64c:0:0:f5ff:fffe"],
}
OPEN = ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.128.0.1", "223.5.5.5",
        "2606:4700:4700::1111", "2400:3200::1"]  # fmt: skip


@pytest.mark.parametrize("text", sorted({one for group in PRIVATE.values() for one in group}))
def test_no_machine_of_the_open_internet(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not address_is_open(address)
    assert address_is_allowed(address, loopback=True) == (text in PRIVATE["loopback"])
    assert not address_is_allowed(address, loopback=False)


@pytest.mark.parametrize("text", OPEN)
def test_a_machine_of_the_open_internet(text: str) -> None:
    assert address_is_allowed(ipaddress.ip_address(text), loopback=False)


REFUSED = {
    "scheme": [
        "http://shop.example/", "ftp://shop.example/", "file:///etc/passwd", "//shop.example/", "",
        "shop.example", "javascript:alert(1)", "gopher://shop.example/",
    ],
    "user": ["https://ann@shop.example/", "https://ann:x@shop.example/", "https://@shop.example/"],
    "fragment": ["https://shop.example/#here", "https://shop.example/#"],
    "port": ["https://shop.example:22/", "https://shop.example:80/", "https://shop.example:1023"],
    "private": [
        "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/", "https://169.254.169.254/",
        "https://[::ffff:127.0.0.1]/", "https://[64:ff9b::7f00:1]/",
    ],
    "characters": [
        "https://shop.example/\n", "https://shop.example/a b", "https://商店.example/",
        "https://shop.example\\@127.0.0.1/", "https://shop.example/\x7f", "https://shop.example/\0",
    ],
    "malformed": [
        "https://", "https:///hooks", "https://redis/", "https://localhost/", "https://a..example/",
        "https://2130706433/", "https://0x7f000001/", "https://127.1/", "https://0x7f.1/",
        "https://shop.example:99999/", "https://shop.example:x/", "https://[::1/", "https://-a.b/",
        "https://0177.0.0.01/",
    ],
    "too_long": ["https://shop.example/" + "a" * 500],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "url"), [(code, url) for code, urls in REFUSED.items() for url in urls]
)
def test_an_address_that_is_never_called(code: str, url: str) -> None:
    with pytest.raises(ServiceError) as refusal:
        url_check(url, loopback=False)
    assert (refusal.value.field, refusal.value.code) == ("url", code)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example", "https://shop.example/hooks?a=1&b=%20", "https://8.8.8.8/",
        "https://shop.example:443/", "https://shop.example:8443/", "https://xn--3bs854c.example/",
        "https://[2606:4700:4700::1111]/x", "https://a_b.shop.example/",
    ],
)  # fmt: skip
def test_an_address_that_may_be_called(url: str) -> None:
    url_check(url, loopback=False)


def test_for_development_this_machine_alone_may_be_called_without_tls() -> None:
    for url in ("http://127.0.0.1:8000/", "http://localhost:8000/", "http://[::1]:8000/"):
        url_check(url, loopback=True)
    for url in ("http://shop.example/", "http://10.0.0.1/", "https://10.0.0.1/"):
        with pytest.raises(ServiceError):
            url_check(url, loopback=True)


# --- names ----------------------------------------------------------------------------------------


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> list[str]:
    """A resolver that answers so, one time after the other; returns what it was asked."""
    asked: list[str] = []
    waiting = list(answers)

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return waiting.pop(0)

    monkeypatch.setattr(calling, "resolve", resolve)
    return asked


@pytest.mark.parametrize("text", sorted({one for group in PRIVATE.values() for one in group}))
def test_a_name_that_leads_to_a_neighbour_is_not_called(
    monkeypatch: pytest.MonkeyPatch, settings: Any, text: str
) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = False
    called: list[Any] = []
    monkeypatch.setattr(calling, "call", lambda *a, **k: called.append(a))
    for addresses in ([text], ["8.8.8.8", text], [text, "8.8.8.8"]):
        resolving(monkeypatch, addresses)
        outcome = deliver("https://shop.example/", {}, b"{}")
        assert outcome.status is None
        assert outcome.error.startswith("refused: shop.example leads to ")
    assert called == []


def test_a_name_without_tls_must_lead_here(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["8.8.8.8"])
    assert deliver("http://localhost:8000/", {}, b"{}").error == "refused: scheme"


def test_a_name_that_changes_its_mind_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """DNS rebinding: the address that was judged is the one that is called.

    The name leads here when it is judged, and nowhere when anybody asks again; the system's own
    resolver doesn't know it at all.
    """
    asked = resolving(monkeypatch, ["127.0.0.1"], ["192.0.2.1"])
    monkeypatch.setattr(calling, "url_check", lambda url, loopback: None)

    outcome = deliver(f"http://rebound.invalid:{receiver.port}/hooks", {"a": "b"}, b"{}")

    assert (outcome.status, outcome.error) == (200, "")
    assert asked == ["rebound.invalid"]
    [call] = receiver.calls
    assert call.headers["host"] == f"rebound.invalid:{receiver.port}"


def test_a_name_that_is_judged_private_is_not_saved_by_a_second_answer(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.WEBHOOK_ALLOW_LOOPBACK = False
    asked = resolving(monkeypatch, ["10.0.0.1"], ["8.8.8.8"])
    assert deliver("https://rebound.example/", {}, b"{}").error.startswith("refused")
    assert asked == ["rebound.example"]


def test_no_proxy_of_the_environment_is_asked(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert deliver(receiver.url, {}, b"{}").status == 200


def test_a_redirect_is_an_answer_and_nobody_follows_it(receiver: Receiver) -> None:
    receiver.answer = lambda call: 307
    assert deliver(receiver.url, {}, b"{}").status == 307
    assert len(receiver.calls) == 1


def test_a_resolver_that_hangs_or_fails_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(calling, "RESOLVE_S", 0.05)
    monkeypatch.setattr(calling, "resolve", lambda host, port: go.wait(10))
    assert deliver("https://slow.example/", {}, b"{}").error == "resolve: timeout"
    go.set()

    def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    monkeypatch.setattr(calling, "resolve", unknown)
    assert deliver("https://unknown.example/", {}, b"{}").error == "resolve: no such name"
    monkeypatch.setattr(calling, "resolve", lambda host, port: [])
    assert deliver("https://empty.example/", {}, b"{}").error == "no address"


def test_where_nobody_listens_the_next_address_is_tried(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
    assert deliver(f"http://localhost:{receiver.port}/", {}, b"{}").status == 200


def test_the_certificate_must_be_the_names_whatever_address_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = certificate(tmp_path, "shop.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    monkeypatch.setattr(calling, "resolve", lambda host, port: ["127.0.0.1"])
    with listening(answering(HEAD + b"Content-Length: 0\r\n\r\n"), server) as port:
        unknown = deliver(f"https://shop.example:{port}/", {}, b"{}")
        trusting = ssl.create_default_context(cafile=str(pem))
        monkeypatch.setattr(outgoing, "_tls", lambda: trusting)
        good = deliver(f"https://shop.example:{port}/", {}, b"{}")
        other = deliver(f"https://other.example:{port}/", {}, b"{}")
    assert (unknown.status, good.status, other.status) == (None, 200, None)
    assert unknown.error.startswith("tls") and other.error.startswith("tls")
