"""System checks: mistakes of configuration that cost money, each with an id and what to do.

`manage.py check` runs E001 to E004 and E007, `check --database default` (and `migrate`) those of
Postgres, `check --deploy` those of Redis, and both options together those of a production Postgres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import redis.exceptions
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from redis import Redis

from engine.lib import crypto
from engine.lib.redis import stock

REDIS_TAG = "redis"
ASK_TIMEOUT_S = 1
# Characters, as Django asks of its own keys; 50 of Django's alphabet are some 280 bits.
SECRET_KEY_MIN_CHARS = 50
SECRET_KEY_MIN_DISTINCT = 5
_DEMO_WORDS = ("django-insecure", "changeme", "change-me", "secret-key", "example")
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1", "testserver", ".localhost"})
POSTGRES_MIN_VERSION = 140000
# What a promise of durability rests on (see docs/adr).
DURABILITY_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")
# One long snapshot keeps old versions of the hot lanes' rows alive and slows all their commits.
LIMITS_OF_TIME = ("statement_timeout", "idle_in_transaction_session_timeout")
# Rows that nobody may change once written.
INSERT_ONLY_TABLES = (
    "packets_transfer",
    "packets_claim",
    "packets_laneepoch",
    "packets_riskrule",
    "packets_holdappeal",
    "packets_statementline",
    "packets_stockcheck",
    "referrals_referral",
    "referrals_reward",
    "referrals_serverevent",
    "campaign_disclosure",
    "referrals_riskpolicy",
    "engine_auditevent",
    "engine_outboxevent",
    "engine_webhookattempt",
)


@register(Tags.security)
def secret_key_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    key = settings.SECRET_KEY
    if (
        len(key) >= SECRET_KEY_MIN_CHARS
        and len(set(key)) >= SECRET_KEY_MIN_DISTINCT
        and not any(word in key.lower() for word in _DEMO_WORDS)
    ):
        return []
    return [
        Error(
            "SECRET_KEY is short or a demo value: sessions, cursors and demo keys could be forged.",
            hint=f"Set SECRET_KEY (or SECRET_KEY_FILE) to {SECRET_KEY_MIN_CHARS} or more random "
            "characters: python -c 'import secrets; print(secrets.token_urlsafe(48))'",
            id="laisee.E001",
        )
    ]


@register(Tags.security)
def encryption_keys_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    try:
        crypto.decrypt(crypto.encrypt(b"probe"))
    except ImproperlyConfigured as error:
        return [
            Error(
                f"Seeds and client keys can't be encrypted: {error}",
                hint="Set ENCRYPTION_KEYS to keyid:base64key, the base64 of 32 random bytes; put a "
                "new key first and keep the older ones behind it.",
                id="laisee.E002",
            )
        ]
    return []


@register(Tags.security)
def debug_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    public = [host for host in settings.ALLOWED_HOSTS if host not in _LOCAL_HOSTS]
    if not settings.DEBUG or not public:
        return []
    return [
        Error(
            f"DEBUG is on while ALLOWED_HOSTS names {', '.join(public)}: error pages of the admin "
            "would show settings and code to the world.",
            hint="Unset DEBUG, or allow only localhost.",
            id="laisee.E003",
        )
    ]


@register(Tags.security, deploy=True)
def webhooks_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    if not settings.WEBHOOK_ALLOW_LOOPBACK:
        return []
    return [
        Warning(
            "Webhooks may call this machine itself: whoever may enter an address reaches what "
            "listens here.",
            hint="Unset WEBHOOK_ALLOW_LOOPBACK; it is for development.",
            id="laisee.W017",
        )
    ]


def _place(url: str) -> tuple[str, int, str]:
    """(host, port, database) of a redis:// URL."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path, 0, parts.query
    return parts.hostname or "localhost", parts.port or 6379, parts.path.strip("/") or "0"


