"""What surrounds a request: its id, the client's address, and middlewares that cost little."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.handlers.base import BaseHandler
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test import Client, RequestFactory

from engine.lib.middleware import (
    RequestContextMiddleware,
    client_ip,
    client_ip_from,
    network_of,
    request_id_from,
)
from engine.lib.renderers import MAX_EVENTS_BODY_BYTES
from engine.lib.wsgi import with_chunked_bodies
from tests.engine.test_problem import problem

pytestmark = pytest.mark.urls("tests.engine.views")


@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 64])
def test_a_sane_request_id_is_echoed(client: Client, sent: str) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": sent})["X-Request-ID"] == sent
    assert request_id_from(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 65, "a b", "a\nb", "é", "a\n", '"a"', "{a}"])
def test_any_other_is_replaced(sent: str | None) -> None:
    made = request_id_from(sent)
    assert made != sent
    assert len(made) == 32
    assert request_id_from(sent) != made


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "expected"),
    [
        ("192.0.2.1", "", 0, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", 0, "192.0.2.1"),  # anybody may send the header
        ("10.0.0.1", "198.51.100.9", 1, "198.51.100.9"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.9", 1, "198.51.100.9"),  # a forged first entry
        ("10.0.0.1", "6.6.6.6, 198.51.100.9, 10.0.0.2", 2, "198.51.100.9"),
        ("10.0.0.1", "198.51.100.9", 2, "10.0.0.1"),  # came in past one of the proxies
        ("10.0.0.1", "", 1, "10.0.0.1"),
        ("10.0.0.1", "[2001:db8::1]", 1, "2001:db8::1"),
        ("10.0.0.1", "nonsense", 1, ""),
        ("", "", 0, ""),
    ],
)
def test_the_clients_address(peer: str, forwarded: str, proxies: int, expected: str) -> None:
    assert client_ip_from(peer, forwarded, proxies) == expected


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("", ""),
    ],
)
def test_only_the_network_is_ever_written_down(address: str, network: str) -> None:
    assert network_of(address) == network


def test_the_address_follows_the_setting(settings: Any) -> None:
    request: Any = RequestFactory().get(
        "/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.5"
    )
    assert client_ip(request) == "10.0.0.1"
    settings.TRUSTED_PROXIES = 1
    assert client_ip(request) == "192.0.2.5"


def test_a_slash_at_the_end_changes_nothing(client: Client) -> None:
    with_slash = client.post("/api/v1/orders/", b'{"amount_fen": 5}', "application/json")
    assert (with_slash.status_code, with_slash.json()) == (200, {"amount_fen": 5})
    assert client.get("/healthz/").status_code == 200
    problem(client.get("/healthz//"), 404, "not_found")


def test_a_whole_answer_says_how_long_it_is(client: Client) -> None:
    won = client.post("/api/v1/orders", b'{"amount_fen": 5}', "application/json")
    refused = client.post("/api/v1/orders", b'{"amount_fen": 0}', "application/json")
    nowhere = client.get("/nowhere")
    assert (won.status_code, refused.status_code, nowhere.status_code) == (200, 422, 404)
    for response in (won, refused, nowhere):
        assert int(response["Content-Length"]) == len(response.content) > 0


@pytest.mark.parametrize(
    ("response", "length"),
    [
        (HttpResponse("红包"), "6"),  # bytes, not characters
        (HttpResponse(b"", headers={"Content-Length": "88"}), "88"),  # of a HEAD, say
        (HttpResponse(status=204), None),
        (HttpResponse(status=304), None),
        (StreamingHttpResponse([b"a", b"b"]), None),  # nobody knows before its end
    ],
)
def test_only_a_body_that_is_there_is_measured(
    response: HttpResponseBase, length: str | None
) -> None:
    answered = RequestContextMiddleware(lambda request: response)(RequestFactory().get("/healthz"))
    assert answered.get("Content-Length") == length


def test_hosts_that_are_not_ours(client: Client, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["laisee.example"]
    assert client.get("/healthz").status_code == 200  # probes come by address
    problem(client.get("/api/v1/apps"), 400, "bad_request")


def test_cors_allows_the_listed_origins_only(client: Client, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]

    def preflight(origin: str) -> Any:
        return client.options(
            "/api/v1/orders",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,idempotency-key,content-type",
            },
        )

    allowed = preflight("https://app.example")
    assert allowed["Access-Control-Allow-Origin"] == "https://app.example"
    assert "idempotency-key" in allowed["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in allowed
    assert "Access-Control-Allow-Origin" not in preflight("https://evil.example")


def test_the_api_sets_no_cookies_and_wants_no_csrf_token(settings: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    response = client.post("/api/v1/orders", b'{"amount_fen": 5}', "application/json")
    assert response.status_code == 200
    assert not response.cookies
    assert "Cookie" not in response.get("Vary", "")


@pytest.mark.urls("engine.urls")
@pytest.mark.django_db
def test_the_admin_keeps_its_protection() -> None:
    client = Client(enforce_csrf_checks=True)
    page = client.get("/admin/login/")
    assert page.status_code == 200
    assert page["X-Frame-Options"] == "DENY"
    assert "csrftoken" in page.cookies
    refused = client.post("/admin/login/", {"username": "ann", "password": "x"})
    assert refused.status_code == 403
    assert refused["Content-Type"].startswith("text/html")
    assert client.get("/admin/").status_code == 302
    root = client.get("/")
    assert (root.status_code, root["Location"]) == (302, "/admin/")


OF_DJANGO = {
    "AdminSession": "django.contrib.sessions.middleware.SessionMiddleware",
    "AdminLocale": "django.middleware.locale.LocaleMiddleware",
    "AdminCsrf": "django.middleware.csrf.CsrfViewMiddleware",
    "AdminUser": "django.contrib.auth.middleware.AuthenticationMiddleware",
    "AdminMessages": "django.contrib.messages.middleware.MessageMiddleware",
    "AdminFrames": "django.middleware.clickjacking.XFrameOptionsMiddleware",
}


def test_the_admins_middlewares_cost_the_api_little(settings: Any) -> None:
    """Narrowed to /admin they are a function call each; as Django's own they cost far more."""
    names = list(django_settings.MIDDLEWARE)
    everywhere = [OF_DJANGO.get(name.rsplit(".", 1)[1], name) for name in names]
    without = [name for name in everywhere if name not in OF_DJANGO.values()]
    assert len(without) == len(names) - len(OF_DJANGO)
    best = _best_us_per_request(settings, without=without, narrowed=names, everywhere=everywhere)
    assert best["narrowed"] - best["without"] < (best["everywhere"] - best["without"]) / 2, best


