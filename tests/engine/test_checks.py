"""System checks: each id, found when it should be and silent when it should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.exceptions
from django.core.checks import run_checks
from django.db import connection

from engine import checks
from engine.run import config
from engine.run.paths import RunProblem


def ids(findings: Any) -> list[str]:
    for finding in findings:
        assert finding.hint, finding
    return [finding.id for finding in findings]


def test_a_sound_configuration_is_silent() -> None:
    assert ids(checks.secret_key_check(None)) == []
    assert ids(checks.encryption_keys_check(None)) == []
    assert ids(checks.debug_check(None)) == []
    assert ids(checks.broker_check(None)) == []


def test_the_whole_project_passes_its_checks() -> None:
    assert run_checks() == []


@pytest.mark.parametrize("key", ["short", "a" * 80, "django-insecure-" + "ab3dE" * 12, ""])
def test_e001_secret_key(settings: Any, key: str) -> None:
    settings.SECRET_KEY = key or "x"
    assert ids(checks.secret_key_check(None)) == ["laisee.E001"]


@pytest.mark.parametrize(
    "keys", [[], ["nonsense"], ["k1:short"], ["k 1:" + "A" * 44], [":" + "A" * 43 + "="]]
)
def test_e002_encryption_keys(settings: Any, keys: list[str]) -> None:
    settings.ENCRYPTION_KEYS = keys
    assert ids(checks.encryption_keys_check(None)) == ["laisee.E002"]


def test_e003_debug_in_public(settings: Any) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
    assert ids(checks.debug_check(None)) == []
    settings.ALLOWED_HOSTS = ["localhost", "laisee.example"]
    assert ids(checks.debug_check(None)) == ["laisee.E003"]
    settings.DEBUG = False
    assert ids(checks.debug_check(None)) == []


@pytest.mark.parametrize(
    ("stock", "broker", "same"),
    [
        ("redis://h:6379/0", "redis://h:6379/1", False),
        ("redis://h:6379/0", "redis://other:6379/0", False),
        ("redis://h:6379/0", "redis://h:6380/0", False),
        ("redis://h:6379/0", "redis://:secret@h/", True),
        ("redis://h/2", "redis://h:6379/2", True),
    ],
)
def test_e004_broker_in_the_stock(settings: Any, stock: str, broker: str, same: bool) -> None:
    settings.REDIS_URL, settings.BROKER_URL = stock, broker
    assert ids(checks.broker_check(None)) == (["laisee.E004"] if same else [])


def test_e004_a_cluster_has_one_database(settings: Any) -> None:
    settings.REDIS_CLUSTER = True
    settings.REDIS_URL, settings.BROKER_URL = "redis://h:6379/0", "redis://h:6379/1"
    assert ids(checks.broker_check(None)) == ["laisee.E004"]


@pytest.mark.parametrize(
    ("url", "sound"),
    [("redis://h:6379/0", True), ("redis://h/1", False), ("rediss://h:6379/0", False)],
)
def test_e007_an_address_that_is_no_cluster(settings: Any, url: str, sound: bool) -> None:
    settings.REDIS_URL = url
    assert ids(checks.cluster_url_check(None)) == []
    settings.REDIS_CLUSTER = True
    assert ids(checks.cluster_url_check(None)) == ([] if sound else ["laisee.E007"])


def test_e008_servers_are_asked_whether_they_are_a_cluster(settings: Any) -> None:
    assert ids(checks.cluster_check(None)) == []
    settings.REDIS_CLUSTER = True
    assert ids(checks.cluster_check(None)) == ["laisee.E008"]


def test_w005_redis_may_evict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(checks.eviction_check(None)) == []  # the tests' own server, asked for real
    from engine.lib.redis import stock

    stock().config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert ids(checks.eviction_check(None)) == ["laisee.W005"]
    finally:
        stock().config_set("maxmemory-policy", "noeviction")


def test_w006_redis_can_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise redis.exceptions.ConnectionError("refused")

    monkeypatch.setattr(checks, "_eviction_policy", refuse)
    assert ids(checks.eviction_check(None)) == ["laisee.W006"]


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_e010_durability(name: str) -> None:
    sound = dict.fromkeys(checks.DURABILITY_SETTINGS, "on")
    assert checks.durability_findings(sound) == []
    (finding,) = checks.durability_findings(sound | {name: "off"})
    assert finding.id == "laisee.E010"
    assert name in finding.msg


@pytest.mark.django_db
def test_e010_is_read_from_the_server() -> None:
    """Finding 21: the check refuses what "answered = committed" can't rest on."""
    assert ids(checks.postgres_check(None, databases=["default"])) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert ids(checks.postgres_check(None, databases=["default"])) == ["laisee.E010"]
    assert checks.postgres_check(None, databases=None) == []


