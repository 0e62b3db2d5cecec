"""The faults of a drill as they are written, and the proxy that makes a network bad."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from engine.run import config
from loadtest import faults
from loadtest.proxy import Proxy, Weather

PATIENCE_S = 10.0


def test_faults_are_read_in_the_order_of_their_times_and_written_as_they_were() -> None:
    text = "kill_postgres@12.5, slow_network@3+2.5:on=redis:delay=80ms:cut=1%,payout_outage@4"
    read = faults.parse(text)
    assert [str(one) for one in read] == [
        "slow_network@3+2.5:on=redis:delay=80ms:cut=1%",
        "payout_outage@4+10",
        "kill_postgres@12.5",
    ]
    assert faults.parse(",".join(map(str, read))) == read
    assert [one.network for one in read] == ["redis", None, None]
    assert read[0].ends_s == 5.5 and read[0].option("jitter") == "0ms"
    assert faults.parse("") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kill_redis", "name@second"),
        ("kill_mysql@3", "with one of kill_edge"),
        ("kill_redis@3+5", "over in a moment"),
        ("kill_redis@3:delay=5ms", "no option delay; there is none"),
        ("slow_disk@3:size=5ms", "no option size; there is delay"),
        ("slow_disk@3:delay=5", "no time such as 50ms"),
        ("slow_disk@3:delay=200ms", "more than 100ms"),
        ("slow_network@3:cut=2", "no share such as 1%"),
        ("slow_network@3:cut=101%", "no share such as 1%"),
        ("slow_network@3:on=moon", "none of door, postgres, redis"),
    ],
)
def test_what_is_no_fault_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        faults.parse(text)


def test_an_address_leads_through_a_proxy_where_one_is_named() -> None:
    url = "redis://:secret@127.0.0.1:6379/0"
    assert config.via(url, 0) == url
    assert config.via(url, 7000) == "redis://:secret@127.0.0.1:7000/0"


@contextmanager
def echo() -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """A server that says everything back, and what it has heard."""
    listener, heard = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def serve(link: socket.socket) -> None:
        with link, suppress(OSError):  # the proxy may cut it at any time
            while chunk := link.recv(1_000):
                heard.append(chunk)
                link.sendall(chunk)

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname(), heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def exchange(link: socket.socket, text: bytes) -> float:
    """Seconds until it came back whole and in its order."""
    begun, got = time.monotonic(), b""
    link.sendall(text)
    while len(got) < len(text):
        chunk = link.recv(65_536)
        assert chunk, "the connection was cut"
        got += chunk
    assert got == text
    return time.monotonic() - begun


def test_the_proxy_delays_round_trips_while_it_is_told_to() -> None:
    with (
        echo() as (far, _), Proxy(lambda: far) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as link,
    ):  # fmt: skip
        exchange(link, b"hello")
        proxy.weather = Weather(delay_s=0.1, jitter_s=0.02)
        assert exchange(link, b"slow") >= 0.1
        proxy.weather = replace(proxy.weather, delay_s=0.02)
        exchange(link, bytes(range(256)) * 1_000)  # in many pieces, each with a jitter of its own
        proxy.weather = Weather()
        assert min(exchange(link, b"quick") for _ in range(20)) < 0.1


def test_the_proxy_cuts_connections_before_and_after_the_far_end_heard() -> None:
    with echo() as (far, heard), Proxy(lambda: far) as proxy:
        proxy.weather = Weather(cut_share=1.0)
        for number in range(20):
            with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as link:
                link.sendall(b"%d " % number)
                with suppress(ConnectionResetError):
                    assert link.recv(10) == b""
        deadline = time.monotonic() + PATIENCE_S
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 0 < len(heard) < 20


def test_the_proxy_tells_callers_when_nobody_is_behind_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()
    with (
        Proxy(lambda: nobody) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as link,
        suppress(ConnectionResetError),
    ):
        assert link.recv(1) == b""
