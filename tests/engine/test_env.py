"""Configuration is read strictly: what can't be meant stops the process and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.lib.env import Env, EnvironmentProblem, read_env_file


def test_the_order_of_sources(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    fallback = {"X": "fallback"}
    assert Env({"X": "given", "X_FILE": str(secret)}, fallback).text("X") == "given"
    assert Env({"X_FILE": str(secret)}, fallback).text("X") == "from a file"
    assert Env({}, fallback).text("X", "default") == "fallback"
    assert Env({}).text("X", "default") == "default"


@pytest.mark.parametrize(
    ("values", "read", "message"),
    [
        ({}, lambda env: env.text("X"), "X is not set"),
        ({"X": "true"}, lambda env: env.boolean("X", False), "X must be True or False"),
        ({"X": "1"}, lambda env: env.boolean("X", False), "X must be True or False"),
        ({"X": "x"}, lambda env: env.integer("X", 1, low=0, high=9), "whole number"),
        ({"X": "1.0"}, lambda env: env.integer("X", 1, low=0, high=9), "whole number"),
        ({"X": "10"}, lambda env: env.integer("X", 1, low=0, high=9), "0..9"),
        ({"X": "-1"}, lambda env: env.integer("X", 1, low=0, high=9), "0..9"),
        ({"X": "c"}, lambda env: env.choice("X", "a", ("a", "b")), "one of a, b"),
        ({"X_FILE": "/nonexistent"}, lambda env: env.text("X", "default"), "not a file"),
    ],
)
def test_what_can_not_be_meant(values: dict[str, str], read: Any, message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=message):
        read(Env(values))


def test_what_is_meant() -> None:
    env = Env({"B": "True", "I": "7", "W": " a, b ,,c", "C": "b", "E": ""})
    assert env.boolean("B", False) is True
    assert env.integer("I", 1, low=0, high=9) == 7
    assert env.words("W", []) == ["a", "b", "c"]
    assert env.words("E", ["default"]) == []
    assert env.choice("C", "a", ("a", "b")) == "b"


def test_the_file_of_a_running_copy(tmp_path: Path) -> None:
    file = tmp_path / "env"
    assert read_env_file(file) == {}
    file.write_text("# a comment\n\nA=1\nB = x=y \n")
    assert read_env_file(file) == {"A": "1", "B": "x=y"}
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(EnvironmentProblem, match="line 2"):
        read_env_file(file)


def settings_say(**changes: str | None) -> str:
    """What a process says that only reads the settings, with these changes of its environment."""
    environment = {**os.environ, "DATA_DIR": "/nonexistent"}
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    code = "import engine.settings as s; print('BROKER', s.BROKER_URL, s.ROOT_URLCONF)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY is not set"),
        ({"DATABASE_URL": None}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "sqlite:///x"}, "must begin with postgres://"),
        ({"DEBUG": "yes"}, "DEBUG must be True or False"),
        ({"PORT": "0"}, "PORT must lie in 1..65535"),
        ({"TRUSTED_PROXIES": "-1"}, "TRUSTED_PROXIES must lie in 0..8"),
        ({"LAISEE_DOOR": "back"}, "LAISEE_DOOR must be one of web, edge"),
        ({"LAISEE_DOOR": "edge"}, "engine.edge_urls"),
        (
            {"REDIS_URL": "redis://h:1/0", "BROKER_URL": None},
            "BROKER redis://h:1/1 engine.urls",
        ),
    ],
)
def test_the_settings_refuse_or_take(changes: dict[str, str | None], said: str) -> None:
    assert said in settings_say(**changes)


@pytest.mark.parametrize(
    "elsewhere", [{"ENVIRONMENT": "production"}, {"ALLOWED_HOSTS": "red.example"}]
)
def test_the_demos_app_starts_nowhere_but_on_ones_own_machine(elsewhere: dict[str, str]) -> None:
    command = [sys.executable, "-c", "import engine.settings"]
    environ = {**os.environ, "DEMO_APP": "True", **elsewhere}
    refused = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "DEMO_APP may be True only" in refused.stderr
