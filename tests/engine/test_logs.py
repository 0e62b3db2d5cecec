"""Logs: one JSON object a line, with the request's id, without secrets."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from django.test import Client

from engine.lib.logs import REDACTED, configure, get_logger, redact


@pytest.fixture
def lines(settings: Any) -> Any:
    """The lines that the configured root handler writes."""
    settings.LOG_LEVEL = "INFO"
    settings.LOG_FORMAT = "json"
    configure()
    (handler,) = [one for one in logging.getLogger().handlers if one.get_name() == "stream"]
    assert isinstance(handler, logging.StreamHandler)
    stream = io.StringIO()
    handler.setStream(stream)

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    settings.LOG_LEVEL = "WARNING"
    configure()


def test_both_kinds_of_loggers_write_one_object_a_line(lines: Any) -> None:
    get_logger("a").info("claimed", amount_fen=2**53, who=b"x")
    logging.getLogger("b").warning("took %d ms", 5, extra={"lane": 3})
    first, second = lines()
    assert (first["event"], first["amount_fen"], first["logger"]) == ("claimed", 2**53, "a")
    assert (second["event"], second["lane"], second["level"]) == ("took 5 ms", 3, "warning")
    assert first["timestamp"].endswith("Z")


@pytest.mark.urls("tests.engine.views")
def test_a_refused_request_is_one_line_with_its_id(lines: Any) -> None:
    client = Client()
    assert client.get("/healthz").status_code == 200
    client.get(
        "/api/v1/who?token=abc", headers={"X-Request-ID": "r-1", "Authorization": "Bearer abc"}
    )
    (line,) = [entry for entry in lines() if entry["logger"] == "laisee.request"]
    assert line["request_id"] == "r-1"
    assert (line["status"], line["code"], line["path"]) == (401, "invalid_token", "/api/v1/who")
    assert line["network"] == "127.0.0.0/24"
    assert "abc" not in json.dumps(lines())


@pytest.mark.urls("tests.engine.views")
def test_what_one_request_bound_the_next_does_not_carry(lines: Any) -> None:
    import structlog

    structlog.contextvars.bind_contextvars(lane="left behind")
    Client().get("/api/v1/nowhere")
    assert "left behind" not in json.dumps(lines())


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "client_secret",
        "token",
        "Authorization",
        "api_key",
        "apikey",
        "cookie",
        "seed",
        "ticket",
    ],
)
def test_secret_names_are_redacted_at_every_depth(name: str) -> None:
    event = {"event": "x", name: "hidden", "deep": [{"er": {name: "hidden"}}], "safe": "shown"}
    made = redact(None, "info", event)
    assert made[name] == REDACTED
    assert made["deep"] == [{"er": {name: REDACTED}}]
    assert made["safe"] == "shown"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("bad eyJhbGciOi.eyJzdWIi.c2lnbg- here", f"bad {REDACTED} here"),
        ("key laisee_0123456789ab_" + "f" * 64, f"key {REDACTED}"),
        ("postgres://laisee_app:hunter2@127.0.0.1/x", f"postgres://{REDACTED}@127.0.0.1/x"),
        ("redis://:hunter2@127.0.0.1/0", f"redis://{REDACTED}@127.0.0.1/0"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_inside_texts_are_redacted(text: str, left: str) -> None:
    assert redact(None, "info", {"event": text})["event"] == left


def test_a_failure_is_logged_with_its_trace_in_one_line(lines: Any) -> None:
    try:
        raise ValueError("postgres://a:hunter2@h/x")
    except ValueError:
        get_logger("a").error("failed", exc_info=True)
    (line,) = lines()
    assert "ValueError" in line["exception"]
    assert "hunter2" not in json.dumps(line)


@pytest.mark.urls("tests.engine.views")
def test_a_failing_page_of_the_admin_is_logged_once(lines: Any) -> None:
    client = Client(raise_request_exception=False)
    page = client.get("/admin/raises")
    assert (page.status_code, page["Content-Type"]) == (500, "text/html; charset=utf-8")
    assert b"RuntimeError" not in page.content
    (line,) = [entry for entry in lines() if "exception" in entry]
    assert "RuntimeError" in line["exception"]


def test_a_cycle_does_not_hang() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    assert "…" in str(redact(None, "info", {"event": "x", "data": loop}))