@register(REDIS_TAG)
def broker_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    broker, stock_place = _place(settings.BROKER_URL), _place(settings.REDIS_URL)
    parts = 2 if settings.REDIS_CLUSTER else 3  # a cluster has one database only
    if broker[:parts] != stock_place[:parts]:
        return []
    return [
        Error(
            "The Celery broker shares the database of the stock: flushing one empties the other.",
            hint="Give BROKER_URL another database number, or better another server.",
            id="laisee.E004",
        )
    ]


@register(REDIS_TAG)
def cluster_url_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    database = _place(settings.REDIS_URL)[2]
    if not settings.REDIS_CLUSTER or (database == "0" and settings.REDIS_URL[:6] == "redis:"):
        return []
    return [
        Error(
            "REDIS_URL can't lead to a cluster, as REDIS_CLUSTER says: it names database "
            f"{database}, or no host that is spoken to by redis://.",
            hint="Give redis://user:password@host:port/0 of any node, or of a name for all.",
            id="laisee.E007",
        )
    ]


def _is_node(url: str) -> bool:
    with Redis.from_url(
        url, socket_timeout=ASK_TIMEOUT_S, socket_connect_timeout=ASK_TIMEOUT_S
    ) as link:
        info: Any = link.info("cluster")
        return bool(info["cluster_enabled"])


@register(REDIS_TAG, deploy=True)
def cluster_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    """What the servers are against what the settings say (away: eviction_check says so)."""
    findings: list[CheckMessage] = []
    with suppress(redis.exceptions.RedisError, OSError):
        if _is_node(settings.REDIS_URL) != settings.REDIS_CLUSTER:
            found = "no cluster" if settings.REDIS_CLUSTER else "a node of a cluster"
            findings += [
                Error(
                    f"REDIS_URL leads to {found}, but REDIS_CLUSTER is {settings.REDIS_CLUSTER}.",
                    hint=f"Set REDIS_CLUSTER to {not settings.REDIS_CLUSTER}.",
                    id="laisee.E008",
                )
            ]
    with suppress(redis.exceptions.RedisError, OSError):
        if settings.BROKER_URL.startswith("redis:") and _is_node(settings.BROKER_URL):
            findings += [
                Error(
                    "BROKER_URL leads to a node of a cluster, which Celery can't use.",
                    hint="Give Celery a server of its own.",
                    id="laisee.E009",
                )
            ]
    return findings


@register(REDIS_TAG, deploy=True)
def eviction_check(app_configs: Any, **_options: Any) -> list[CheckMessage]:
    try:
        policy = _eviction_policy()
    except redis.exceptions.RedisError as error:
        return [
            Warning(
                f"Redis was not asked for its maxmemory-policy: {type(error).__name__}.",
                hint="Start it, or where CONFIG is not allowed, make sure by other means that the "
                "policy is noeviction.",
                id="laisee.W006",
            )
        ]
    if policy in ("noeviction", ""):
        return []
    return [
        Warning(
            f"Redis may evict (maxmemory-policy {policy}): a lane that vanishes under load is "
            "loaded again from Postgres, just when there is no memory for it.",
            hint="Set maxmemory-policy noeviction.",
            id="laisee.W005",
        )
    ]


def _eviction_policy() -> str:
    answer: Any = stock().config_get("maxmemory-policy")
    policy = answer.get(b"maxmemory-policy", answer.get("maxmemory-policy", b""))
    return policy.decode() if isinstance(policy, bytes) else str(policy)


def durability_findings(values: Mapping[str, str]) -> list[CheckMessage]:
    """An error for each setting without which "answered" does not mean "on disk"."""
    return [
        Error(
            f"Postgres runs with {name} = off: an answered claim can vanish in a crash.",
            hint=f"Set {name} = on in postgresql.conf (and for this role and database).",
            id="laisee.E010",
        )
        for name in DURABILITY_SETTINGS
        if values.get(name) == "off"
    ]


def version_findings(version: int) -> list[CheckMessage]:
    if version >= POSTGRES_MIN_VERSION:
        return []
    return [
        Error(
            f"Postgres {version // 10000} is older than {POSTGRES_MIN_VERSION // 10000}.",
            hint="Upgrade: the SQL functions need 14 or newer.",
            id="laisee.E011",
        )
    ]


