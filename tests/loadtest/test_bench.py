"""The bench's pure parts: answers cut out of bytes, spreads, verdicts, the table."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from loadtest.bench import client
from loadtest.bench.table import Result, Row, Spread, cells, document, number, result_of

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx-y: z\r\n\r\n{}"


def test_an_answer_is_whole_only_with_its_last_byte() -> None:
    assert [client.body_of(ANSWER[:n]) for n in range(len(ANSWER))] == [None] * len(ANSWER)
    assert client.body_of(ANSWER) == b"{}"


@pytest.mark.parametrize("data", [ANSWER + b"x", b"HTTP/1.1 204 No Content\r\n\r\n"])
def test_what_cannot_be_an_answer_to_one_request_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        client.body_of(data)


def test_the_spread_is_of_the_rounds_ratios_not_of_their_medians() -> None:
    row = Row("wins", "no-op", 0.25, True, [10.0, 30.0, 20.0], [100.0, 100.0, 50.0])
    assert row.ratio == Spread(low=0.1, median=0.3, high=0.4, rounds=3)
    assert row.reached
    assert cells(row)[2:4] == ("≥ 0.25", "0.30 (0.10–0.40)")


def test_a_ceiling_is_reached_from_below() -> None:
    base = [1.0, 1.0]
    assert Row("p99", "no-op", 12, False, [12.0, 12.0], base).reached
    assert not Row("p99", "no-op", 12, False, [12.5, 12.5], base).reached


def test_rounds_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = Row("wins", "no-op", 0.25, True, [1.0, 2.0], [1.0]).ratio
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


def test_figures_for_people() -> None:
    assert [number(v) for v in (0.254, 9.99, 12.34, 432.1, 12_345.6)] == [
        "0.25",
        "9.99",
        "12.3",
        "432",
        "12,346",
    ]


def test_a_result_survives_its_json_and_says_what_is_missing() -> None:
    result = Result({"cores": "2"}, missing=[("referrals", "later")])
    result.rows.append(Row("wins", "no-op", 0.5, True, [1.0], [4.0], note="bound by the disk"))
    result.cpu_us["wins"] = {"door": [80.0], "client": [6.0]}
    result.latency_ms["wins"] = {"p50": [1.0], "p99": [9.0]}
    text = document(result_of(json.loads(json.dumps(result.as_json()))))
    assert text == document(result)
    assert "| wins | no-op | ≥ 0.5 | 0.25 (0.25–0.25) | 1.00/s | 4.00/s | short |" in text
    assert "| referrals | | | | | | later |" in text
    assert "- wins: bound by the disk" in text


def test_the_crowd_sends_each_request_once_and_keeps_each_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=_serve, args=(listener, 2), daemon=True).start()
        requests = [b"POST /%d HTTP/1.1\r\ncontent-length: 0\r\n\r\n" % n for n in range(7)]
        heard = client.send(client.Order("127.0.0.1", port, requests, 2, 30.0, repeat=False))
    assert heard.status == [200] * 7
    assert sorted(heard.request) == list(range(7))
    for which, body in zip(heard.request, heard.body, strict=True):
        assert body == b"/%d" % which
    assert (heard.unanswered, len(heard.latency_s)) == (0, 7)


def _serve(listener: socket.socket, clients: int) -> None:
    """Answers each request with its own path, in two pieces."""

    def one(link: socket.socket) -> None:
        with link:
            while data := link.recv(1024):
                path = data.split()[1]
                link.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(path))
                link.sendall(path)

    for _ in range(clients):
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
