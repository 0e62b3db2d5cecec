"""A pytest plugin (`-p tests.servers`): one real Postgres and one real Valkey a session.

They start before Django reads its settings, in a folder of their own, so that tests never touch a
running copy of the same checkout. fsync stays on, as in production. When pytest ends, in whatever
way, the kernel ends both.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.run.paths import Places, free_port
from engine.run.postgres import APP, OWNER, PostgresServer
from engine.run.valkey import ValkeyServer

# Settings of a developer's shell must not reach the tests.
FOREIGN = (
    "DATABASE_URL MIGRATION_DATABASE_URL REDIS_URL REDIS_CLUSTER BROKER_URL SECRET_KEY "
    "ENCRYPTION_KEYS DEBUG ALLOWED_HOSTS CORS_ORIGINS TRUSTED_PROXIES PORT EDGE_PORT BASE_URL "
    "SANDBOX_PORT SANDBOX_URL SANDBOX_SECRET POSTGRES_VIA_PORT REDIS_VIA_PORT "
    "DATA_DIR LOG_LEVEL LAISEE_DOOR LAISEE_RUN_AS_OWNER DATABASE_POOL DATABASE_POOL_SIZE "
    "SECURE_COOKIES REQUIRE_SECOND_FACTOR STAFF_TIME_ZONE ENVIRONMENT EMAIL_HOST"
).split()


@dataclass(frozen=True)
class Servers:
    """What a test session stands on."""

    places: Places
    postgres: PostgresServer
    valkey: ValkeyServer


running: Servers | None = None
# The folder that test processes running side by side share; named by the one that started them.
SHARED = "LAISEE_TESTS_SHARED"


def shared() -> Path:
    return Path(os.environ[SHARED])


def start(root: Path) -> Servers:
    places = Places(root)
    places.make()
    (root / "static").mkdir(exist_ok=True)  # nothing is collected, but WhiteNoise looks there
    servers = Servers(places, PostgresServer(places, sync=False), ValkeyServer(places))
    servers.valkey.spawn()
    servers.postgres.start(owner_may_create_databases=True)
    servers.valkey.wait()
    return servers


def environment(servers: Servers) -> dict[str, str]:
    """What Django reads while testing; `tests/conftest.py` moves it to the test database."""
    port = free_port()
    return {
        "DATA_DIR": str(servers.places.root),
        "DATABASE_URL": servers.postgres.url(APP),
        "MIGRATION_DATABASE_URL": servers.postgres.url(OWNER),
        "REDIS_URL": servers.valkey.url,
        "BROKER_URL": servers.valkey.url.rsplit("/", 1)[0] + "/1",
        "SECRET_KEY": "tests-" + secrets.token_hex(32),
        "ENCRYPTION_KEYS": "t1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "PORT": str(port),
        "BASE_URL": f"http://127.0.0.1:{port}",
        "LOG_LEVEL": "WARNING",
    }


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config,
) -> Generator[None, object, object]:
    # A wrapper runs before every plain hook, pytest-django's (which loads the settings) included.
    global running
    for name in FOREIGN:
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    root = Path(tempfile.mkdtemp(prefix="laisee-tests-"))
    # Registered before anything starts: a failed start must clean up too.
    early_config.add_cleanup(lambda: _stop(root))
    running = start(root)
    os.environ.setdefault(SHARED, str(root / "shared"))
    os.environ.update(environment(running))
    return (yield)


def _stop(root: Path) -> None:
    if running is not None:
        # Nothing in there is needed again, so nothing is waited for.
        running.postgres.kill()
        running.valkey.kill()
    shutil.rmtree(root, ignore_errors=True)
