"""Webhooks in the admin: endpoints are added, switched, rotated; deliveries are sent again."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from standardwebhooks import Webhook

from engine.lib import crypto
from engine.lib.audit import audit_verify
from engine.models import (
    AuditEvent,
    ClientApp,
    OutboxEvent,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)
from engine.webhooks import services
from engine.webhooks.calling import Outcome
from engine.webhooks.deliveries import deliver_due, finish, take
from tests.admin import desk
from tests.webhooks.stage import (
    SECRET,
    Receiver,
    due_now,
    happen,
    make_app,
    make_endpoint,
)

pytestmark = pytest.mark.django_db(transaction=True)

ENDPOINTS = "/admin/engine/webhookendpoint/"
DELIVERIES = "/admin/engine/webhookdelivery/"


@pytest.fixture
def sre() -> Client:
    return desk.at_desk("sre")


@pytest.fixture
def app() -> ClientApp:
    return make_app()


def add(client: Client, app: ClientApp, url: str, *kinds: str) -> Any:
    words = {"client_app": app.pk, "url": url, "kinds": kinds or ["payout.paid"]}
    return client.post(f"{ENDPOINTS}add/", words, follow=True)


def act(client: Client, row: Any, name: str, **words: Any) -> Any:
    """Press the button of the page that asks once more."""
    home = DELIVERIES if isinstance(row, WebhookDelivery) else ENDPOINTS
    return client.post(f"{home}{row.pk}/{name}/", words, follow=True)


def secret_of(answer: Any) -> str:
    found = re.findall(r"whsec_[A-Za-z0-9+/=]+", answer.content.decode())
    assert len(found) == 1
    return str(found[0])


def acts() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.order_by("id").values_list("actor", "action"))


def give_up(count: int) -> None:
    """So many deliveries end in vain."""
    for _ in range(count):
        due_now()
        taken = take()
        assert taken is not None
        finish(taken, Outcome(410, 1))
        WebhookEndpoint.objects.update(state="active", disabled_by_us=False, reason="")


# --- endpoints ------------------------------------------------------------------------------------


def test_an_endpoint_is_added_and_its_secret_is_shown_once(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    answer = add(sre, app, receiver.url, "payout.paid", "claim.settled")
    secret = secret_of(answer)

    endpoint = WebhookEndpoint.objects.get()
    assert endpoint.kinds == ["claim.settled", "payout.paid"]
    assert secret not in endpoint.secret_encrypted
    happen(app)
    deliver_due()
    [call] = receiver.calls
    Webhook(secret).verify(call.body, call.headers)
    for page in (ENDPOINTS, f"{ENDPOINTS}{endpoint.pk}/change/"):
        shown = sre.get(page).content.decode()
        assert "whsec_" not in shown and endpoint.secret_encrypted not in shown
    event = AuditEvent.objects.get()
    assert (event.actor, event.action) == ("staff:sre", "webhook_endpoint.create")
    assert event.after == {
        "client_app": app.pk,
        # Without its query, which may hold a token.
        "url": receiver.url.split("?")[0],
        "kinds": ["claim.settled", "payout.paid"],
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://shop.example/", "must begin with https://"),
        ("https://10.0.0.1/", "does not belong to the open internet"),
        ("https://ann:x@shop.example/", "No user name"),
        ("https://shop.example:22/", "port must be 443"),
        ("https://redis/", "not an address"),
    ],
)
def test_an_address_of_ours_is_refused_beside_its_field(
    sre: Client, app: ClientApp, url: str, words: str
) -> None:
    answer = add(sre, app, url)
    assert words in answer.content.decode()
    assert WebhookEndpoint.objects.count() == AuditEvent.objects.count() == 0


def test_an_address_twice_or_too_many_are_refused(app: ClientApp) -> None:
    def create(number: int) -> None:
        services.endpoint_create(
            client_app=app, url=f"https://n{number}.example/", kinds=["payout.paid"], actor="x"
        )

    for number in range(services.MAX_ENDPOINTS):
        create(number)
    with pytest.raises(services.ServiceError) as refusal:
        create(99)
    assert refusal.value.code == "too_many"
    other = make_app("other")
    services.endpoint_create(
        client_app=other, url="https://n1.example/", kinds=["payout.paid"], actor="x"
    )
    with pytest.raises(services.ServiceError) as refusal:
        services.endpoint_create(
            client_app=other, url="https://n1.example/", kinds=["payout.paid"], actor="x"
        )
    assert refusal.value.code == "taken"
    assert WebhookEndpoint.objects.count() == services.MAX_ENDPOINTS + 1


def test_an_address_that_is_there_already_is_a_message(sre: Client, app: ClientApp) -> None:
    make_endpoint(app, url="https://a.example/")
    answer = add(sre, app, "https://a.example/")
    assert answer.status_code == 200
    assert "already exists" in answer.content.decode()
    assert WebhookEndpoint.objects.count() == 1


def test_events_and_address_are_changed_and_the_secret_stays(sre: Client, app: ClientApp) -> None:
    endpoint = make_endpoint(app)
    answer = sre.post(
        f"{ENDPOINTS}{endpoint.pk}/change/",
        {"url": "https://b.example/", "kinds": ["campaign.ended"]},
        follow=True,
    )
    assert answer.status_code == 200
    before = endpoint.secret_encrypted
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.kinds) == ("https://b.example/", ["campaign.ended"])
    assert endpoint.secret_encrypted == before
    event = AuditEvent.objects.get()
    assert event.before["url"] == "https://a.example/hooks"
    assert event.after["kinds"] == ["campaign.ended"]


def test_a_new_secret_signs_beside_the_old_one_for_some_hours(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    endpoint = make_endpoint(app, url=receiver.url)

    secret = secret_of(act(sre, endpoint, "rotate", overlap_h=24, reason="yearly"))

    happen(app)
    deliver_due()
    [call] = receiver.calls
    Webhook(secret).verify(call.body, call.headers)
    Webhook(SECRET).verify(call.body, call.headers)
    endpoint.refresh_from_db()
    assert endpoint.previous_until is not None
    left = endpoint.previous_until - timezone.now()
    assert dt.timedelta(hours=23) < left < dt.timedelta(hours=25)
    event = AuditEvent.objects.get()
    assert (event.action, event.reason) == ("webhook_endpoint.rotate", "yearly")
    assert event.after == {"overlap_h": 24}


def test_a_secret_that_leaked_ends_at_once(sre: Client, app: ClientApp) -> None:
    endpoint = make_endpoint(app)
    secret_of(act(sre, endpoint, "rotate", overlap_h=0, reason="it leaked"))
    endpoint.refresh_from_db()
    assert (endpoint.previous_encrypted, endpoint.previous_until) == ("", None)
    assert crypto.decrypt(endpoint.secret_encrypted) != SECRET


def test_off_and_on_again(sre: Client, app: ClientApp, receiver: Receiver) -> None:
    endpoint = make_endpoint(app, url=receiver.url)
    happen(app)
    assert act(sre, endpoint, "disable", reason="").status_code == 422
    act(sre, endpoint, "disable", reason="the app asked for it")
    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.reason) == ("disabled", "the app asked for it")
    assert deliver_due() == {}
    # Once more changes nothing and says why.
    before = AuditEvent.objects.count()
    assert act(sre, endpoint, "disable", reason="again").status_code == 422
    assert AuditEvent.objects.count() == before

    act(sre, endpoint, "enable", reason="it is back")
    assert deliver_due() == {"delivered": 1}
    assert acts() == [
        ("staff:sre", "webhook_endpoint.disable"),
        ("staff:sre", "webhook_endpoint.enable"),
    ]


def test_what_the_system_switched_off_is_a_number_in_the_navigation(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    endpoint = make_endpoint(app, url=receiver.url)
    receiver.answer = lambda call: 410
    happen(app)
    deliver_due()

    from campaign.admin.shell import navigation

    def badge() -> Any:
        request = sre.get(ENDPOINTS).wsgi_request
        items = [item for group in navigation(request) for item in group["items"]]
        return next(item.get("badge") for item in items if item["link"] == ENDPOINTS)

    assert badge() == "1"
    act(sre, endpoint, "enable", reason="mended")
    assert badge() is None


def test_a_test_event_goes_to_that_endpoint_alone(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    endpoint = make_endpoint(app, url=receiver.url)
    make_endpoint(app, url="https://other.example/")

    act(sre, endpoint, "send_test")

    assert deliver_due() == {"delivered": 1}
    [call] = receiver.calls
    said = Webhook(SECRET).verify(call.body, call.headers)
    assert said["type"] == "webhook.test"
    assert WebhookDelivery.objects.get().endpoint == endpoint


# --- deliveries -----------------------------------------------------------------------------------


def test_a_delivery_shows_what_was_sent_and_what_came_back(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    make_endpoint(app, url=receiver.url)
    happen(app)
    receiver.answer = lambda call: (500, b"<b>no disk left</b>")
    deliver_due()
    delivery = WebhookDelivery.objects.get()

    page = sre.get(f"{DELIVERIES}{delivery.pk}/change/").content.decode()

    assert delivery.event_id.hex in page
    assert "&lt;b&gt;no disk left&lt;/b&gt;" in page and "<b>no disk" not in page
    assert "小明" in page
    assert receiver.url not in page, "the query stays away"


def test_the_log_is_narrowed_by_endpoint_kind_state_and_id(sre: Client, app: ClientApp) -> None:
    first, second = (make_endpoint(app, url=f"https://{n}.example/") for n in "ab")
    happen(app, 2)
    event = OutboxEvent.objects.order_by("key")[0]
    for query, count in {
        "": 4,
        f"?endpoint__id__exact={first.pk}": 2,
        "?state=waiting": 4,
        "?state=dead": 0,
        "?kind=payout.paid": 4,
        "?kind=claim.settled": 0,
        f"?q={event.pk.hex}": 2,
        f"?q={event.key}": 2,
        "?q=nonsense": 0,
    }.items():
        answer = sre.get(f"{DELIVERIES}{query}")
        assert answer.status_code == 200, query
        assert len(answer.context["cl"].result_list) == count, query
    assert second.pk != first.pk


def test_one_is_sent_again_under_the_same_id(
    sre: Client, app: ClientApp, receiver: Receiver
) -> None:
    make_endpoint(app, url=receiver.url)
    happen(app)
    deliver_due()
    delivery = WebhookDelivery.objects.get()

    act(sre, delivery, "resend")

    assert deliver_due() == {"delivered": 1}
    first, again = receiver.calls
    assert (first.id, first.body) == (again.id, again.body)
    assert WebhookAttempt.objects.count() == 2
    assert acts() == [("staff:sre", "webhook_delivery.resend")]


def test_one_in_progress_is_left_alone(sre: Client, app: ClientApp) -> None:
    make_endpoint(app)
    happen(app)
    taken = take()
    assert taken is not None
    before = WebhookDelivery.objects.values().get()

    assert act(sre, WebhookDelivery.objects.get(), "resend").status_code == 422

    assert WebhookDelivery.objects.values().get() == before
    assert acts() == []


def test_all_that_failed_since_are_sent_again(sre: Client, app: ClientApp) -> None:
    endpoint = make_endpoint(app)
    happen(app, 4)
    give_up(3)
    old = WebhookDelivery.objects.filter(state="dead").order_by("id")[0]
    WebhookDelivery.objects.filter(pk=old.pk).update(
        finished_at=timezone.now() - dt.timedelta(days=3)
    )
    audited = AuditEvent.objects.count()

    answer = act(
        sre,
        endpoint,
        "resend_failed",
        since=desk.local(-dt.timedelta(days=1)),
        reason="their database is back",
    )

    assert "Sent again: 2" in answer.content.decode()
    states = list(WebhookDelivery.objects.order_by("id").values_list("state", "attempts"))
    assert sorted(states) == [("dead", 1), ("waiting", 0), ("waiting", 0), ("waiting", 0)]
    assert AuditEvent.objects.count() == audited + 1
    event = AuditEvent.objects.latest("id")
    assert (event.action, event.after["count"]) == ("webhook_endpoint.resend_failed", 2)
    assert audit_verify().broken is None


# --- who may --------------------------------------------------------------------------------------

PRESSES = ["enable", "disable", "rotate", "send_test", "resend_failed"]


@pytest.mark.parametrize("group", ["operations", "approver", "finance", "support"])
def test_who_lacks_the_right_changes_nothing(group: str, app: ClientApp) -> None:
    endpoint = make_endpoint(app)
    happen(app)
    delivery = WebhookDelivery.objects.get()
    client = desk.at_desk(group)
    before = (WebhookEndpoint.objects.values().get(), WebhookDelivery.objects.values().get())
    words = {"reason": "x", "overlap_h": 1, "since": desk.local(-dt.timedelta(days=1))}

    for name in PRESSES:
        assert act(client, endpoint, name, **words).status_code == 403, name
    assert act(client, delivery, "resend").status_code == 403
    assert add(client, app, "https://b.example/").status_code == 403
    changed = client.post(f"{ENDPOINTS}{endpoint.pk}/change/", {"url": "https://c.example/"})
    assert changed.status_code == 403

    assert (
        WebhookEndpoint.objects.values().get(),
        WebhookDelivery.objects.values().get(),
    ) == before
    assert AuditEvent.objects.count() == 0
    sees = 200 if group == "operations" else 403
    for page in (ENDPOINTS, DELIVERIES, f"{DELIVERIES}{delivery.pk}/change/"):
        assert client.get(page).status_code == sees


@pytest.mark.parametrize("name", PRESSES)
def test_each_page_says_what_its_act_does_in_both_languages(app: ClientApp, name: str) -> None:
    endpoint = make_endpoint(app, state="disabled" if name == "enable" else "active")
    address = f"{ENDPOINTS}{endpoint.pk}/{name}/"
    for lang, words in (("en", "No money moves."), ("zh-hans", "不发生资金变动。")):
        page = desk.at_desk("sre", f"sre-{lang}", lang).get(address)
        assert page.status_code == 200
        assert words in page.content.decode()


def test_the_buttons_fit_the_state(sre: Client, app: ClientApp) -> None:
    endpoint = make_endpoint(app)

    def shown() -> set[str]:
        page = sre.get(f"{ENDPOINTS}{endpoint.pk}/change/").content.decode()
        return {name for name in PRESSES if f"/{endpoint.pk}/{name}/" in page}

    assert shown() == {"disable", "rotate", "send_test", "resend_failed"}
    services.endpoint_set_active(endpoint_id=endpoint.pk, active=False, reason="x", actor="x")
    assert shown() == {"enable", "rotate"}


@pytest.mark.parametrize("pk", ["0", "x", "99999999999999999999", "-1"])
def test_what_is_not_there_is_not_found(sre: Client, pk: str) -> None:
    assert sre.get(f"{ENDPOINTS}{pk}/rotate/").status_code == 404
    assert sre.get(f"{DELIVERIES}{pk}/resend/").status_code == 404