def standby_findings(values: Mapping[str, str]) -> list[CheckMessage]:
    if values.get("synchronous_standby_names"):
        return []
    return [
        Warning(
            "Postgres has no synchronous standby: claims answered just before a failover are lost.",
            hint="Set synchronous_standby_names to at least one standby.",
            id="laisee.W013",
        )
    ]


_ROLE_SETTINGS = """
    SELECT unnest(s.setconfig)
      FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
     WHERE r.rolname = %s
"""


def limits_of_time_findings(alias: str, role: str) -> list[CheckMessage]:
    """A warning where the application's role may hold a snapshot for as long as it likes."""
    values = _settings_of(alias, LIMITS_OF_TIME)
    with connections[alias].cursor() as cursor:
        cursor.execute(_ROLE_SETTINGS, [role])
        values |= dict(str(row[0]).split("=", 1) for row in cursor.fetchall())
    endless = [name for name in LIMITS_OF_TIME if values.get(name, "0") == "0"]
    if not endless:
        return []
    return [
        Warning(
            f"The application's role {role} has no {' and no '.join(endless)}: one forgotten "
            "transaction slows every hot packet.",
            hint=" ".join(f"ALTER ROLE {role} SET {name} = '5s';" for name in endless),
            id="laisee.W015",
        )
    ]


def _settings_of(alias: str, names: Sequence[str]) -> dict[str, str]:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(names)])
        return dict(cursor.fetchall())


def _version_of(alias: str) -> int:
    return int(_settings_of(alias, ["server_version_num"])["server_version_num"])


@register(Tags.database)
def postgres_check(
    app_configs: Any, databases: Sequence[str] | None = None, **_options: Any
) -> list[CheckMessage]:
    findings: list[CheckMessage] = []
    for alias in databases or ():
        findings += durability_findings(_settings_of(alias, DURABILITY_SETTINGS))
        findings += version_findings(_version_of(alias))
        findings += rights_findings(alias, settings.APP_DATABASE_ROLE)
    return findings


@register(Tags.database, deploy=True)
def standby_check(
    app_configs: Any, databases: Sequence[str] | None = None, **_options: Any
) -> list[CheckMessage]:
    findings: list[CheckMessage] = []
    for alias in databases or ():
        findings += standby_findings(_settings_of(alias, ["synchronous_standby_names"]))
        findings += limits_of_time_findings(alias, settings.APP_DATABASE_ROLE)
    return findings


_RIGHTS = """
    SELECT c.relname,
           pg_has_role(r.oid, c.relowner, 'MEMBER'),
           has_table_privilege(r.oid, c.oid, 'UPDATE')
               OR has_table_privilege(r.oid, c.oid, 'DELETE')
               OR has_table_privilege(r.oid, c.oid, 'TRUNCATE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_roles r
    WHERE n.nspname = current_schema() AND c.relname = ANY(%s) AND r.rolname = %s
    ORDER BY c.relname
"""


def rights_findings(alias: str, role: str) -> list[CheckMessage]:
    """A warning where the application's role could rewrite what was promised."""
    with connections[alias].cursor() as cursor:
        cursor.execute(_RIGHTS, [list(INSERT_ONLY_TABLES), role])
        rows = cursor.fetchall()
    if owned := [table for table, owns, _ in rows if owns]:
        return [
            Warning(
                f"The application's role {role} owns {', '.join(owned)}: it could drop the guards.",
                hint="Give the application a role of its own in DATABASE_URL, the owner's in "
                "MIGRATION_DATABASE_URL, and run manage.py grant_app_rights.",
                id="laisee.W012",
            )
        ]
    if changeable := [table for table, _, changes in rows if changes]:
        return [
            Warning(
                f"The application's role {role} may change rows of {', '.join(changeable)}.",
                hint="Run manage.py grant_app_rights.",
                id="laisee.W014",
            )
        ]
    return []
