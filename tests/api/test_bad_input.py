"""Nonsense gets a clear 4xx problem and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.models import ClientApp
from packets.models import Packet
from tests.api.doors import JSON, Visitor
from tests.api.test_callers import rows
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]


@pytest.fixture
def packet(app: ClientApp) -> Packet:
    return stage.first_packet(stage.live(app))


BODIES: list[tuple[Any, int, str, str]] = [
    (b"{", 400, "malformed", ""),
    (b"", 200, "", ""),
    (b"null", 422, "invalid", ""),
    (b"[]", 422, "invalid", ""),
    (b'"x"', 422, "invalid", ""),
    (b"7", 422, "invalid", ""),
    (b"{}{}", 400, "malformed", ""),
    (b"{'ticket': 1}", 400, "malformed", ""),
    (b'{"ticket": NaN}', 400, "malformed", ""),
    (b'\xff\xfe{"a": 1}', 400, "malformed", ""),
    (b'{"password": "\xff"}', 400, "malformed", ""),
    (b'{"password": "\xed\xa0\x80"}', 400, "malformed", ""),
    (b'{"password": "\\ud800"}', 422, "invalid", "/password"),
    (b'{"password": "a\\u0000b"}', 422, "invalid", "/password"),
    (b'{"password": "a", "password": "b"}', 422, "invalid", "/password"),
    ({"unknown": 1}, 422, "invalid", "/unknown"),
    ({"amount_fen": 10_000}, 422, "invalid", "/amount_fen"),
    ({"password": 1}, 422, "invalid", "/password"),
    ({"password": 1.5}, 422, "invalid", "/password"),
    ({"password": -1}, 422, "invalid", "/password"),
    ({"password": None}, 422, "invalid", "/password"),
    ({"password": 2**53}, 422, "invalid", "/password"),
    ({"password": 10**400}, 422, "invalid", "/password"),
    (b'{"password": 1e999}', 422, "invalid", "/password"),
    ({"password": ["a"]}, 422, "invalid", "/password"),
    ({"password": {"a": 1}}, 422, "invalid", "/password"),
    ({"password": "p" * 65}, 422, "invalid", "/password"),
    ({"ticket": "t" * 1025}, 422, "invalid", "/ticket"),
    ({"share_code": "s" * 65}, 422, "invalid", "/share_code"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, 413, "too_large", ""),
    (b'{"a":' * 1000 + b"1" + b"}" * 1000, 422, "invalid", ""),
    (json.dumps({"password": "x" * 20_000}).encode(), 413, "too_large", ""),
    (json.dumps({"password": "x" * 1_000_000}).encode(), 413, "too_large", ""),
    (b" " * 2_000_000 + b"{}", 413, "too_large", ""),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"), BODIES, ids=[str(i) for i in range(len(BODIES))]
)
def test_a_body_that_makes_no_sense(
    visit: Visit, packet: Packet, body: Any, status: int, code: str, pointer: str
) -> None:
    before = rows()

    answer = visit("alice").post(f"/packets/{packet.public_id}/claims", body)

    assert answer.status == status
    if status != 200:
        assert answer.code == code
        assert not pointer or answer.pointers[0][0] == pointer
        assert b"Traceback" not in answer.body
        assert rows() == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense", ""]
)
def test_another_media_type(visit: Visit, packet: Packet, kind: str) -> None:
    answer = visit("alice").post(
        f"/packets/{packet.public_id}/claims", b'{"a": 1}', **{"Content-Type": kind}
    )
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/me/wallet"),
        ("PUT", "/packets/{packet}"),
        ("PATCH", "/campaigns"),
        ("GET", "/packets/{packet}/claims"),
        ("POST", "/me/claims"),
        ("TRACE", "/campaigns"),
        ("MADEUP", "/campaigns"),
    ],
)
def test_a_method_that_a_route_does_not_have(
    visit: Visit, packet: Packet, method: str, path: str
) -> None:
    answer = visit("alice").send(method, path.format(packet=packet.public_id), headers=JSON)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/nothing", "/", "/campaigns/a/b", "/me"])
def test_a_route_that_is_not_there(visit: Visit, path: str) -> None:
    answer = visit("alice").get(path)
    assert (answer.status, answer.code) == (404, "not_found")


def test_a_slash_at_the_end_is_the_same_address(visit: Visit, packet: Packet) -> None:
    for path in ("/campaigns", "/me/wallet", f"/packets/{packet.public_id}"):
        assert visit("alice").get(path + "/").status == visit("alice").get(path).status == 200
    claimed = visit("alice").post(f"/packets/{packet.public_id}/claims/")
    assert claimed.json["result"] == "won"


def test_answers_are_json_only(visit: Visit) -> None:
    assert visit("alice").get("/campaigns", Accept="text/html").code == "not_acceptable"
    assert visit("alice").get("/campaigns", Accept="*/*").status == 200


@pytest.mark.parametrize("claimed", ["a-1", "x" * 64, "with space", "é", "x" * 65, ""])
def test_the_request_id_is_echoed_where_it_is_sane(visit: Visit, claimed: str) -> None:
    answer = visit("alice").get("/campaigns", **{"X-Request-ID": claimed})
    sane = claimed in ("a-1", "x" * 64)
    assert (answer.headers["X-Request-ID"] == claimed) is sane
    assert answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "packet_id", ["%00", "%ff%fe", "..%2f..%2fetc", "'%20OR%201=1--", "x" * 2000, "%F0%9F%A7%A7"]
)
def test_ids_that_cannot_be(visit: Visit, packet_id: str) -> None:
    for path in (f"/packets/{packet_id}", f"/campaigns/{packet_id}"):
        answer = visit("alice").get(path)
        assert (answer.status, answer.code) in ((404, "not_found"), (400, "bad_request"))
