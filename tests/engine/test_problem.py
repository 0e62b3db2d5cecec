"""Every answer that is no success is a problem with a closed code, and none shows a trace."""

from __future__ import annotations

from typing import Any

import pytest
import redis.exceptions
from django.db import OperationalError
from django.http import Http404
from django.test import Client
from rest_framework.exceptions import ValidationError

from engine.lib.errors import ServiceError, TransitionRefused
from engine.lib.problem import CODES, Code, FieldError, ProblemError, from_status
from tests.engine import views

pytestmark = pytest.mark.urls("tests.engine.views")


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:laisee:problem:{code}"
    assert body["title"] == CODES[Code(code)].title
    assert body["detail"]
    assert body["instance"] == response["X-Request-ID"]
    assert b"Traceback" not in response.content
    return body


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProblemError(409, "conflict", "taken"), 409, "conflict"),
        (ServiceError("count", "range", "count must be 1 or more"), 422, "invalid"),
        (TransitionRefused("packet", "closed", ("open",)), 409, "conflict"),
        (Http404("secret"), 404, "not_found"),
        (OperationalError("server closed the connection"), 503, "unavailable"),
        (redis.exceptions.ConnectionError("refused"), 503, "unavailable"),
        (redis.exceptions.TimeoutError("slow"), 503, "unavailable"),
        (redis.exceptions.ReadOnlyError("replica"), 503, "unavailable"),
        (RuntimeError("the secret is 42"), 500, "internal"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_problems(
    client: Client, settings: Any, error: Exception, status: int, code: str, debug: bool
) -> None:
    settings.DEBUG = debug
    views.Raises.error = error
    body = problem(client.get("/api/v1/raises"), status, code)
    assert "42" not in body["detail"]


def test_an_outage_says_when_to_come_back(client: Client) -> None:
    views.Raises.error = OperationalError("gone")
    response = client.get("/api/v1/raises")
    assert response["Retry-After"] == "1"
    assert "gone" not in response.json()["detail"]


def test_validation_errors_carry_pointers(client: Client) -> None:
    views.Raises.error = ValidationError({"lines": [{}, {"a/b": ["must be whole"]}]})
    body = problem(client.get("/api/v1/raises"), 422, "invalid")
    assert body["errors"] == [
        {"pointer": "/lines/1/a~1b", "code": "invalid", "detail": "must be whole"}
    ]


def test_service_errors_name_their_field(client: Client) -> None:
    views.Raises.error = ServiceError("count", "range", "count must be 1 or more")
    assert client.get("/api/v1/raises").json()["errors"] == [
        {"pointer": "/count", "code": "range", "detail": "count must be 1 or more"}
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_answers_that_no_view_gave(client: Client, settings: Any, debug: bool) -> None:
    settings.DEBUG = debug
    settings.ALLOWED_HOSTS = ["testserver"]
    problem(client.get("/api/v1/nowhere"), 404, "not_found")
    problem(client.get("/nowhere"), 404, "not_found")
    problem(client.get("/api/v1/plain-raises"), 500, "internal")
    problem(client.get("/api/v1/orders", headers={"Host": "evil.example"}), 400, "bad_request")
    response = client.post("/healthz")
    problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


def test_wrong_method_type_and_accept(client: Client) -> None:
    response = client.delete("/api/v1/orders")
    problem(response, 405, "method_not_allowed")
    assert "POST" in response["Allow"]
    problem(
        client.post("/api/v1/orders", "a=1", content_type="application/x-www-form-urlencoded"),
        415,
        "unsupported_media_type",
    )
    problem(
        client.post("/api/v1/orders", "{}", "application/json", headers={"Accept": "text/html"}),
        406,
        "not_acceptable",
    )


def test_a_code_belongs_to_one_status() -> None:
    assert set(CODES) == set(Code)
    with pytest.raises(ValueError, match="is a 409"):
        ProblemError(400, "conflict", "x")
    with pytest.raises(ValueError, match="no_such"):
        ProblemError(400, "no_such", "x")


@pytest.mark.parametrize("status", [400, 402, 418, 431, 451, 500, 502, 599])
def test_any_status_has_a_problem(status: int) -> None:
    made = from_status(status)
    assert (made.status >= 500) == (status >= 500)
    assert made.errors == ()


def test_field_errors_are_plain_values() -> None:
    assert FieldError("/a", "required", "x") == FieldError("/a", "required", "x")
