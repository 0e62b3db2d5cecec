"""The outbox: an event is there exactly when what it tells of is, once, and only for who asked."""

from __future__ import annotations

import psycopg
import pytest
from django.db import IntegrityError, transaction
from django.db.transaction import TransactionManagementError

from engine.lib.outbox import EventKind, outbox_emit, outbox_wanted
from engine.models import ClientApp, OutboxEvent, WebhookDelivery, WebhookEndpoint
from tests.webhooks.stage import make_app, make_endpoint

pytestmark = pytest.mark.django_db(transaction=True)

PAID = {"payout": "p1", "amount_fen": 2**53 - 1, "name": "小明"}


def emit(app: ClientApp, kind: EventKind = EventKind.PAYOUT_PAID, key: str = "p1") -> int:
    with transaction.atomic():
        return outbox_emit(kind, app.pk, PAID, key=key)


def test_what_nobody_asked_for_is_not_written() -> None:
    shop, other = make_app("shop"), make_app("other")
    make_endpoint(other, kinds=[EventKind.PAYOUT_PAID])
    make_endpoint(shop, kinds=[EventKind.CLAIM_SETTLED])
    make_endpoint(shop, url="https://b.example/", state=WebhookEndpoint.State.DISABLED)

    assert emit(shop) == 0

    assert OutboxEvent.objects.count() == WebhookDelivery.objects.count() == 0
    assert not outbox_wanted(EventKind.PAYOUT_PAID, shop.pk)
    assert outbox_wanted(EventKind.PAYOUT_PAID, other.pk)
    assert outbox_wanted(EventKind.PAYOUT_PAID)
    assert not outbox_wanted(EventKind.CAMPAIGN_ENDED)


def test_each_endpoint_that_asked_is_told_once_however_often_it_is_said() -> None:
    shop = make_app("shop")
    asked = [make_endpoint(shop, url=f"https://{n}.example/") for n in "abc"]
    make_endpoint(shop, url="https://d.example/", kinds=[EventKind.CAMPAIGN_ENDED])

    assert emit(shop) == 3
    assert emit(shop) == 0

    event = OutboxEvent.objects.get()
    assert (event.kind, event.client_app_id, event.key) == ("payout.paid", shop.pk, "p1")
    assert event.payload == PAID
    rows = WebhookDelivery.objects.order_by("endpoint")
    assert [row.endpoint_id for row in rows] == [endpoint.pk for endpoint in asked]
    assert {(row.event_id, row.state, row.attempts) for row in rows} == {(event.pk, "waiting", 0)}


def test_the_same_key_of_another_kind_or_app_is_another_event() -> None:
    shop, other = make_app("shop"), make_app("other")
    for app in (shop, other):
        make_endpoint(app, kinds=[EventKind.PAYOUT_PAID, EventKind.PAYOUT_FAILED])

    kinds = (EventKind.PAYOUT_PAID, EventKind.PAYOUT_FAILED)
    told = [emit(app, kind) for app in (shop, other) for kind in kinds]

    assert told == [1, 1, 1, 1]
    assert OutboxEvent.objects.count() == 4


def test_what_is_undone_tells_nothing() -> None:
    shop = make_app("shop")
    make_endpoint(shop)

    class Undone(Exception):
        pass

    with pytest.raises(Undone), transaction.atomic():
        assert outbox_emit(EventKind.PAYOUT_PAID, shop.pk, PAID, key="p1") == 1
        raise Undone

    assert OutboxEvent.objects.count() == WebhookDelivery.objects.count() == 0


def test_outside_a_transaction_nothing_is_told() -> None:
    with pytest.raises(TransactionManagementError):
        outbox_emit(EventKind.PAYOUT_PAID, make_app("shop").pk, PAID, key="p1")


def test_a_kind_that_is_not_one_of_the_set_is_refused() -> None:
    shop = make_app("shop")
    with pytest.raises(IntegrityError, match="event_known_kind"):
        OutboxEvent.objects.create(client_app=shop, kind="payout.lost", key="k", payload={})
    with pytest.raises(IntegrityError, match="endpoint_known_kinds"):
        WebhookEndpoint.objects.create(
            client_app=shop, url="https://a.example/", kinds=["payout.lost"], secret_encrypted="x"
        )


def test_an_event_is_never_changed(owner_dsn: str, superuser_dsn: str) -> None:
    shop = make_app("shop")
    make_endpoint(shop)
    emit(shop)
    for dsn in (owner_dsn, superuser_dsn):
        with (
            psycopg.connect(dsn) as link,
            pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="written once"),
        ):
            link.execute("UPDATE engine_outboxevent SET payload = '{}'")
    assert OutboxEvent.objects.get().payload == PAID
