"""Staff log in: password, lock-out, second factor, sessions that end, the password again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice

from engine.models import AuditEvent
from engine.staff import reauth, second_factor, sessions
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)

LOGIN, HOME, FACTOR = "/admin/login/", "/admin/campaign/campaign/", "/admin/second-factor/"


def code_of(device: TOTPDevice, *, steps: int = 0) -> str:
    """What the phone shows now, or `steps` half minutes later."""
    device.refresh_from_db()
    totp = TOTP(device.bin_key, device.step, device.t0, device.digits, device.drift)
    totp.time = time.time() + 30 * steps
    return f"{totp.token():06d}"


def with_phone(user: User) -> TOTPDevice:
    return TOTPDevice.objects.create(user=user, name="phone", confirmed=True)


def log_in(client: Client, name: str, password: str = stage.PASSWORD, code: str = "") -> Any:
    return client.post(LOGIN, {"username": name, "password": password, "code": code})


def inside(client: Client) -> bool:
    return client.get(HOME).status_code == 200


def english() -> Client:
    return Client(headers={"Accept-Language": "en"})


# --- lock-out


def test_five_wrong_passwords_lock_the_name_out_at_that_address_only() -> None:
    stage.member("operations", "ann")
    guesser = Client(REMOTE_ADDR="203.0.113.7", headers={"Accept-Language": "en"})
    for _ in range(5):
        log_in(guesser, "ann", "wrong")

    locked = log_in(guesser, "ann")

    assert locked.status_code == 429 and locked["Retry-After"] == "900"
    assert "Too many failed log-ins" in locked.content.decode()
    assert not inside(guesser)
    ann = Client(REMOTE_ADDR="198.51.100.4")  # a guesser elsewhere locks nobody out
    assert log_in(ann, "ann").status_code == 302 and inside(ann)


def test_a_right_password_forgets_the_wrong_ones_before_it() -> None:
    stage.member("operations", "ann")
    client = english()
    for _ in range(2):
        for _ in range(4):
            log_in(client, "ann", "wrong")
        assert log_in(client, "ann").status_code == 302


# --- the second factor


@pytest.mark.parametrize(
    ("group", "needed"),
    [
        ("operations", False),
        ("support", False),
        ("approver", True),
        ("finance", True),
        ("sre", True),
    ],
)
def test_who_needs_a_second_factor_sees_one_page_until_it_is_set_up(
    group: str, needed: bool
) -> None:
    user, client = stage.member(group), english()

    log_in(client, user.username)
    answer = client.get(HOME)

    if not needed:
        assert answer.status_code == 200
        return
    assert answer.status_code == 302 and answer["Location"].startswith(FACTOR)
    page = client.get(answer["Location"]).content.decode()
    device = TOTPDevice.objects.get(user=user)
    assert not device.confirmed and second_factor.secret_text(device) in page
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert client.post(FACTOR, {"code": "000000"}).status_code == 200 and not inside(client)
    TOTPDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)

    done = client.post(FACTOR, {"code": code_of(device), "next": HOME})

    assert done["Location"] == HOME and inside(client)
    assert AuditEvent.objects.filter(action="staff.second_factor").count() == 1


def test_a_superuser_needs_one_too() -> None:
    root = User.objects.create_superuser("root", password=stage.PASSWORD)
    client = Client()
    client.force_login(root)

    assert client.get("/admin/")["Location"].startswith(FACTOR)


def test_the_code_is_asked_for_at_the_log_in_and_works_once() -> None:
    bob = stage.member("approver", "bob")
    device, client = with_phone(bob), english()

    without = log_in(client, "bob")
    assert "Your code is missing" in without.content.decode() and not inside(client)
    wrong = log_in(client, "bob", code="123")
    assert "This code is wrong" in wrong.content.decode() and not inside(client)
    TOTPDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    code = code_of(device)
    assert log_in(client, "bob", code=code).status_code == 302 and inside(client)

    again = english()
    log_in(again, "bob", code=code)
    assert not inside(again)  # read over a shoulder, it is worth nothing
    TOTPDevice.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    log_in(again, "bob", code=code_of(device, steps=1))
    assert inside(again)


def test_whoever_has_set_one_up_is_asked_also_where_it_is_not_needed() -> None:
    ann = stage.member("operations", "ann")
    with_phone(ann)
    client = english()

    log_in(client, "ann")
    assert not inside(client)
    client.force_login(ann)  # a session that knows the password only
    assert client.get(HOME)["Location"].startswith(FACTOR)


def test_a_device_that_is_taken_away_holds_nobody_inside() -> None:
    bob = stage.member("approver", "bob")
    device, client = with_phone(bob), english()
    log_in(client, "bob", code=code_of(device))
    assert inside(client)

    device.delete()

    assert client.get(HOME)["Location"].startswith(FACTOR)


def test_the_page_leads_nowhere_outside() -> None:
    bob = stage.member("approver", "bob")
    device, client = with_phone(bob), english()
    client.force_login(bob)

    answer = client.post(FACTOR, {"code": code_of(device), "next": "https://evil.example/admin/"})

    assert answer["Location"] == "/admin/"


# --- sessions


def age(client: Client, name: str, by_s: int) -> None:
    session = client.session
    session[name] -= by_s
    session.save()


def test_half_an_hour_without_use_ends_a_session() -> None:
    stage.member("operations", "ann")
    client = english()
    log_in(client, "ann")
    age(client, sessions.SEEN, sessions.IDLE_S - 60)
    assert inside(client)  # and this was use
    age(client, sessions.SEEN, sessions.IDLE_S - 60)
    assert inside(client)

    age(client, sessions.SEEN, sessions.IDLE_S)

    answer = client.get(HOME)
    assert answer.status_code == 302 and answer["Location"].startswith(LOGIN)
    assert not inside(client)


def test_a_page_that_refreshes_itself_is_not_use() -> None:
    stage.member("operations", "ann")
    client = english()
    log_in(client, "ann")
    for _ in range(2):
        age(client, sessions.SEEN, sessions.IDLE_S // 2 + 1)
        answer = client.get(HOME, headers={"X-Background": "1"})

    assert answer.status_code == 302


def test_a_working_day_ends_a_session_however_busy_it_is() -> None:
    stage.member("operations", "ann")
    client = english()
    log_in(client, "ann")

    age(client, sessions.BEGAN, sessions.ABSOLUTE_S)

    assert not inside(client)


# --- the password again


def test_the_password_is_fresh_for_five_minutes() -> None:
    stage.member("operations", "ann")
    client = english()
    log_in(client, "ann")
    request = client.get(HOME).wsgi_request

    assert reauth.password_is_fresh(request)
    request.session[reauth.SESSION_KEY] -= reauth.FRESH_S
    assert not reauth.password_is_fresh(request)
    assert reauth.password_refusal(request, "wrong") == "This is not your password."
    assert not reauth.password_is_fresh(request)
    assert reauth.password_refusal(request, stage.PASSWORD) is None
    assert reauth.password_is_fresh(request)


def test_guessing_the_password_again_locks_out_like_a_log_in() -> None:
    stage.member("operations", "ann")
    client = english()
    log_in(client, "ann")
    for _ in range(5):
        reauth.password_refusal(client.get(HOME).wsgi_request, "wrong")

    said = reauth.password_refusal(client.get(HOME).wsgi_request, stage.PASSWORD)

    assert said == "Too many wrong passwords. Try again later."