def _best_us_per_request(settings: Any, **stacks: list[str]) -> dict[str, float]:
    """The best of many short loops over a request that does nothing, the stacks in turn."""
    handlers = {}
    for name, middleware in stacks.items():
        settings.MIDDLEWARE = middleware
        handlers[name] = BaseHandler()
        handlers[name].load_middleware()
    factory = RequestFactory()
    best = dict.fromkeys(stacks, float("inf"))
    for _ in range(25):
        for name, handler in handlers.items():
            requests = [factory.get("/healthz") for _ in range(40)]
            started = time.perf_counter()
            for request in requests:
                handler.get_response(request)
            spent_us = (time.perf_counter() - started) / len(requests) * 1e6
            best[name] = min(best[name], spent_us)
    return best


# --- bodies without a length ----------------------------------------------------------------------


def _seen(environ: dict[str, Any]) -> bytes:
    """The body as an application behind the wrapper reads it, by its Content-Length."""
    seen: list[bytes] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        return []

    list(with_chunked_bodies(application)({"SERVER_PROTOCOL": "HTTP/1.1", **environ}, None))
    return seen[0]


def test_a_body_in_chunks_is_not_lost() -> None:
    body = b'{"password":"x"}'
    for how in ({"HTTP_TRANSFER_ENCODING": "chunked"}, {"SERVER_PROTOCOL": "HTTP/2"}):
        assert _seen({"wsgi.input": io.BytesIO(body), **how}) == body
    # The control: without the wrapper's reading there is no length, and so no body.
    assert _seen({"wsgi.input": io.BytesIO(body)}) == b""


def test_a_length_is_believed_and_a_flood_is_cut() -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked"}
    sent = {"wsgi.input": io.BytesIO(b"abcdef"), "CONTENT_LENGTH": "3"}
    assert _seen({**chunked, **sent}) == b"abc"
    flood = io.BytesIO(b"x" * 5_000_000)
    assert len(_seen({**chunked, "wsgi.input": flood})) == MAX_EVENTS_BODY_BYTES + 1
