"""Deliveries: signed as the standard says, at least once, one at a time, given up in time."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from standardwebhooks import Webhook, WebhookVerificationError

from engine.lib import clock, crypto
from engine.lib.audit import audit_verify
from engine.models import AuditEvent, OutboxEvent, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from engine.webhooks import deliveries
from engine.webhooks.calling import Outcome
from engine.webhooks.deliveries import SCHEDULE_S, deliver_due, deliver_one, finish, take
from tests.conftest import wait_until
from tests.guards import without_guard
from tests.webhooks.stage import (
    OLD_SECRET,
    SECRET,
    Receiver,
    due_now,
    happen,
    make_app,
    make_endpoint,
    receiving,
)

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parent.parent.parent
OK, DOWN = Outcome(200, 3), Outcome(503, 3, "later")


def database_now() -> dt.datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: dt.datetime = cursor.fetchone()[0]
    return found


def taken_now() -> deliveries.Taken:
    taken = take()
    assert taken is not None
    return taken


# --- what is sent ---------------------------------------------------------------------------------


def test_a_payout_is_told_and_its_signature_is_good(receiver: Receiver) -> None:
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)

    assert deliver_due() == {"delivered": 1}

    [call] = receiver.calls
    event = OutboxEvent.objects.get()
    # The standard's own library is the judge.
    said = Webhook(SECRET).verify(call.body, call.headers)
    assert said == {
        "id": event.id.hex,
        "type": "payout.paid",
        "timestamp": clock.rfc3339(event.created_at),
        "data": {"payout": "p0", "amount_fen": 100, "name": "小明"},
    }
    assert call.id == event.id.hex
    assert call.path == "/hooks?a=1"
    assert call.headers["content-type"] == "application/json"
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.lease_until) == ("delivered", 1, None)
    attempt = WebhookAttempt.objects.get()
    assert (attempt.number, attempt.status, attempt.error) == (1, 200, "")
    # And nothing is due any more.
    assert deliver_due() == {}
    assert len(receiver.calls) == 1


def test_another_secret_or_another_body_does_not_verify(receiver: Receiver) -> None:
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    deliver_due()
    [call] = receiver.calls
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(call.body, call.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(call.body.replace(b"100", b"900"), call.headers)


def test_while_secrets_overlap_both_verify_and_afterwards_only_the_new(receiver: Receiver) -> None:
    shop = make_app()
    endpoint = make_endpoint(
        shop,
        url=receiver.url,
        previous_encrypted=crypto.encrypt(OLD_SECRET),
        previous_until=database_now() + dt.timedelta(hours=1),
    )
    happen(shop)
    deliver_due()
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
        previous_until=database_now() - dt.timedelta(seconds=1)
    )
    happen(shop, start=1)
    deliver_due()

    during, after = receiver.calls
    for call in receiver.calls:
        Webhook(SECRET).verify(call.body, call.headers)
    Webhook(OLD_SECRET).verify(during.body, during.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(after.body, after.headers)
    assert len(after.headers["webhook-signature"].split()) == 1


def test_a_secret_that_cannot_be_read_is_a_failed_attempt(receiver: Receiver) -> None:
    shop = make_app()
    endpoint = make_endpoint(shop, url=receiver.url)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(secret_encrypted="lost:xyz")
    happen(shop)

    assert deliver_due() == {"waiting": 1}

    assert WebhookAttempt.objects.get().error.startswith("secret: no key 'lost'")
    assert receiver.calls == []


# --- when it fails --------------------------------------------------------------------------------


def test_each_failure_waits_longer_and_the_last_gives_up() -> None:
    shop = make_app()
    make_endpoint(shop)
    happen(shop)

    for number, wait_s in enumerate(SCHEDULE_S, 1):
        due_now()
        before = database_now()
        assert finish(taken_now(), DOWN) == "waiting"
        after = database_now()
        row = WebhookDelivery.objects.get()
        assert before + dt.timedelta(seconds=wait_s) <= row.next_attempt_at
        longest_s = wait_s * (1 + deliveries.JITTER)
        assert row.next_attempt_at <= after + dt.timedelta(seconds=longest_s)
        assert (row.state, row.attempts, row.lease_until) == ("waiting", number, None)
        assert take() is None, "not before its time"
    due_now()
    assert finish(taken_now(), DOWN) == "dead"

    row = WebhookDelivery.objects.get()
    assert (row.state, row.attempts, row.next_attempt_at) == ("dead", 10, None)
    log = WebhookAttempt.objects.order_by("id").values_list("number", "status", "answer")
    assert list(log) == [(number, 503, "later") for number in range(1, 11)]
    assert take() is None
    # The schedule ends within days, as the docs promise.
    assert dt.timedelta(days=3) < dt.timedelta(seconds=sum(SCHEDULE_S)) < dt.timedelta(days=4)


@pytest.mark.parametrize("off_s", [-300, 300])
def test_times_are_the_databases(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    """This machine's clock is five minutes off: signatures and schedule don't notice."""
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() + off_s)
    monkeypatch.setattr(
        clock, "now", lambda: dt.datetime.fromtimestamp(really() + off_s, tz=dt.UTC)
    )
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    receiver.answer = lambda call: 500

    before = database_now()
    assert deliver_due() == {"waiting": 1}
    after = database_now()

    stamp = int(receiver.calls[0].headers["webhook-timestamp"])
    assert before.timestamp() - 1 <= stamp <= after.timestamp() + 1
    row = WebhookDelivery.objects.get()
    assert before + dt.timedelta(seconds=5) <= row.next_attempt_at
    assert row.next_attempt_at <= after + dt.timedelta(seconds=6.1)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500, 503])
def test_whatever_is_not_2xx_is_tried_again(receiver: Receiver, status: int) -> None:
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    receiver.answer = lambda call: (status, b"no\0 " + "好".encode() * 600)

    assert deliver_due() == {"waiting": 1}

    attempt = WebhookAttempt.objects.get()
    assert attempt.status == status
    assert attempt.answer.startswith("no\ufffd 好好好") and len(attempt.answer) <= 1_000
    assert len(receiver.calls) == 1


def test_gone_switches_the_endpoint_off_and_staff_can_see_why(receiver: Receiver) -> None:
    shop = make_app()
    endpoint = make_endpoint(shop, url=receiver.url)
    happen(shop, 2)
    receiver.answer = lambda call: 410

    assert deliver_due() == {"dead": 1}

    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.reason, endpoint.disabled_by_us) == (
        "disabled", "gone", True,
    )  # fmt: skip
    assert len(receiver.calls) == 1
    assert sorted(WebhookDelivery.objects.values_list("state", flat=True)) == ["dead", "waiting"]
    event = AuditEvent.objects.get()
    assert (event.actor, event.action) == ("system:webhooks", "webhook_endpoint.disable")
    assert audit_verify().broken is None
    # What happens from now on is not even written down.
    happen(shop, start=5)
    assert OutboxEvent.objects.count() == 2


def test_days_of_nothing_but_failures_switch_it_off_and_one_success_forgives() -> None:
    shop = make_app()
    endpoint = make_endpoint(shop)
    happen(shop, 3)

    def fail_for(days: int) -> str:
        WebhookEndpoint.objects.filter(pk=endpoint.pk).update(
            failing_since=database_now() - dt.timedelta(days=days)
        )
        due_now()
        finish(taken_now(), DOWN)
        endpoint.refresh_from_db()
        return str(endpoint.state)

    assert fail_for(2) == "active"
    due_now()
    assert finish(taken_now(), OK) == "delivered"
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None
    due_now()
    finish(taken_now(), DOWN)
    endpoint.refresh_from_db()
    assert endpoint.failing_since is not None and endpoint.state == "active"
    assert fail_for(4) == "disabled"
    assert endpoint.reason == "failing"
    due_now()
    assert take() is None


# --- one at a time --------------------------------------------------------------------------------


def crowd(workers: int, work: Any) -> list[Any]:
    found: list[Any] = []
    start = threading.Barrier(workers)

    def run() -> None:
        try:
            start.wait(10)
            found.append(work())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


def test_many_workers_call_once_each(receiver: Receiver) -> None:
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop, 60)

    results = crowd(6, deliver_due)

    assert sum(result.get("delivered", 0) for result in results) == 60
    assert Counter(call.id for call in receiver.calls) == Counter(
        event.id.hex for event in OutboxEvent.objects.all()
    )
    assert receiver.most_in_flight <= deliveries.SLOTS


def two_at_once(receiver: Receiver) -> int:
    """One event, two workers; how many calls were in flight together. The first is held open."""
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    arrived, go = threading.Event(), threading.Event()

    def hold(call: Any) -> int:
        arrived.set()
        go.wait(50)
        return 200

    receiver.answer = hold
    first = threading.Thread(target=lambda: (deliver_due(), connections.close_all()))
    first.start()
    assert arrived.wait(30)
    second = take()
    if second is not None:
        other = threading.Thread(target=lambda: (deliver_one(second), connections.close_all()))
        other.start()
        wait_until(lambda: receiver.in_flight == 2, 30, "the second call")
        go.set()
        other.join(30)
    go.set()
    first.join(30)
    assert not first.is_alive()
    return receiver.most_in_flight


def test_two_workers_have_one_call_in_flight(receiver: Receiver) -> None:
    assert two_at_once(receiver) == 1
    assert WebhookDelivery.objects.get().state == "delivered"


@pytest.mark.control
def test_without_the_lease_two_calls_are_in_flight(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_DUE_ENDPOINTS", "_TAKE"):
        monkeypatch.setattr(deliveries, name, without_guard(getattr(deliveries, name), "lease"))
    assert two_at_once(receiver) == 2


def overtaken() -> tuple[str, WebhookDelivery]:
    """A worker stands still until its lease is over; another delivers; then the first one fails."""
    shop = make_app()
    make_endpoint(shop)
    happen(shop)
    slow = take(lease_s=0.0)
    assert slow is not None
    quick = taken_now()
    assert (quick.id, quick.event_id, quick.token) == (slow.id, slow.event_id, slow.token + 1)
    said = finish(slow, DOWN)
    return said, WebhookDelivery.objects.get()


def test_who_was_overtaken_decides_nothing() -> None:
    said, row = overtaken()
    assert said == "overtaken"
    # Still under the second worker's lease; the call that was made stands in the log.
    assert (row.state, row.attempts) == ("waiting", 2) and row.lease_until is not None
    assert WebhookAttempt.objects.get().number == 1


@pytest.mark.control
def test_without_the_fence_who_was_overtaken_ends_the_others_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "_FINISH", without_guard(deliveries._FINISH, "fence"))
    said, row = overtaken()
    assert said == "waiting"
    assert row.lease_until is None


def test_who_stood_still_for_too_long_does_not_call(receiver: Receiver) -> None:
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    taken = take(lease_s=deliveries.CALL_S)
    assert taken is not None
    assert deliver_one(taken) == "overtaken"
    assert receiver.calls == []


WORKER = """
import django
django.setup()
from engine.webhooks.deliveries import deliver_due
deliver_due()
"""


def lease_ends() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE engine_webhookdelivery"
            " SET lease_until = now() - interval '1 second', "
            "     next_attempt_at = now() - interval '1 second'"
        )


def test_a_killed_worker_loses_nothing(receiver: Receiver) -> None:
    """kill -9 in the middle of a call: it is made again, under the same id."""
    shop = make_app()
    make_endpoint(shop, url=receiver.url)
    happen(shop)
    arrived, go = threading.Event(), threading.Event()

    def hold(call: Any) -> int:
        arrived.set()
        go.wait(30)
        return 200

    receiver.answer = hold
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT,
        env={**os.environ, "WEBHOOK_ALLOW_LOOPBACK": "True"},
    )
    try:
        assert arrived.wait(30)
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait(10)
    receiver.answer = lambda call: 200
    go.set()
    row = WebhookDelivery.objects.get()
    assert (row.state, row.attempts) == ("waiting", 1)
    assert take() is None, "its lease still runs"
    # Its lease ends; nobody had to notice that the worker died.
    lease_ends()

    assert deliver_due() == {"delivered": 1}

    first, again = receiver.calls
    assert first.id == again.id == OutboxEvent.objects.get().id.hex
    assert json.loads(first.body) == json.loads(again.body)
    assert WebhookDelivery.objects.get().attempts == 2


# --- slow ones ------------------------------------------------------------------------------------


def test_a_slow_endpoint_keeps_its_own_slots_and_nobody_elses() -> None:
    shop = make_app()
    go = threading.Event()

    def hold(call: Any) -> int:
        go.wait(50)
        return 200

    with receiving(hold) as slow, receiving() as fast:
        make_endpoint(shop, url=slow.url)
        make_endpoint(shop, url=fast.url)
        happen(shop, 12)
        workers = [
            threading.Thread(target=lambda: (deliver_due(), connections.close_all()))
            for _ in range(deliveries.SLOTS + 1)
        ]
        for worker in workers:
            worker.start()

        wait_until(lambda: len(fast.calls) == 12, 30, "all calls of the fast one")
        wait_until(lambda: slow.in_flight == deliveries.SLOTS, 30, "the slow one's slots")
        assert take() is None
        assert len(slow.calls) == deliveries.SLOTS

        go.set()
        for worker in workers:
            worker.join(30)
            assert not worker.is_alive()
        deliver_due()
        assert len(slow.calls) == len({call.id for call in slow.calls}) == 12


def test_an_endpoint_that_fails_has_one_slot() -> None:
    shop = make_app()
    make_endpoint(shop, failing_since=database_now())
    happen(shop, 3)
    first = taken_now()
    assert take() is None
    assert finish(first, OK) == "delivered"
    assert [take() is not None for _ in range(3)] == [True, True, False]
