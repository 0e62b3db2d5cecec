"""What one copy runs with: read from the environment once, completed by generated secrets.

Invariant: the same DATA_DIR gives the same keys for ever, because what they encrypted and signed
is in its database.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engine.lib.env import Env, EnvironmentProblem
from engine.run.paths import CHECKOUT, Places, RunProblem, free_port, password

# Where the doors listen unless PORT and EDGE_PORT say otherwise.
WEB_PORT = 8000
EDGE_PORT = 8001


@dataclass(frozen=True)
class Config:
    """Addresses of one copy; a URL that is None is served by the embedded server."""

    places: Places
    port: int
    edge_port: int
    sandbox_port: int
    base_url: str
    database_url: str | None
    migration_database_url: str | None
    redis_url: str | None
    redis_cluster: bool
    broker_url: str | None
    secret_key: str | None
    encryption_keys: str | None
    demo_app: bool
    # Ports of proxies that stand before the embedded servers (a drill's bad network); 0: none does.
    postgres_via_port: int = 0
    redis_via_port: int = 0

    @property
    def edge_url(self) -> str:
        return f"http://127.0.0.1:{self.edge_port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def data_dir(environ: Mapping[str, str] | None = None) -> Path:
    named = (os.environ if environ is None else environ).get("DATA_DIR") or ".data"
    return (CHECKOUT / Path(named).expanduser()).resolve()


def read(environ: Mapping[str, str] | None = None) -> Config:
    env = Env(environ)

    def optional(name: str) -> str | None:
        return env.text(name, "") or None

    try:
        port = env.integer("PORT", WEB_PORT, low=1, high=65535)
        config = Config(
            places=Places(data_dir(environ)),
            port=port,
            edge_port=env.integer("EDGE_PORT", EDGE_PORT, low=1, high=65535),
            # Nobody types its address: like the embedded servers it takes a port that is free.
            sandbox_port=env.integer("SANDBOX_PORT", 0, low=0, high=65535) or free_port(),
            base_url=env.text("BASE_URL", f"http://127.0.0.1:{port}"),
            database_url=optional("DATABASE_URL"),
            migration_database_url=optional("MIGRATION_DATABASE_URL"),
            redis_url=optional("REDIS_URL"),
            redis_cluster=env.boolean("REDIS_CLUSTER", False),
            broker_url=optional("BROKER_URL"),
            secret_key=optional("SECRET_KEY"),
            encryption_keys=optional("ENCRYPTION_KEYS"),
            # On one's own machine people of the demo may play without an app of their own.
            demo_app=env.boolean(
                "DEMO_APP",
                env.text("ENVIRONMENT", "local") == "local" and not optional("ALLOWED_HOSTS"),
            ),
            postgres_via_port=env.integer("POSTGRES_VIA_PORT", 0, low=0, high=65535),
            redis_via_port=env.integer("REDIS_VIA_PORT", 0, low=0, high=65535),
        )
    except EnvironmentProblem as problem:
        raise RunProblem(str(problem)) from problem
    if config.port == config.edge_port:
        raise RunProblem(f"PORT and EDGE_PORT are both {port}; give each its own")
    if config.redis_cluster and not (config.redis_url and config.broker_url):
        raise RunProblem("REDIS_CLUSTER needs REDIS_URL (any node) and BROKER_URL (no cluster)")
    return config


def via(url: str, port: int) -> str:
    """`url` at another port of the same machine; 0: as it is."""
    parts = urlsplit(url)
    who, _, address = parts.netloc.rpartition("@")
    host = address.rpartition(":")[0]
    return parts._replace(netloc=f"{who}@{host}:{port}").geturl() if port else url


def broker_of(redis_url: str) -> str:
    """Another database of the same server: the number after the stock's."""
    base, _, number = redis_url.rpartition("/")
    if "//" not in base + "/" or not number.isdigit():
        return redis_url.rstrip("/") + "/1"
    return f"{base}/{int(number) + 1}"


def values(config: Config, *, database_url: str, owner_url: str, redis_url: str) -> dict[str, str]:
    """What every process gets, and what `run/env` tells other shells."""
    places = config.places
    return {
        "DATABASE_URL": database_url,
        "MIGRATION_DATABASE_URL": owner_url,
        "REDIS_URL": redis_url,
        "REDIS_CLUSTER": str(config.redis_cluster),
        "BROKER_URL": config.broker_url or broker_of(redis_url),
        "SECRET_KEY": config.secret_key
        or places.secret("secret_key", lambda: secrets.token_urlsafe(64)),
        "ENCRYPTION_KEYS": config.encryption_keys
        or places.secret(
            "encryption_keys",
            lambda: "k1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
        ),
        "PORT": str(config.port),
        "EDGE_PORT": str(config.edge_port),
        "BASE_URL": config.base_url,
        "EDGE_URL": config.edge_url,
        "DEMO_APP": str(config.demo_app),
        "SANDBOX_URL": config.sandbox_url,
        "SANDBOX_SECRET": places.secret("sandbox_secret", password),
    }
