"""Keys in the admin: made, rotated and revoked, the secret shown once, all of it audited."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from engine import services
from engine.lib import auth
from engine.lib.audit import audit_verify
from engine.models import ApiKey, AuditEvent, ClientApp, ClientKey
from tests.engine.test_tokens import PUBLIC_PEM

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(settings: Any) -> Client:
    settings.REQUIRE_SECOND_FACTOR = False  # tests/engine and tests/campaign tell of log-ins
    user = User.objects.create_superuser("ann", password="x")
    client = Client()
    client.force_login(user)
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "en"
    return client


@pytest.fixture
def app() -> ClientApp:
    return services.client_app_create(slug="shop", name="Shop", actor="test")


def add(client: Client, model: str, **fields: Any) -> str:
    response = client.post(reverse(f"admin:engine_{model}_add"), fields, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def act(client: Client, model: str, action: str, *rows: Any) -> str:
    response = client.post(
        reverse(f"admin:engine_{model}_changelist"),
        {"action": action, "_selected_action": [row.pk for row in rows]},
        follow=True,
    )
    return response.content.decode()


def actions() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.order_by("id").values_list("actor", "action"))


def test_an_app_is_made_and_switched_off(staff: Client) -> None:
    add(staff, "clientapp", slug="shop", name="Shop")
    app = ClientApp.objects.get()
    assert (app.slug, app.active) == ("shop", True)
    act(staff, "clientapp", "deactivate", app)
    app.refresh_from_db()
    assert not app.active
    assert actions() == [
        ("staff:ann", "client_app.create"),
        ("staff:ann", "client_app.deactivate"),
    ]
    assert audit_verify().broken is None


def test_an_api_keys_secret_is_shown_once(staff: Client, app: ClientApp) -> None:
    page = add(staff, "apikey", client_app=app.pk, name="backend", scopes=["ops", "tokens"])
    key = ApiKey.objects.get()
    assert key.scopes == ["ops", "tokens"]
    start = page.index(f"laisee_{key.prefix}_")
    secret = page[start : start + 7 + 12 + 1 + 64]
    assert auth.api_key_hash(secret) == key.hash
    again = staff.get(reverse("admin:engine_apikey_changelist")).content.decode()
    assert f"laisee_{key.prefix}_" not in again
    detail = staff.get(reverse("admin:engine_apikey_change", args=[key.pk])).content.decode()
    assert key.hash not in detail
    assert "laisee_" not in detail
    assert ("staff:ann", "api_key.create") in actions()


def test_api_keys_are_rotated_and_revoked(staff: Client, app: ClientApp) -> None:
    old = services.api_key_create(client_app=app, scopes=["ops"], name="b", actor="test").key
    assert "laisee_" in act(staff, "apikey", "rotate", old)
    new = ApiKey.objects.exclude(pk=old.pk).get()
    act(staff, "apikey", "revoke", new)
    new.refresh_from_db()
    assert new.revoked_at is not None
    # A revoked key has no successor: a message says so, and nothing is made.
    assert "revoked key has no successor" in act(staff, "apikey", "rotate", new)
    assert ApiKey.objects.count() == 2
    assert [action for _, action in actions()][-3:] == [
        "api_key.create",
        "api_key.rotate",
        "api_key.revoke",
    ]


def test_client_keys_of_both_kinds(staff: Client, app: ClientApp) -> None:
    page = add(staff, "clientkey", client_app=app.pk, label="web", public_key="")
    shared = ClientKey.objects.get(alg="HS256")
    from engine.lib.crypto import decrypt

    assert decrypt(shared.secret_encrypted).decode() in page
    assert "Copy" in page or "复制" in page
    add(staff, "clientkey", client_app=app.pk, label="phone", public_key=PUBLIC_PEM)
    assert ClientKey.objects.get(alg="EdDSA").public_key.startswith("-----BEGIN PUBLIC KEY-----")
    refused = add(staff, "clientkey", client_app=app.pk, label="x", public_key="nonsense")
    assert "Ed25519" in refused
    assert ClientKey.objects.count() == 2
    act(staff, "clientkey", "revoke", shared)
    shared.refresh_from_db()
    assert shared.revoked_at is not None


def test_no_secret_stands_on_a_client_keys_page(staff: Client, app: ClientApp) -> None:
    made = services.client_key_create(client_app=app, actor="test")
    url = reverse("admin:engine_clientkey_change", args=[made.key.pk])
    page = staff.get(url).content.decode()
    assert made.secret not in page
    assert made.key.secret_encrypted not in page


def test_keys_are_neither_edited_nor_deleted(staff: Client, app: ClientApp) -> None:
    made = services.api_key_create(client_app=app, scopes=["ops"], name="b", actor="test")
    url = reverse("admin:engine_apikey_change", args=[made.key.pk])
    assert staff.post(url, {"name": "other", "scopes": ["tokens"]}).status_code == 403
    assert staff.post(reverse("admin:engine_apikey_delete", args=[made.key.pk])).status_code == 403
    made.key.refresh_from_db()
    assert (made.key.name, made.key.scopes) == ("b", ["ops"])


def test_the_audit_log_is_to_look_at(staff: Client, app: ClientApp) -> None:
    event = AuditEvent.objects.get()
    assert (
        "client_app.create"
        in staff.get(reverse("admin:engine_auditevent_changelist")).content.decode()
    )
    url = reverse("admin:engine_auditevent_change", args=[event.pk])
    assert staff.get(url).status_code == 200
    assert staff.post(url, {"actor": "eve"}).status_code == 403
    assert staff.post(reverse("admin:engine_auditevent_delete", args=[event.pk])).status_code == 403
    assert staff.get(reverse("admin:engine_auditevent_add")).status_code == 403
    assert audit_verify().events == 1


def test_who_may_only_look_gets_no_actions(app: ClientApp) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create_user("bob", password="x", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client = Client()
    client.force_login(user)
    made = services.api_key_create(client_app=app, scopes=["ops"], name="b", actor="test")
    act(client, "apikey", "revoke", made.key)
    act(client, "apikey", "rotate", made.key)
    made.key.refresh_from_db()
    assert made.key.revoked_at is None
    assert ApiKey.objects.count() == 1
