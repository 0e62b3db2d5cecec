"""Probes: alive means alive, ready means all that a request needs is there."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client

from engine.lib import health
from engine.lib.redis import stock
from tests.engine.test_problem import problem

pytestmark = pytest.mark.urls("tests.engine.views")


def test_alive_without_any_io(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the django_db mark any query would fail the test; Redis is forbidden here.
    monkeypatch.setattr(health, "stock", lambda: pytest.fail("asked Redis"))
    response = client.get("/healthz")
    assert (response.status_code, response.content) == (200, b'{"status":"ok"}')
    assert client.head("/healthz").status_code == 200


@pytest.mark.django_db
def test_ready(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ready",
        "postgres": "ok",
        "redis": "ok",
        "migrations": "ok",
    }


@pytest.mark.django_db
def test_redis_down(client: Client, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    stock.cache_clear()
    try:
        response = client.get("/readyz")
    finally:
        stock.cache_clear()
    # Claims go on without it: whoever asks may know, and must not stop asking.
    assert response.status_code == 200
    assert response.json()["redis"] == "not answering"


@pytest.mark.django_db(transaction=True)
def test_postgres_down(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "PORT", "1")
    try:
        response = client.get("/readyz")
    finally:
        monkeypatch.undo()
        connection.close()
    body = problem(response, 503, "unavailable")
    assert response["Retry-After"] == "1"
    assert body["detail"] == "Not ready. postgres: not answering"
    assert client.get("/readyz").status_code == 200


@pytest.mark.django_db
def test_migrations_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        health,
        "_migrations_on_disk",
        lambda: frozenset({("engine", "0001_initial"), ("engine", "9999_x")}),
    )
    body = problem(client.get("/readyz"), 503, "unavailable")
    assert "1 migrations not applied, first engine.9999_x" in body["detail"]
