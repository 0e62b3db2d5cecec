"""Idempotency-Key: once, however often it is sent; and after a day, still once (finding 9)."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test import Client

from engine import services
from engine.lib import clock, idempotency
from engine.lib.idempotency import idempotency_key, records_purge
from engine.lib.problem import ProblemError
from engine.models import IdempotencyRecord
from tests.conftest import wait_until
from tests.engine.test_problem import problem
from tests.engine.views import Payments

pytestmark = [pytest.mark.urls("tests.engine.views"), pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def payments(superuser_dsn: str) -> Iterator[None]:
    """The thing that is paid for: its (principal, key) is unique for ever."""
    with psycopg.connect(superuser_dsn) as link:
        link.execute(
            "CREATE TABLE IF NOT EXISTS test_payment (id uuid PRIMARY KEY, principal text,"
            " key text, amount_fen bigint);"
            "CREATE UNIQUE INDEX IF NOT EXISTS test_payment_once ON test_payment (principal, key);"
            "GRANT SELECT, INSERT ON test_payment TO PUBLIC"
        )
    yield
    Payments.behaviour, Payments.during, Payments.guard = "pay", None, True
    with psycopg.connect(superuser_dsn) as link:
        link.execute("DROP TABLE test_payment")


@pytest.fixture
def alice() -> str:
    return person("alice")


def person(name: str) -> str:
    from engine.models import ClientApp

    app = ClientApp.objects.filter(slug="demo").first()
    if app is None:
        app = services.client_app_create(slug="demo", name="Demo", actor="test")
        services.client_key_create(client_app=app, actor="test")
    return services.mint_client_token(client_app_id=app.pk, subject=name)


def pay(token: str, key: str | None = "k1", amount_fen: Any = 5, raw: bytes | None = None) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = raw if raw is not None else b'{"amount_fen": %s}' % str(amount_fen).encode()
    client = Client(raise_request_exception=False)
    return client.post("/api/v1/payments", body, "application/json", headers=headers)


def paid() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT amount_fen FROM test_payment ORDER BY amount_fen")
        return [row[0] for row in cursor.fetchall()]


def age(hours: float) -> None:
    """Let the records be as old as after `hours`."""
    moment = clock.now() - dt.timedelta(hours=hours)
    IdempotencyRecord.objects.update(created_at=moment, lease_until=moment)


def test_a_retry_gets_the_same_answer_and_pays_nothing(alice: str) -> None:
    first, second = pay(alice), pay(alice)
    assert (first.status_code, first.content) == (201, b'{"paid_fen":5}')
    assert "Idempotent-Replayed" not in first
    assert (second.status_code, second.content) == (201, first.content)
    assert second["Content-Type"] == first["Content-Type"] == "application/json"
    assert second["Idempotent-Replayed"] == "true"
    assert second["Cache-Control"] == "no-store"
    assert paid() == [5]


def test_the_same_body_in_other_words_is_the_same_request(alice: str) -> None:
    pay(alice, raw=b'{"amount_fen":5,"name":"x"}')
    again = pay(alice, '"k1"', raw=b' { "name" : "x", "amount_fen" : 5 }')
    assert again["Idempotent-Replayed"] == "true"
    assert paid() == [5]


def test_another_body_under_the_key_is_refused(alice: str) -> None:
    pay(alice)
    problem(pay(alice, amount_fen=6), 422, "idempotency_key_reused")
    assert paid() == [5]


def test_keys_belong_to_people(alice: str) -> None:
    assert pay(alice).status_code == pay(person("bob")).status_code == 201
    assert paid() == [5, 5]


def test_a_key_is_required(alice: str) -> None:
    problem(pay(alice, None), 400, "idempotency_key_required")
    problem(pay(alice, "  "), 400, "idempotency_key_required")
    assert paid() == []
    assert IdempotencyRecord.objects.count() == 0


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"abc"', "abc"),
        ('"a b"', "a b"),
        (r'"a\"b\\c"', r"a\"b\\c".replace(r"\"", '"').replace(r"\\", "\\")),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_keys_that_pass(header: str, key: str) -> None:
    assert idempotency_key(header) == key


@pytest.mark.parametrize(
    "header",
    ["x" * 256, "a b", '"', '""', '"a', 'a"b', "é", '"é"', '"a\\b"', "a\tb", "\x7f", "a\0"],
)
def test_keys_that_do_not(header: str) -> None:
    with pytest.raises(ProblemError) as caught:
        idempotency_key(header)
    assert (caught.value.status, caught.value.code) == (400, "idempotency_key_malformed")


def test_refusals_for_good_are_replayed_and_undone(alice: str) -> None:
    Payments.behaviour = "poor"
    first = pay(alice)
    problem(first, 422, "invalid")
    Payments.behaviour = "pay"
    second = pay(alice)
    assert (second.status_code, second.content) == (422, first.content)
    assert second["Content-Type"] == "application/problem+json"
    assert second["Idempotent-Replayed"] == "true"
    assert paid() == []


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [("conflict", 409, "conflict"), ("limit", 429, "rate_limited"), ("crash", 500, "internal")],
)
def test_refusals_that_may_pass_are_never_stored(
    alice: str, behaviour: str, status: int, code: str
) -> None:
    Payments.behaviour = behaviour
    problem(pay(alice), status, code)
    assert (paid(), IdempotencyRecord.objects.count()) == ([], 0)
    Payments.behaviour = "pay"
    assert pay(alice).status_code == 201
    assert paid() == [5]


def test_an_outage_is_never_stored(alice: str) -> None:
    def outage() -> None:
        raise OperationalError("the connection is gone")

    Payments.during = outage
    response = pay(alice)
    problem(response, 503, "unavailable")
    assert response["Retry-After"] == "1"
    Payments.during = None
    assert pay(alice).status_code == 201
    assert paid() == [5]


class Held:
    """A first request that stands in the middle of its payment until `go`."""

    def __init__(self, token: str) -> None:
        self.standing, self.go = threading.Event(), threading.Event()
        self.answer: Any = None

        def during() -> None:
            Payments.during = None
            self.standing.set()
            assert self.go.wait(20)

        def run() -> None:
            try:
                self.answer = pay(token)
            finally:
                connection.close()

        Payments.during = during
        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert self.standing.wait(20)

    def finish(self) -> Any:
        self.go.set()
        self.thread.join(20)
        return self.answer


def test_while_the_first_is_running(alice: str) -> None:
    held = Held(alice)
    response = pay(alice)
    problem(response, 409, "in_progress")
    assert response["Retry-After"] == "1"
    problem(pay(alice, amount_fen=6), 422, "idempotency_key_reused")
    first = held.finish()
    assert first.status_code == 201
    assert pay(alice).content == first.content
    assert paid() == [5]


def test_a_run_that_died_does_not_wedge_the_key(alice: str) -> None:
    """kill -9 in the middle leaves a running mark; its lease ends and the next request pays."""
    pay(alice)
    IdempotencyRecord.objects.update(status=None, lease_until=clock.now() + idempotency.LEASE)
    problem(pay(alice, "k1"), 409, "in_progress")
    IdempotencyRecord.objects.update(lease_until=clock.now() - dt.timedelta(seconds=1))
    # This run's payment was committed after all: the unique column says so, and nothing is paid.
    problem(pay(alice, "k1"), 409, "key_spent")
    assert paid() == [5]
    IdempotencyRecord.objects.create(
        principal=_principal("alice"),
        key="k2",
        route="/api/v1/payments",
        fingerprint=idempotency.fingerprint("POST", "/api/v1/payments", {"amount_fen": 7}),
        run="00000000-0000-0000-0000-000000000000",
        lease_until=clock.now() - dt.timedelta(seconds=1),
        created_at=clock.now() - dt.timedelta(seconds=31),
    )
    assert pay(alice, "k2", 7).status_code == 201
    assert paid() == [5, 7]


def _principal(name: str) -> str:
    from engine.lib.ids import participant_digest
    from engine.models import ClientApp

    return f"client:{participant_digest(ClientApp.objects.get(slug='demo').pk, name).hex()}"


def test_a_slow_run_whose_lease_was_taken_over_pays_nothing(alice: str) -> None:
    Payments.guard = False  # so that only the run's name protects here
    held = Held(alice)
    IdempotencyRecord.objects.update(lease_until=clock.now() - dt.timedelta(seconds=1))
    done: list[Any] = []

    def again() -> None:
        done.append(pay(alice))
        connection.close()

    second = threading.Thread(target=again)
    second.start()
    # The second waits for the first's uncommitted row; it has taken the run over by then.
    wait_until(lambda: IdempotencyRecord.objects.get().lease_until > clock.now())
    problem(held.finish(), 409, "in_progress")
    second.join(20)
    assert done[0].status_code == 201
    assert paid() == [5]


def test_two_at_once_pay_once(alice: str) -> None:
    answers: list[Any] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        barrier.wait(20)
        answers.append(pay(alice))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert any(answer.status_code == 201 for answer in answers)
    assert paid() == [5]


# --- finding 9 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", [False, True], ids=["record kept", "record purged"])
def test_a_key_older_than_a_day_pays_nothing(alice: str, forgotten: bool) -> None:
    """A phone sends, goes offline for a day, and sends again with the same key."""
    assert pay(alice).status_code == 201
    age(hours=24)
    if forgotten:
        assert records_purge() == 1
    problem(pay(alice), 409, "key_spent")
    problem(pay(alice, amount_fen=6), 409, "key_spent")
    assert paid() == [5]


@pytest.mark.control
def test_without_the_unique_column_it_would_pay_twice(alice: str, superuser_dsn: str) -> None:
    with psycopg.connect(superuser_dsn) as link:
        link.execute("DROP INDEX test_payment_once")
    Payments.guard = False
    assert pay(alice).status_code == 201
    age(hours=24)
    assert pay(alice).status_code == 201
    assert paid() == [5, 5]


def test_within_the_day_it_is_a_replay(alice: str) -> None:
    first = pay(alice)
    age(hours=23.9)
    assert pay(alice).content == first.content
    assert records_purge() == 0
    assert paid() == [5]


def test_a_key_that_made_nothing_is_free_again_after_a_day(alice: str) -> None:
    Payments.behaviour = "poor"
    problem(pay(alice), 422, "invalid")
    Payments.behaviour = "pay"
    age(hours=25)
    assert pay(alice).status_code == 201
    assert paid() == [5]


def test_the_purge_works_in_pages(alice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "PURGE_ROWS", 2)
    for number in range(5):
        pay(alice, f"k{number}")
    assert records_purge() == 0
    age(hours=24)
    assert records_purge() == 5
    assert IdempotencyRecord.objects.count() == 0
