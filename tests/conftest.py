"""Fixtures every test may use: addresses, private servers, a whole private copy, clean tables.

Tests talk to Postgres with the application's role, so every test also shows that its rights are
enough. Tables are cleaned by the superuser, since that role may not delete what it wrote.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from engine.run import spawn
from engine.run.paths import Places
from engine.run.postgres import APP, OWNER, SUPERUSER, PostgresServer
from engine.run.valkey import ValkeyServer
from tests import servers
from tests.private_copy import Copy

# Rows that migrations wrote, kept so that cleaning can put them back.
SEED_SCHEMA = "laisee_seed"


def wait_until(
    condition: Callable[[], Any], timeout_s: float = 10.0, what: str = "the condition"
) -> None:
    """Return as soon as `condition()` is true; fail the test after `timeout_s`."""
    __tracebackhide__ = True
    if not spawn.wait_until(lambda: bool(condition()), timeout_s):
        pytest.fail(f"{what} did not come true within {timeout_s} s")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Test processes share the tests by their ids: of two with one id, one would never run."""
    twice = [name for name, n in Counter(item.nodeid for item in items).items() if n > 1]
    if twice:
        raise pytest.UsageError(f"two tests of one id: {', '.join(twice)}")


def _servers() -> servers.Servers:
    assert servers.running is not None, "run pytest with `-p tests.servers`"
    return servers.running


# --- the shared servers ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_url() -> str:
    """The stock's database on the shared Valkey."""
    return _servers().valkey.url


@pytest.fixture(scope="session")
def app_dsn(django_db_setup: None) -> str:
    """The test database as the application sees it (role laisee_app)."""
    return _servers().postgres.url(APP, _test_database())


@pytest.fixture(scope="session")
def owner_dsn(django_db_setup: None) -> str:
    """The test database as its owner sees it (role laisee_owner)."""
    return _servers().postgres.url(OWNER, _test_database())


@pytest.fixture(scope="session")
def superuser_dsn(django_db_setup: None) -> str:
    """The test database without any limits, for tests that corrupt what triggers guard."""
    return _servers().postgres.url(SUPERUSER, _test_database())


def _test_database() -> str:
    from django.db import connection

    return str(connection.settings_dict["NAME"])


# --- private servers, for tests that break them ---------------------------------------------------


@pytest.fixture
def valkey_server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of this test's own: `.url`, `.kill()`, `.start(wipe=True)`, `.stop()`."""
    places = Places(tmp_path / "valkey-server")
    places.make()
    server = ValkeyServer(places)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def postgres_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A Postgres of this test's own: `.url(role)`, `.kill()`, `.start()`, `.stop()`."""
    places = Places(tmp_path / "postgres-server")
    places.make()
    server = PostgresServer(places, sync=False)
    server.start(owner_may_create_databases=True)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def laisee(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A whole private copy (`python -m engine.run up`), for end-to-end and fault tests."""
    with Copy.running(tmp_path_factory.mktemp("copy")) as copy:
        yield copy


# --- the test database ----------------------------------------------------------------------------


def _become(role: str) -> None:
    """From here on every Django connection of this process logs in as `role`."""
    from django.db import connection

    connection.close()
    url = _servers().postgres.url(role)
    connection.settings_dict["USER"] = role
    connection.settings_dict["PASSWORD"] = url.split("://")[1].split("@")[0].split(":")[1]


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    _become(OWNER)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """After the owner has migrated: grant the application its rights, and continue as it."""
    from django.core.management import call_command

    with django_db_blocker.unblock():
        call_command("grant_app_rights", verbosity=0)
        database = _test_database()
        with psycopg.connect(_servers().postgres.url(SUPERUSER, database)) as link:
            _keep_seeds(link)
        _become(APP)
    # Commands that a test runs in a process of their own find the test database too.
    os.environ["DATABASE_URL"] = _servers().postgres.url(APP, database)
    os.environ["MIGRATION_DATABASE_URL"] = _servers().postgres.url(OWNER, database)
    yield
    with django_db_blocker.unblock():
        _become(OWNER)
        with psycopg.connect(_servers().postgres.url(SUPERUSER, "postgres")) as link:
            # A thread that a test left behind must not keep the database from being dropped.
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )


def _tables(link: psycopg.Connection[Any]) -> list[str]:
    rows = link.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname <> 'django_migrations' ORDER BY 1"
    ).fetchall()
    return [str(row[0]) for row in rows]


def _filled(link: psycopg.Connection[Any], tables: list[str]) -> list[str]:
    parts = [
        sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM public.{})").format(
            sql.Literal(table), sql.Identifier(table)
        )
        for table in tables
    ]
    return [str(row[0]) for row in link.execute(sql.SQL(" UNION ALL ").join(parts)).fetchall()]


def _keep_seeds(link: psycopg.Connection[Any]) -> None:
    link.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SEED_SCHEMA)))
    for table in _filled(link, _tables(link)):
        link.execute(
            sql.SQL("CREATE TABLE {} AS TABLE public.{}").format(
                sql.Identifier(SEED_SCHEMA, table), sql.Identifier(table)
            )
        )


def clean_tables(link: psycopg.Connection[Any]) -> None:
    """Every table as migrations left it; triggers and foreign keys are told to look away."""
    link.execute("SET session_replication_role = replica")
    tables = _tables(link)
    seeds = link.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'",
        [SEED_SCHEMA],
    ).fetchall()
    for table in sorted({*_filled(link, tables), *(str(row[0]) for row in seeds)}):
        link.execute(sql.SQL("DELETE FROM public.{}").format(sql.Identifier(table)))
    for (table,) in seeds:
        columns = [
            sql.Identifier(str(row[0]))
            for row in link.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass"
                " AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                [f'public."{table}"'],
            ).fetchall()
        ]
        link.execute(
            sql.SQL("INSERT INTO public.{} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                sql.Identifier(table),
                sql.SQL(", ").join(columns),
                sql.SQL(", ").join(columns),
                sql.Identifier(SEED_SCHEMA, table),
            )
        )


@pytest.fixture(scope="session", autouse=True)
def _clean_instead_of_flush() -> Iterator[None]:
    """Django's TransactionTestCase flushes with TRUNCATE, which the application may not do."""
    from django.db import connections
    from django.test import TransactionTestCase

    def clean(self: object) -> None:
        connections.close_all()
        with psycopg.connect(_servers().postgres.url(SUPERUSER, _test_database())) as link:
            # A forgotten transaction of a finished test would hold its locks until its timeout.
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND state LIKE 'idle in transaction%'"
            )
            clean_tables(link)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", clean)
        yield


@pytest.fixture(scope="session", autouse=True)
def _passwords_cost_nothing() -> Iterator[None]:
    """Slow hashing keeps thieves out, and there are none here."""
    from django.conf import settings
    from django.test import override_settings

    quick = "django.contrib.auth.hashers.MD5PasswordHasher"
    with override_settings(PASSWORD_HASHERS=[quick, *settings.PASSWORD_HASHERS]):
        yield


@pytest.fixture(autouse=True)
def _nobody_has_chosen_a_language() -> None:
    """A page that an earlier test looked at must not decide what this one reads."""
    from django.utils import translation

    translation.deactivate()


@pytest.fixture(autouse=True)
def _clean_valkey() -> Iterator[None]:
    """What one test reserved, no other test sees."""
    yield
    with redis.Redis.from_url(_servers().valkey.url) as link:
        link.flushall()