def test_e011_an_old_postgres() -> None:
    assert ids(checks.version_findings(130016)) == ["laisee.E011"]
    assert checks.version_findings(140000) == []


@pytest.mark.django_db
def test_w012_the_application_owns_the_tables(settings: Any) -> None:
    assert ids(checks.rights_findings("default", settings.APP_DATABASE_ROLE)) == []
    (finding,) = checks.rights_findings("default", "laisee_owner")
    assert finding.id == "laisee.W012"
    assert "engine_auditevent" in finding.msg


@pytest.mark.django_db(transaction=True)
def test_w015_transactions_without_an_end(settings: Any, superuser_dsn: str) -> None:
    role = settings.APP_DATABASE_ROLE
    assert checks.limits_of_time_findings("default", role) == []
    with psycopg.connect(superuser_dsn, autocommit=True) as link:
        link.execute(f"ALTER ROLE {role} SET statement_timeout = '0'")
        try:
            (finding,) = checks.limits_of_time_findings("default", role)
        finally:
            link.execute(f"ALTER ROLE {role} SET statement_timeout = '5s'")
    assert finding.id == "laisee.W015"
    assert finding.hint == f"ALTER ROLE {role} SET statement_timeout = '5s';"


@pytest.mark.django_db(transaction=True)
def test_w014_the_application_may_rewrite(settings: Any, owner_dsn: str) -> None:
    role = settings.APP_DATABASE_ROLE
    with psycopg.connect(owner_dsn, autocommit=True) as link:
        link.execute(f"GRANT UPDATE ON engine_auditevent TO {role}")
        try:
            (finding,) = checks.rights_findings("default", role)
        finally:
            link.execute(f"REVOKE UPDATE ON engine_auditevent FROM {role}")
    assert finding.id == "laisee.W014"
    assert "engine_auditevent" in finding.msg
    assert checks.rights_findings("default", role) == []


@pytest.mark.django_db
def test_w013_no_synchronous_standby() -> None:
    assert ids(checks.standby_check(None, databases=["default"])) == ["laisee.W013"]
    assert checks.standby_findings({"synchronous_standby_names": "ANY 1 (*)"}) == []


def test_a_copy_beside_a_cluster_names_its_broker(tmp_path: Path) -> None:
    cluster = {"DATA_DIR": str(tmp_path), "REDIS_CLUSTER": "True", "REDIS_URL": "redis://h:6379/0"}
    with pytest.raises(RunProblem, match="BROKER_URL"):
        config.read(cluster)
    made = config.read({**cluster, "BROKER_URL": "redis://other:6379/0"})
    made.places.make()
    told = config.values(made, database_url="d", owner_url="o", redis_url="redis://h:6379/0")
    assert told["REDIS_CLUSTER"] == "True"


def test_webhooks_to_this_machine_are_for_development(settings: Any) -> None:
    assert ids(checks.webhooks_check(None)) == []
    settings.WEBHOOK_ALLOW_LOOPBACK = True
    assert ids(checks.webhooks_check(None)) == ["laisee.W017"]
