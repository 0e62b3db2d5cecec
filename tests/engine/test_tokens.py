"""Client tokens and API keys: who is let in, as whom, and for how long."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.db import OperationalError
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from engine import services
from engine.lib import auth, clock
from engine.lib.auth import VerificationKey, key_ring, verify_client_token
from engine.lib.errors import ServiceError
from engine.lib.ids import participant_digest
from engine.lib.problem import ProblemError
from engine.models import ApiKey, AuditEvent, ClientApp, ClientKey
from tests.engine.test_problem import problem

pytestmark = [pytest.mark.urls("tests.engine.views")]

NOW = dt.datetime(2027, 2, 5, 12, tzinfo=dt.UTC)
SECRET = b"s" * 32
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
PUBLIC_PEM = (
    PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)
KEYS = {
    "hs": VerificationKey("hs", 1, "HS256", SECRET),
    "ed": VerificationKey("ed", 2, "EdDSA", PRIVATE.public_key()),
}


def claims(**changes: Any) -> dict[str, Any]:
    made = {"sub": "alice", "aud": "laisee", "exp": int(NOW.timestamp()) + 600} | changes
    return {name: value for name, value in made.items() if value is not ...}


def token(kid: Any = "hs", alg: str = "HS256", key: Any = SECRET, **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**changes), key, algorithm=alg, headers=headers)


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def refused(text: str, keys: dict[str, VerificationKey] = KEYS) -> str:
    with pytest.raises(ProblemError) as caught:
        verify_client_token(text, keys, NOW)
    assert caught.value.status == 401
    assert caught.value.code == "invalid_token"
    assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm="laisee"')
    return caught.value.detail


def test_alice_is_known_by_app_and_subject() -> None:
    caller = verify_client_token(
        token(dev="d1", grp="family", new=True, acct=30, extra="ignored"), KEYS, NOW
    )
    assert caller == auth.Caller(
        client_app_id=1,
        subject="alice",
        participant=participant_digest(1, "alice"),
        device="d1",
        group="family",
        is_new=True,
        account_age_days=30,
    )
    assert caller.is_authenticated
    bare = verify_client_token(token(), KEYS, NOW)
    assert (bare.device, bare.group, bare.is_new, bare.account_age_days) == ("", "", None, None)


def test_eddsa_works_with_the_public_half() -> None:
    caller = verify_client_token(token("ed", "EdDSA", PRIVATE), KEYS, NOW)
    assert (caller.client_app_id, caller.subject) == (2, "alice")


def test_the_same_user_id_in_two_apps_is_two_people() -> None:
    """Finding 10: an app's key can only ever name that app's users."""
    of_one = verify_client_token(token(sub="1001"), KEYS, NOW)
    of_two = verify_client_token(token("ed", "EdDSA", PRIVATE, sub="1001"), KEYS, NOW)
    assert of_one.participant != of_two.participant
    assert of_one.principal != of_two.principal
    # Whatever an app writes into its token, the app is the key's.
    claimed = verify_client_token(token(sub="1001", app=2, client_app_id=2, iss="2"), KEYS, NOW)
    assert claimed.participant == of_one.participant


@pytest.mark.control
def test_without_the_app_in_the_digest_they_would_be_one_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "participant_digest", lambda _app, subject: subject.encode()[:16])
    of_one = verify_client_token(token(sub="1001"), KEYS, NOW)
    of_two = verify_client_token(token("ed", "EdDSA", PRIVATE, sub="1001"), KEYS, NOW)
    assert of_one.participant == of_two.participant


@pytest.mark.parametrize("subject", ["a", "x" * 128, "用户 ①", "a/b:c{d}"])
def test_subjects_that_pass(subject: str) -> None:
    assert verify_client_token(token(sub=subject), KEYS, NOW).subject == subject


@pytest.mark.parametrize(
    "subject", ["", "x" * 129, "a\0b", "a\nb", "a\u200bb", 1001, None, ["a"], ...]
)
def test_subjects_that_do_not(subject: Any) -> None:
    refused(raw_token(claims(sub=subject)))


def raw_token(payload: Any, header: Any = None, secret: bytes = SECRET) -> str:
    """A correctly signed HS256 token of anything, past what a JWT library would encode."""
    head = {"alg": "HS256", "typ": "JWT", "kid": "hs"} if header is None else header
    signed = f"{part(head)}.{part(payload)}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def test_raw_tokens_are_good_tokens() -> None:
    """The control of the tests below: only what they change makes the difference."""
    assert verify_client_token(raw_token(claims()), KEYS, NOW).subject == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": ...},
        {"aud": None},
        {"aud": ["a", "b"]},
        {"exp": ...},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 1e400},
        {"exp": int(NOW.timestamp())},
        {"exp": int(NOW.timestamp()) - 1},
        {"exp": int(NOW.timestamp()) + 900 + 31},
        {"nbf": int(NOW.timestamp()) + 31},
        {"nbf": "now"},
        {"dev": "x" * 129},
        {"dev": ""},
        {"dev": 5},
        {"grp": "x" * 129},
        {"grp": "a\nb"},
        {"new": "yes"},
        {"new": 1},
        {"acct": -1},
        {"acct": 1.5},
        {"acct": "30"},
        {"acct": True},
        {"acct": 10**30},
    ],
)
def test_claims_that_are_off(changes: dict[str, Any]) -> None:
    refused(raw_token(claims(**changes)))


def test_times_at_their_edges() -> None:
    moment = int(NOW.timestamp())
    for exp in (moment + 1, moment + 900, moment + 930, moment + 0.5):
        assert verify_client_token(raw_token(claims(exp=exp)), KEYS, NOW).subject == "alice"
    assert verify_client_token(token(nbf=moment + 30), KEYS, NOW).subject == "alice"
    assert verify_client_token(token(aud=["laisee", "other"]), KEYS, NOW).subject == "alice"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.b.c",
        "x" * 5000,
        "é.é.é",
        f"{part(b'[]')}.{part(claims())}.x",
        f"{part({'alg': 'none', 'kid': 'hs'})}.{part(claims())}.",
        f"{part({'alg': 'none'})}.{part(claims())}.",
        f"{part({'alg': 'HS256', 'kid': 7})}.{part(claims())}.x",
        f"{part(b'[' * 3000)}.x.y",
    ],
)
def test_things_that_are_no_token(text: str) -> None:
    refused(text)


def test_forgeries() -> None:
    refused(token(key=b"t" * 32))  # another secret
    refused(token(kid="nobody"))
    refused(token(kid=None))
    head, _, signature = token().split(".")
    refused(f"{head}.{part(claims(sub='bob'))}.{signature}")  # another's name under this signature
    refused(raw_token([]))
    refused(raw_token(b"not json"))
    # HS512 with the right secret: the key says HS256.
    refused(token(alg="HS512", key=SECRET * 2))
    # The classic: HS256 "signed" with the public key of an EdDSA key.
    forged_head = {"alg": "HS256", "kid": "ed"}
    refused(raw_token(claims(), forged_head, PUBLIC_PEM.encode()))
    # And the other way round.
    refused(token("hs", "EdDSA", PRIVATE))
    # Critical header extensions that we do not understand must be refused (RFC 7515).
    refused(raw_token(claims(), {"alg": "HS256", "kid": "hs", "crit": ["x"], "x": 1}))


@given(st.text(max_size=80) | st.binary(max_size=80).map(part))
def test_no_text_makes_anything_but_a_401(text: str) -> None:
    refused(text)
    refused(f"{part({'alg': 'HS256', 'kid': 'hs'})}.{text}.{text}")


# --- over HTTP, with keys in Postgres -------------------------------------------------------------


def app_with_key(slug: str = "demo") -> tuple[ClientApp, services.NewClientKey]:
    app = services.client_app_create(slug=slug, name=slug, actor="test")
    return app, services.client_key_create(client_app=app, actor="test")


def who(client: Client, text: str) -> Any:
    return client.get("/api/v1/who", headers={"Authorization": f"Bearer {text}"})


@pytest.mark.django_db
def test_a_minted_token_is_let_in(client: Client) -> None:
    app, _ = app_with_key()
    text = services.mint_client_token(client_app_id=app.pk, subject="alice", ttl_s=60)
    assert who(client, text).json() == {"subject": "alice", "app": app.pk}
    assert (
        client.get("/api/v1/who/", headers={"Authorization": f"bearer {text}"}).status_code == 200
    )


@pytest.mark.django_db
def test_without_a_token(client: Client) -> None:
    response = client.get("/api/v1/who")
    problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == 'Bearer realm="laisee"'
    problem(
        client.get("/api/v1/who", headers={"Authorization": "Basic YTpi"}), 401, "not_authenticated"
    )
    response = who(client, "nonsense")
    problem(response, 401, "invalid_token")
    assert response["WWW-Authenticate"] == 'Bearer realm="laisee", error="invalid_token"'


@pytest.mark.django_db
def test_a_revoked_key_or_an_inactive_app_is_refused_at_once_in_this_process(
    client: Client,
) -> None:
    app, made = app_with_key()
    text = services.mint_client_token(client_app_id=app.pk, subject="alice")
    assert services.client_app_set_active(client_app=app, active=False, actor="test")
    problem(who(client, text), 401, "invalid_token")
    assert services.client_app_set_active(client_app=app, active=True, actor="test")
    assert who(client, text).status_code == 200
    assert services.client_key_revoke(key=made.key, actor="test", reason="leaked")
    problem(who(client, text), 401, "invalid_token")
    assert not services.client_key_revoke(key=made.key, actor="test")


@pytest.mark.django_db
def test_rotation_refuses_nobody(client: Client) -> None:
    app, old = app_with_key()
    before = services.mint_client_token(client_app_id=app.pk, subject="alice")
    new = services.client_key_rotate(key=old.key, actor="test")
    after = services.mint_client_token(client_app_id=app.pk, subject="alice")
    assert jwt.get_unverified_header(after)["kid"] == new.key.kid
    assert who(client, before).status_code == who(client, after).status_code == 200


@pytest.mark.django_db
def test_an_app_with_an_eddsa_key(client: Client) -> None:
    app = services.client_app_create(slug="ed", name="Ed", actor="test")
    made = services.client_key_create(client_app=app, actor="test", public_key=PUBLIC_PEM)
    assert (made.secret, made.key.alg, made.key.secret_encrypted) == ("", "EdDSA", "")
    text = auth.sign_client_token(
        kid=made.key.kid,
        alg="EdDSA",
        material=PRIVATE,
        claims=claims(exp=int(clock.now().timestamp()) + 60),
    )
    assert who(client, text).json()["subject"] == "alice"
    with pytest.raises(ServiceError, match="no HS256 key"):
        services.mint_client_token(client_app_id=app.pk, subject="alice")
    with pytest.raises(ServiceError, match="uploading"):
        services.client_key_rotate(key=made.key, actor="test")


@pytest.mark.django_db
def test_keys_cost_no_look_up_and_unknown_ones_few(
    client: Client, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, made = app_with_key()
    text = services.mint_client_token(client_app_id=app.pk, subject="alice")
    assert who(client, text).status_code == 200
    with django_assert_num_queries(0):
        assert who(client, text).status_code == 200
    reads = []

    def read() -> dict[str, VerificationKey]:
        reads.append(1)
        return {}

    monkeypatch.setattr(auth, "keys_load", read)
    clock_s = [100.0]
    monkeypatch.setattr("engine.lib.auth.time.monotonic", lambda: clock_s[0])
    key_ring._read_at = 100.0
    for number in range(100):
        problem(who(client, token(kid=f"forged{number}")), 401, "invalid_token")
    assert len(reads) == auth.UNKNOWN_KID_RELOADS_PER_S
    key_ring.forget()
    assert made.key.kid


@pytest.mark.django_db
def test_keys_are_read_again_after_a_few_seconds_and_kept_while_postgres_is_down(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, made = app_with_key()
    text = services.mint_client_token(client_app_id=app.pk, subject="alice")
    assert who(client, text).status_code == 200
    # Another process revokes the key: this one hears of it when its copy is too old.
    ClientKey.objects.filter(pk=made.key.pk).update(revoked_at=clock.now())
    assert who(client, text).status_code == 200
    key_ring._read_at -= auth.KEYS_MAX_AGE_S + 1
    with monkeypatch.context() as patch:

        def down() -> Any:
            raise OperationalError("down")

        patch.setattr(auth, "keys_load", down)
        assert who(client, text).status_code == 200
    key_ring._read_at -= auth.KEYS_MAX_AGE_S + 1
    problem(who(client, text), 401, "invalid_token")


@pytest.mark.django_db
def test_one_unreadable_key_locks_out_nobody_else(client: Client) -> None:
    app, _ = app_with_key()
    broken = services.client_key_create(client_app=app, actor="test", kid="broken")
    ClientKey.objects.filter(pk=broken.key.pk).update(
        secret_encrypted="gone:x", created_at=NOW - dt.timedelta(days=900)
    )
    key_ring.forget()
    text = services.mint_client_token(client_app_id=app.pk, subject="alice")
    assert who(client, text).status_code == 200
    problem(who(client, token(kid="broken")), 401, "invalid_token")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"subject": ""}, "user"),
        ({"subject": "x" * 129}, "user"),
        ({"device": "x" * 129}, "device"),
        ({"group": "a\nb"}, "group"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"ttl_s": 901}, "ttl_s"),
        ({"account_age_days": -1}, "account_age_days"),
        ({"client_app_id": 0}, "client_app"),
    ],
)
def test_mint_refuses(arguments: dict[str, Any], field: str) -> None:
    app, _ = app_with_key()
    with pytest.raises(ServiceError) as caught:
        mint: Any = services.mint_client_token
        mint(**{"client_app_id": app.pk, "subject": "alice"} | arguments)
    assert caught.value.field == field


@pytest.mark.django_db
def test_minting_says_everything_that_it_was_told() -> None:
    app, made = app_with_key()
    text = services.mint_client_token(
        client_app_id=app.pk,
        subject="alice",
        device="d",
        group="g",
        is_new=False,
        account_age_days=0,
        ttl_s=900,
        now=NOW,
    )
    caller = verify_client_token(
        text,
        {made.key.kid: VerificationKey(made.key.kid, app.pk, "HS256", made.secret.encode())},
        NOW,
    )
    assert (caller.device, caller.group, caller.is_new, caller.account_age_days) == (
        "d",
        "g",
        False,
        0,
    )


# --- API keys -------------------------------------------------------------------------------------


def ops(client: Client, key: str) -> Any:
    return client.get("/api/v1/ops", headers={"Authorization": f"Api-Key {key}"})


@pytest.mark.django_db
def test_an_api_key_with_the_scope_is_let_in(client: Client) -> None:
    app, _ = app_with_key()
    made = services.api_key_create(client_app=app, scopes=["ops"], name="ops", actor="test")
    assert ops(client, made.secret).json() == {"app": app.pk}
    row = ApiKey.objects.get()
    assert made.secret not in (row.hash, row.prefix)
    assert row.hash == hashlib.sha256(made.secret.encode()).hexdigest()
    assert row.last_used_at is not None
    last = row.last_used_at
    assert ops(client, made.secret).status_code == 200
    assert ApiKey.objects.get().last_used_at == last


@pytest.mark.django_db
def test_api_keys_that_are_refused(client: Client) -> None:
    app, _ = app_with_key()
    made = services.api_key_create(client_app=app, scopes=["ops"], name="ops", actor="test")
    response = client.get("/api/v1/ops")
    problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == 'Api-Key realm="laisee"'
    for wrong in (
        "",
        "x",
        "laisee__",
        "laisee_\0_x",
        made.secret[:-1],
        made.secret[:-1] + "é",
        "a_b_c",
    ):
        problem(ops(client, wrong), 401, "invalid_api_key")
    other = services.api_key_create(client_app=app, scopes=["tokens"], name="t", actor="test")
    problem(ops(client, other.secret), 403, "missing_scope")
    # A participant is no back end.
    text = services.mint_client_token(client_app_id=app.pk, subject="alice")
    problem(
        client.get("/api/v1/ops", headers={"Authorization": f"Bearer {text}"}),
        401,
        "not_authenticated",
    )
    ApiKey.objects.filter(pk=made.key.pk).update(expires_at=clock.now() - dt.timedelta(seconds=1))
    problem(ops(client, made.secret), 401, "invalid_api_key")
    ApiKey.objects.filter(pk=made.key.pk).update(expires_at=None)
    services.client_app_set_active(client_app=app, active=False, actor="test")
    problem(ops(client, made.secret), 401, "invalid_api_key")


@pytest.mark.django_db
def test_an_api_key_is_rotated_with_a_grace_period_and_revoked_without(client: Client) -> None:
    app, _ = app_with_key()
    old = services.api_key_create(client_app=app, scopes=["ops"], name="ops", actor="test")
    new = services.api_key_rotate(key=old.key, actor="test")
    assert ops(client, old.secret).status_code == ops(client, new.secret).status_code == 200
    ends = ApiKey.objects.get(pk=old.key.pk).expires_at
    assert ends is not None
    assert dt.timedelta(hours=23) < ends - clock.now() <= dt.timedelta(hours=24)
    assert services.api_key_revoke(key=new.key, actor="test")
    problem(ops(client, new.secret), 401, "invalid_api_key")
    assert not services.api_key_revoke(key=new.key, actor="test")
    new.key.refresh_from_db()
    with pytest.raises(ServiceError, match="revoked"):
        services.api_key_rotate(key=new.key, actor="test")


@pytest.mark.django_db
def test_refused_keys_change_nothing() -> None:
    app, made = app_with_key()
    events = AuditEvent.objects.count()
    with pytest.raises(ServiceError, match="scopes"):
        services.api_key_create(client_app=app, scopes=["root"], name="x", actor="test")
    with pytest.raises(ServiceError, match="scopes"):
        services.api_key_create(client_app=app, scopes=[], name="x", actor="test")
    with pytest.raises(ServiceError, match="already"):
        services.client_key_create(client_app=app, actor="test", kid=made.key.kid)
    with pytest.raises(ServiceError, match="secret"):
        services.client_key_create(client_app=app, actor="test", secret="short")
    with pytest.raises(ServiceError, match="Ed25519"):
        services.client_key_create(client_app=app, actor="test", public_key="-----BEGIN")
    with pytest.raises(ServiceError, match="already"):
        services.client_app_create(slug="demo", name="again", actor="test")
    assert (ApiKey.objects.count(), ClientKey.objects.count()) == (0, 1)
    assert AuditEvent.objects.count() == events


@pytest.mark.django_db
def test_secrets_are_neither_in_the_rows_nor_in_the_audit_log() -> None:
    app, made = app_with_key()
    key = services.api_key_create(client_app=app, scopes=["ops"], name="ops", actor="staff:ann")
    written = repr(list(AuditEvent.objects.values())) + repr(
        [*ClientKey.objects.values(), *ApiKey.objects.values()]
    )
    assert made.secret not in written
    assert key.secret.split("_")[2] not in written
    actions = list(AuditEvent.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["client_app.create", "client_key.create", "api_key.create"]
