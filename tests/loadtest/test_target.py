"""Where the crowd goes, and with which token."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest

from loadtest.target import TOKEN_TTL_S, TargetProblem, find_target, mint_token

SECRET = "a-secret-of-the-demo-app-that-is-long-enough"


def running(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "env").write_text(
        "# written by the launcher\n"
        "BASE_URL=http://127.0.0.1:8000\nEDGE_URL=http://127.0.0.1:8001\n"
        "DATABASE_URL=postgres://a:b=c@127.0.0.1/x\n"
    )
    return {"DATA_DIR": str(tmp_path)}


def test_the_running_copy_is_found(tmp_path: Path) -> None:
    environment = running(tmp_path)
    assert find_target(environment).base_url == "http://127.0.0.1:8000"
    assert find_target({**environment, "DOOR": "edge"}).base_url == "http://127.0.0.1:8001"


def test_host_wins_over_the_running_copy(tmp_path: Path) -> None:
    environment = {**running(tmp_path), "HOST": "https://laisee.example/"}
    assert find_target(environment).base_url == "https://laisee.example"


def test_when_nothing_runs_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TargetProblem, match="make run"):
        find_target({"DATA_DIR": str(tmp_path)})


def test_a_token_carries_what_the_contract_asks() -> None:
    token = mint_token(user="alice", kid="demo-1", secret=SECRET, now_s=1_700_000_000.9)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": "demo-1"}
    claims = jwt.decode(
        token, SECRET, algorithms=["HS256"], audience="laisee", options={"verify_exp": False}
    )
    assert claims == {
        "sub": "alice",
        "aud": "laisee",
        "iat": 1_700_000_000,
        "exp": 1_700_000_000 + TOKEN_TTL_S,
    }
    assert TOKEN_TTL_S <= 900
