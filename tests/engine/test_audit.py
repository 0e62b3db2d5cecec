"""The audit log: a chain that nobody can rewrite unseen."""

from __future__ import annotations

import datetime as dt
import json
import threading
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import InternalError, ProgrammingError, connection, transaction
from django.test import RequestFactory

from engine.lib.audit import AuditReport, audit_record, audit_verify
from engine.lib.sql import load
from engine.models import AuditEvent, AuditHead
from tests.guards import without_guard

pytestmark = pytest.mark.django_db(transaction=True)


def record(number: int, **changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "actor": "staff:ann",
        "action": "thing.change",
        "object_type": "thing",
        "object_id": number,
        "before": {"fen": number, "name": "旧"},
        "after": {"fen": number + 1, "b": [1, None, True], "aa": {"x": 'é\n"'}},
        "reason": "because\tof: 5:x,",
    }
    return audit_record(**fields | changes)


def corrupt(dsn: str, statement: str) -> None:
    """As a superuser who switched the triggers off."""
    with psycopg.connect(dsn) as link:
        link.execute("SET session_replication_role = replica")
        assert link.execute(statement).rowcount >= 1


def test_an_empty_log_is_whole() -> None:
    assert audit_verify() == AuditReport(0, None)


def test_events_follow_each_other() -> None:
    for number in range(5):
        record(number)
    record(5, before=None, after=None, reason="")
    events = list(AuditEvent.objects.order_by("id"))
    assert [event.id for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[0].prev_hash == "0" * 64
    assert [event.prev_hash for event in events[1:]] == [event.hash for event in events[:-1]]
    assert len({event.hash for event in events}) == 6
    assert audit_verify() == AuditReport(6, None)


def test_what_is_undone_leaves_no_event_and_no_gap() -> None:
    record(1)
    with pytest.raises(RuntimeError), transaction.atomic():
        record(2)
        raise RuntimeError
    record(3)
    assert list(AuditEvent.objects.order_by("id").values_list("id", "object_id")) == [
        (1, "1"),
        (2, "3"),
    ]
    assert audit_verify() == AuditReport(2, None)


def test_the_writer_chooses_neither_id_nor_time_nor_hash() -> None:
    event = AuditEvent.objects.create(
        id=77,
        at=dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
        actor="eve",
        action="x",
        object_type="x",
        object_id="x",
        prev_hash="a" * 64,
        hash="b" * 64,
    )
    stored = AuditEvent.objects.get()
    assert event.pk == stored.id == 1
    assert stored.at.year > 2020
    assert (stored.prev_hash, stored.hash != "b" * 64) == ("0" * 64, True)
    assert audit_verify() == AuditReport(1, None)


def test_the_request_is_noted() -> None:
    request: Any = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    request.request_id = "r-1"
    record(1, request=request)
    stored = AuditEvent.objects.get()
    assert (stored.request_id, stored.ip) == ("r-1", "192.0.2.0/24")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE engine_auditevent SET reason = 'x'",
        "DELETE FROM engine_auditevent",
        "TRUNCATE engine_auditevent",
    ],
)
def test_events_are_neither_changed_nor_deleted(owner_dsn: str, statement: str) -> None:
    record(1)
    with pytest.raises((ProgrammingError, InternalError)), connection.cursor() as cursor:
        cursor.execute(statement)
    # Not even the owner of the table may, as long as the trigger stands.
    with psycopg.connect(owner_dsn) as link, pytest.raises(psycopg.errors.InsufficientPrivilege):
        link.execute(statement)
    assert audit_verify() == AuditReport(1, None)


@pytest.mark.control
def test_without_the_guard_the_owner_could(owner_dsn: str) -> None:
    record(1)
    with psycopg.connect(owner_dsn) as link:
        link.execute("DROP TRIGGER audit_append_only ON engine_auditevent")
        link.execute(without_guard(load("engine", "audit.sql"), "audit_append_only"))
        assert link.execute("UPDATE engine_auditevent SET reason = 'x'").rowcount == 1
        link.rollback()
    assert audit_verify() == AuditReport(1, None)


def test_the_application_cannot_move_the_end_of_the_chain() -> None:
    record(1)
    for statement in ("UPDATE engine_audithead SET last_id = 0", "DELETE FROM engine_audithead"):
        with pytest.raises(ProgrammingError), connection.cursor() as cursor:
            cursor.execute(statement)
    assert AuditHead.objects.get().last_id == 1


@pytest.mark.parametrize(
    ("statement", "event"),
    [
        ("UPDATE engine_auditevent SET actor = 'staff:bob' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET at = at + interval '1 microsecond' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET after = '{\"fen\": 1}' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET before = NULL WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET reason = reason || ' ' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET request_id = 'x' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET ip = '::1' WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET hash = repeat('a', 64) WHERE id = 3", 3),
        ("UPDATE engine_auditevent SET prev_hash = repeat('a', 64) WHERE id = 3", 3),
        # A field's end moved into the next field: netstrings tell them apart.
        (
            "UPDATE engine_auditevent SET actor = 'staff:an', action = 'nthing.change' WHERE id=3",
            3,
        ),
        ("DELETE FROM engine_auditevent WHERE id = 3", 4),
        ("DELETE FROM engine_auditevent WHERE id = 1", 2),
        ("DELETE FROM engine_auditevent WHERE id = 5", 5),
        ("DELETE FROM engine_auditevent WHERE id >= 4", 4),
        ("DELETE FROM engine_auditevent", 1),
        ("DELETE FROM engine_audithead", 5),
        ("UPDATE engine_audithead SET last_id = 4", 5),
        ("UPDATE engine_audithead SET hash = repeat('a', 64)", 5),
        ("UPDATE engine_auditevent SET id = id + 10 WHERE id = 5", 15),
    ],
)
def test_every_corruption_is_found_and_named(
    superuser_dsn: str, statement: str, event: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        record(number)
    call_command("verify_audit")
    assert capsys.readouterr().out == "audit log whole: 5 events\n"
    corrupt(superuser_dsn, statement)
    with pytest.raises(SystemExit) as caught:
        call_command("verify_audit")
    assert caught.value.code == 1
    assert f"BROKEN at event {event}:" in capsys.readouterr().err


def test_the_report_as_json(superuser_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    record(1)
    record(2)
    call_command("verify_audit", json=True)
    assert json.loads(capsys.readouterr().out) == {"ok": True, "events": 2, "broken": None}
    corrupt(superuser_dsn, "UPDATE engine_auditevent SET actor = 'x' WHERE id = 2")
    with pytest.raises(SystemExit):
        call_command("verify_audit", json=True)
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "events": 1,
        "broken": {"event": 2, "why": "its content does not fit its hash"},
    }


def test_a_long_log_is_walked_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.lib.audit.PAGE_ROWS", 3)
    for number in range(10):
        record(number)
    assert audit_verify() == AuditReport(10, None)


def test_many_writers_make_one_line() -> None:
    def run(start: int) -> None:
        for number in range(start, start + 10):
            record(number)
        connection.close()

    threads = [threading.Thread(target=run, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert audit_verify() == AuditReport(40, None)
