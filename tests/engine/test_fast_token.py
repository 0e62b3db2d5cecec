"""The edge's quick look at a token never says yes where the general verifier wouldn't."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.lib import fast_token
from engine.lib.auth import VerificationKey, sign_client_token, verify_client_token
from engine.lib.problem import ProblemError

NOW = dt.datetime(2027, 2, 6, 12, tzinfo=dt.UTC)
SECRET = b"0123456789abcdef0123456789abcdef"
KEY = VerificationKey("demo-1", 7, "HS256", SECRET)
GOOD = {"sub": "alice", "aud": "laisee", "exp": int(NOW.timestamp()) + 600}


def sign(claims: dict[str, Any], secret: bytes = SECRET, kid: str = "demo-1") -> str:
    return sign_client_token(kid=kid, alg="HS256", material=secret, claims=claims)


def quick(token: str) -> Any:
    if fast_token.kid_of(token) != KEY.kid:
        return None
    return fast_token.verify(token, KEY, NOW.timestamp())


def general(token: str) -> Any:
    try:
        return verify_client_token(token, {KEY.kid: KEY}, NOW)
    except ProblemError:
        return None


def test_it_works() -> None:
    token = sign({**GOOD, "dev": "d1", "grp": "family", "new": True, "acct": 12})
    caller = quick(token)
    assert caller == general(token)
    assert (caller.subject, caller.group, caller.is_new, caller.account_age_days) == (
        "alice",
        "family",
        True,
        12,
    )


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=140),
    st.sampled_from(["laisee", "alice", int(NOW.timestamp()) + 600, int(NOW.timestamp()) + 901]),
    st.lists(st.sampled_from(["laisee", "other"]), max_size=2),
)


@settings(max_examples=600, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["sub", "aud", "exp", "dev", "grp", "new", "acct", "iat", "nbf", "x"]),
        values,
        max_size=4,
    ),
    missing=st.sets(st.sampled_from(["sub", "aud", "exp"]), max_size=1),
)
@example(changes={"nbf": int(NOW.timestamp()) + 3600}, missing=set())
@example(changes={"iat": int(NOW.timestamp()) + 3600}, missing=set())
@example(changes={"exp": int(NOW.timestamp())}, missing=set())
@example(changes={"sub": "a\0b"}, missing=set())
@example(changes={"acct": True}, missing=set())
def test_a_yes_is_the_general_verifiers_yes(changes: dict[str, Any], missing: set[str]) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if name not in missing}
    token = sign(claims)
    caller = quick(token)
    if caller is not None:
        assert caller == general(token)


def segments(token: str) -> list[str]:
    return token.split(".")


def encoded(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: t[:-2],
        lambda t: t + "A",
        lambda t: ".".join([*segments(t)[:2], ""]),
        lambda t: ".".join([segments(t)[0], encoded({**GOOD, "sub": "bob"}), segments(t)[2]]),
        lambda t: ".".join([encoded({"alg": "none", "kid": "demo-1"}), *segments(t)[1:]]),
        lambda t: ".".join([encoded({"alg": "HS512", "kid": "demo-1"}), *segments(t)[1:]]),
        lambda t: ".".join([encoded({"alg": "HS256", "kid": "demo-2"}), *segments(t)[1:]]),
        lambda t: ".".join(
            [encoded({"alg": "HS256", "kid": "demo-1", "crit": ["exp"]}), *segments(t)[1:]]
        ),
        lambda t: t.replace(".", "..", 1),
        lambda t: "é" + t,
        lambda t: t + "." + "A" * 5000,
        lambda _: sign(GOOD, secret=b"f" * 32),
        lambda _: "",
        lambda _: "..",
    ],
)
def test_forgeries(forge: Any) -> None:
    assert quick(forge(sign(GOOD))) is None


def test_a_key_of_another_kind_is_left_to_the_general_verifier() -> None:
    key = VerificationKey("demo-1", 7, "EdDSA", SECRET)
    assert fast_token.verify(sign(GOOD), key, NOW.timestamp()) is None
