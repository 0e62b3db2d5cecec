"""The servers that the wheels carry: started, killed, started again, never with data lost."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest
import redis

from engine.run import paths
from engine.run.postgres import APP, OWNER, PostgresServer
from engine.run.valkey import ValkeyServer


def test_postgres_keeps_what_it_acknowledged_when_it_is_killed(
    postgres_server: PostgresServer,
) -> None:
    with psycopg.connect(postgres_server.url(OWNER)) as link:
        link.execute("CREATE TABLE coin (fen int)")
        link.execute("INSERT INTO coin VALUES (88)")

    postgres_server.kill()
    assert not postgres_server.answers()
    postgres_server.start()

    with psycopg.connect(postgres_server.url(OWNER)) as link:
        assert link.execute("SELECT fen FROM coin").fetchall() == [(88,)]
        assert link.execute("SHOW fsync").fetchone() == ("on",)


def test_the_application_role_may_not_change_the_schema(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(APP)) as link:
        assert link.execute("SHOW statement_timeout").fetchone() == ("5s",)
        try:
            link.execute("CREATE TABLE mine (x int)")
        except psycopg.errors.InsufficientPrivilege:
            pass
        else:
            raise AssertionError("laisee_app created a table")


def test_postgres_starts_over_a_lock_file_whose_pid_lives_elsewhere(
    postgres_server: PostgresServer,
) -> None:
    postgres_server.kill()
    # Process 1 always lives and is not Postgres: the number was given to somebody else.
    (postgres_server.places.postgres / "postmaster.pid").write_text(
        f"1\n{postgres_server.places.postgres}\n1700000000\n5432\n\n\n\n"
    )

    postgres_server.start()

    assert postgres_server.answers()


def test_valkey_wants_a_password_and_forgets_only_when_wiped(valkey_server: ValkeyServer) -> None:
    open_url = valkey_server.url.replace(f":{valkey_server.password}@", "")
    try:
        redis.Redis.from_url(open_url).ping()
    except redis.AuthenticationError:
        pass
    else:
        raise AssertionError("Valkey answered without a password")
    with redis.Redis.from_url(valkey_server.url) as link:
        link.set("portion", 88)
        link.waitaof(1, 0, 5_000)

    valkey_server.kill()
    valkey_server.start()
    with redis.Redis.from_url(valkey_server.url) as link:
        assert link.get("portion") == b"88"

    valkey_server.kill()
    valkey_server.start(wipe=True)
    with redis.Redis.from_url(valkey_server.url) as link:
        assert link.get("portion") is None
        assert link.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_port_once_given_away_is_given_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor to another process, though nobody listens on it yet."""
    port = paths.free_port()
    monkeypatch.setattr(paths, "PORTS", (port, port + 1))
    with pytest.raises(paths.RunProblem, match="no free port"):
        paths.free_port()
    ask = f"from engine.run import paths; paths.PORTS = ({port}, {port + 1}); paths.free_port()"
    other = subprocess.run([sys.executable, "-c", ask], cwd=paths.CHECKOUT, capture_output=True)
    assert b"no free port" in other.stderr
