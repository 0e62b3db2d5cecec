"""Who is let in: client tokens and API keys, right and wrong."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.lib import auth, clock
from engine.models import ApiKey, ClientApp
from engine.services import client_key_create, client_key_revoke
from packets.models import Account, Claim, Lane, Transfer
from tests.api.doors import JSON, Door, Visitor
from tests.campaign import stage

pytestmark = pytest.mark.django_db(transaction=True)
Visit = Callable[..., Visitor]

NOW = clock.now
CLIENT_ROUTES = [
    ("GET", "/campaigns"),
    ("GET", "/campaigns/{slug}"),
    ("POST", "/packets"),
    ("GET", "/packets/{packet}"),
    ("POST", "/packets/{packet}/claims"),
    ("GET", "/packets/{packet}/proof"),
    ("GET", "/me/claims"),
    ("GET", "/me/wallet"),
    ("GET", "/me/wallet/transfers"),
    ("GET", "/me/holds"),
    ("POST", "/me/holds/{hold}/appeal"),
    ("POST", "/me/withdrawals"),
    ("GET", "/me/withdrawals"),
    ("GET", "/me/withdrawals/{packet}"),
    ("POST", "/me/withdrawals/{packet}/cancel"),
]
SERVER_ROUTES = [("POST", "/server/tokens"), ("GET", "/ops/invariants")]


@pytest.fixture
def places(app: ClientApp) -> dict[str, str]:
    campaign = stage.live(app)
    return {
        "slug": campaign.slug,
        "packet": stage.first_packet(campaign).public_id,
        "hold": "0" * 32,
    }


def secret_of(app: ClientApp) -> tuple[str, Any]:
    key = app.keys.first()
    assert key is not None
    return key.kid, auth.keys_load()[key.kid].material


def b64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def wrong_tokens(app: ClientApp) -> dict[str, str]:
    """One token per way of being wrong."""
    kid, secret = secret_of(app)
    other_kid, other_secret = secret_of(stage.make_app())
    now = int(NOW().timestamp())
    claims = {"sub": "alice", "aud": "laisee", "exp": now + 300}
    pem = Ed25519PrivateKey.generate()
    public = pem.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    client_key_create(client_app=app, actor="t", kid="ed", public_key=public.decode())
    revoked = client_key_create(client_app=app, actor="t", kid="revoked", secret="s" * 40)
    client_key_revoke(key=revoked.key, actor="t")

    def sign(body: dict[str, Any], key: Any = secret, named: str | None = kid) -> str:
        return jwt.encode(body, key, "HS256", headers={"kid": named} if named else None)

    return {
        "empty": "",
        "nonsense": "nonsense",
        "three dots": "a.b.c",
        "too long": "x" * 5000,
        "unsigned": f"{b64({'alg': 'none', 'kid': kid})}.{b64(claims)}.",
        "unsigned, alg HS256": f"{b64({'alg': 'HS256', 'kid': kid})}.{b64(claims)}.",
        "wrongly signed": sign(claims, "w" * 40),
        "signature cut": sign(claims)[:-4],
        "no kid": sign(claims, named=None),
        "unknown kid": sign(claims, named="nobody"),
        "another app's key under our kid": sign(claims, other_secret),
        "our key under another app's kid": sign(claims, secret, other_kid),
        "revoked key": sign(claims, "s" * 40, "revoked"),
        "public key as HMAC secret": _confused(public, claims),
        "expired": sign({**claims, "exp": now - 1}),
        "expires now": sign({**claims, "exp": now}),
        "too far ahead": sign({**claims, "exp": now + 3600}),
        "no exp": sign({"sub": "alice", "aud": "laisee"}),
        "exp as text": sign({**claims, "exp": "soon"}),
        "not valid yet": sign({**claims, "nbf": now + 120}),
        "foreign audience": sign({**claims, "aud": "other"}),
        "no audience": sign({"sub": "alice", "exp": now + 300}),
        "no sub": sign({"aud": "laisee", "exp": now + 300}),
        "empty sub": sign({**claims, "sub": ""}),
        "long sub": sign({**claims, "sub": "x" * 129}),
        "sub with NUL": sign({**claims, "sub": "a\0b"}),
        "sub with half a pair": sign({**claims, "sub": "\ud800"}),
        "sub as number": sign({**claims, "sub": 7}),
        "new as text": sign({**claims, "new": "yes"}),
        "negative age": sign({**claims, "acct": -1}),
        "age as float": sign({**claims, "acct": 1.5}),
        "long group": sign({**claims, "grp": "g" * 129}),
    }


def _confused(public_pem: bytes, claims: dict[str, Any]) -> str:
    """HS256 with the public key as the secret: the classic confusion of algorithms."""
    import hashlib
    import hmac

    head = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': 'ed'})}.{b64(claims)}"
    tag = hmac.new(public_pem, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(tag).decode().rstrip('=')}"


def rows() -> tuple[Any, ...]:
    return (
        Claim.objects.count(),
        list(Lane.objects.values("id", "claimed_count", "epoch")),
        list(Account.objects.order_by("id").values()),
        Transfer.objects.count(),
    )


def test_every_wrong_token_is_a_401_and_changes_nothing(
    door: Door, app: ClientApp, places: dict[str, str]
) -> None:
    before = rows()
    for name, token in wrong_tokens(app).items():
        for method, path in CLIENT_ROUTES[2:5]:
            answer = Visitor(door, f"Bearer {token}").send(
                method, path.format(**places), headers=JSON
            )
            assert (answer.status, answer.code) in (
                (401, "invalid_token"),
                (401, "not_authenticated"),
            ), name
            assert answer.headers["WWW-Authenticate"].startswith("Bearer"), name
    assert rows() == before


@pytest.mark.parametrize(("method", "path"), CLIENT_ROUTES)
def test_every_client_route_asks_for_a_client_token(
    door: Door, app: ClientApp, places: dict[str, str], method: str, path: str
) -> None:
    path = path.format(**places)
    key = stage.api_key(app, "tokens", "events", "tickets", "ops")
    for authorization in (None, "Basic YTpi", f"Api-Key {key}", "Bearer", f"Bearer {key}"):
        answer = Visitor(door, authorization).send(method, path, headers=JSON)
        assert answer.status == 401, authorization
        assert answer.code in ("not_authenticated", "invalid_token")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), SERVER_ROUTES)
def test_every_server_route_asks_for_a_key_with_its_scope(
    door: Door, app: ClientApp, visit: Visit, method: str, path: str
) -> None:
    expired = stage.api_key(app, "tokens", "ops")
    ApiKey.objects.update(expires_at=NOW() - dt.timedelta(seconds=1))
    revoked = stage.api_key(app, "tokens", "ops")
    ApiKey.objects.filter(expires_at=None).update(revoked_at=NOW())
    genuine = stage.api_key(app, "tokens", "ops")
    wrong = [None, "Api-Key", "Api-Key nonsense", f"Api-Key {genuine[:-1]}x", f"Bearer {genuine}"]
    wrong += [f"Api-Key {expired}", f"Api-Key {revoked}", visit("alice").authorization]

    for authorization in wrong:
        answer = Visitor(door, authorization).send(method, path, b"{}", headers=JSON)
        assert answer.status == 401, authorization
        assert answer.code in ("not_authenticated", "invalid_api_key")
        assert answer.headers["WWW-Authenticate"].startswith("Api-Key")


def test_a_scope_that_is_missing_is_a_403(server: Callable[..., Visitor]) -> None:
    tokens, ops = server("tokens", "events", "tickets"), server("ops")

    assert tokens.get("/ops/invariants").code == "missing_scope"
    assert ops.post("/server/tokens", {"user": "alice"}).code == "missing_scope"
    assert ops.get("/ops/invariants").status == 200
    assert tokens.post("/server/tokens", {"user": "alice"}).status == 200


def test_a_minted_token_lets_its_person_in(
    door: Door, server: Callable[..., Visitor], places: dict[str, str]
) -> None:
    minted = server("tokens").post(
        "/server/tokens", {"user": "alice", "device": "d1", "new": True, "ttl_s": 60}
    )
    alice = Visitor(door, f"Bearer {minted.json['token']}")

    assert minted.headers["Cache-Control"] == "no-store"
    assert alice.post(f"/packets/{places['packet']}/claims").json["result"] == "won"
    claims = jwt.decode(minted.json["token"], options={"verify_signature": False})
    assert (claims["sub"], claims["dev"], claims["new"]) == ("alice", "d1", True)
    assert 50 <= claims["exp"] - NOW().timestamp() <= 60


def test_an_app_mints_for_its_own_people_only(
    door: Door, app: ClientApp, server: Callable[..., Visitor], places: dict[str, str]
) -> None:
    """The same name through another app is another person, and not meant by this packet."""
    other = Visitor(door, f"Api-Key {stage.api_key(stage.make_app(), 'tokens')}")
    token = other.post("/server/tokens", {"user": "alice"}).json["token"]

    answer = Visitor(door, f"Bearer {token}").post(f"/packets/{places['packet']}/claims")

    assert answer.json["reason"] == "not_targeted"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, ("/user", "required")),
        ({"user": ""}, ("/user", "wrong_length")),
        ({"user": "x" * 129}, ("/user", "wrong_length")),
        ({"user": "a\nb"}, ("/user", "format")),
        ({"user": 7}, ("/user", "wrong_type")),
        ({"user": "a", "ttl_s": 0}, ("/ttl_s", "out_of_range")),
        ({"user": "a", "ttl_s": 901}, ("/ttl_s", "out_of_range")),
        ({"user": "a", "ttl_s": 1.5}, ("/ttl_s", "wrong_type")),
        ({"user": "a", "ttl_s": "60"}, ("/ttl_s", "wrong_type")),
        ({"user": "a", "new": 1}, ("/new", "wrong_type")),
        ({"user": "a", "admin": True}, ("/admin", "unknown_field")),
    ],
)
def test_what_cannot_be_minted(
    server: Callable[..., Visitor], body: dict[str, Any], error: tuple[str, str]
) -> None:
    answer = server("tokens").post("/server/tokens", body)
    assert (answer.status, answer.code, answer.pointers) == (422, "invalid", [error])


def test_the_invariants_say_what_they_checked(server: Callable[..., Visitor]) -> None:
    answer = server("ops").get("/ops/invariants")

    assert answer.status == 200 and answer.json["holds"] is True
    assert {check["holds"] for check in answer.json["checks"]} == {True}
    assert {check["value"] for check in answer.json["checks"]} == {0}
    assert len(answer.json["checks"]) >= 25


def test_a_broken_invariant_is_a_500_with_the_report(
    server: Callable[..., Visitor], app: ClientApp, visit: Visit, superuser_dsn: str
) -> None:
    import psycopg

    packet = stage.first_packet(stage.live(app))
    visit("alice").post(f"/packets/{packet.public_id}/claims")
    with psycopg.connect(superuser_dsn) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("UPDATE packets_lane SET claimed_fen = claimed_fen + 1")

    answer = server("ops").get("/ops/invariants")

    assert answer.status == 500 and answer.json["holds"] is False
    broken = [check["name"] for check in answer.json["checks"] if not check["holds"]]
    assert "lane_counters" in broken
