"""Brings one copy up: servers, schema, rights, demo campaign, processes; then watches over it.

Order matters: nothing is started before DATA_DIR is locked and the ports are known to be free, and
nothing serves before the schema and the application's rights are in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis

from engine.run import config as configuration
from engine.run import paths, services, spawn
from engine.run.config import Config
from engine.run.paths import CHECKOUT, RunProblem
from engine.run.postgres import APP, OWNER, PostgresServer
from engine.run.supervisor import Interrupted, Supervisor, say
from engine.run.valkey import ValkeyServer

# Seconds for all processes to answer, on two busy cores.
READY_TIMEOUT_S = 120.0
# Seconds that a copy which is still ending (see spawn.guard) is waited for.
LOCK_PATIENCE_S = 15.0
# Bytes after which a log is set aside at the next start; one older log is kept.
LOG_LIMIT_BYTES = 20_000_000
ROOMS = ("engine", "packets", "campaign", "referrals")
ROLES_HINT = "the servers named by DATABASE_URL and REDIS_URL must run before this does"


class Launch:
    """One run of one copy."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.places = config.places
        self.values: dict[str, str] = {}
        self.environ: dict[str, str] = {}
        self.failed = False

    def run(
        self,
        script: Callable[[Launch, Supervisor], bool] | None = None,
        *,
        serve: bool = True,
    ) -> int:
        """Prepare and serve, `script` if any, then watch until a signal; the exit code.

        Without `serve` it ends as soon as the books are ready to be served.
        """
        self.places.make()
        self._lock()
        spawn.kill_strays(self.places.root)
        self._refuse_half_restored()
        self._ports()
        self._rotate_logs()
        self.places.pid_file("supervisor").write_text(f"{os.getpid()}\n")
        supervisor = Supervisor(self.places)
        code = 0
        try:
            supervisor.catch_signals()
            started = time.monotonic()
            self._prepare(supervisor)
            if serve:
                self._serve(supervisor, started)
                if script is None or script(self, supervisor):
                    supervisor.watch()
        except Interrupted:
            say("\n· stopping (once more to force)")
        except (RunProblem, psycopg.Error, redis.RedisError) as problem:
            say(f"! {problem}")
            code = 1
        finally:
            supervisor.stop()
            self.places.env_file.unlink(missing_ok=True)
        say("· stopped")
        return 1 if self.failed else code

    # --- before anything starts -----------------------------------------------------------------

    def _lock(self) -> None:
        held: list[int] = []

        def take() -> bool:
            descriptor = spawn.lock(self.places.lock)
            held.extend([] if descriptor is None else [descriptor])
            return descriptor is not None

        if take():
            return
        if pid := _living_supervisor(self.places):
            raise RunProblem(
                f"a copy already runs on {self.places.root} (supervisor {pid}); stop it with "
                "Ctrl-C, or choose another DATA_DIR, PORT and EDGE_PORT"
            )
        say("· an earlier copy on this DATA_DIR is still ending; waiting for it")
        if not spawn.wait_until(take, LOCK_PATIENCE_S):
            raise RunProblem(f"a copy already runs on {self.places.root}; stop it with Ctrl-C")

    def _refuse_half_restored(self) -> None:
        # Redis may know of claims that the restored books don't: nobody may be told of those.
        path = self.places.unfinished_restore
        if path.is_file():
            file = json.loads(path.read_text())["file"]
            raise RunProblem(
                f"a restore was interrupted here; finish it first: make restore FILE={file}"
            )

    def _ports(self) -> None:
        for name, port in (("PORT", self.config.port), ("EDGE_PORT", self.config.edge_port)):
            if not paths.port_is_free(port):
                raise RunProblem(
                    f"{name} {port} is in use by another program; choose one with `make run "
                    f"{name}=…`"
                )

    def _rotate_logs(self) -> None:
        for path in self.places.logs.glob("*.log"):
            if path.stat().st_size > LOG_LIMIT_BYTES:
                path.replace(path.with_suffix(".log.1"))

    # --- up -------------------------------------------------------------------------------------

    def _prepare(self, supervisor: Supervisor) -> None:
        self.servers(supervisor)
        self.prepare_environment()
        paths.write_private(
            self.places.env_file,
            "# This running copy; manage.py reads it. Gone when the copy stops.\n"
            + "".join(f"{name}={value}\n" for name, value in self.values.items()),
        )
        assets = self._start_assets()
        self.manage("migrate", "--noinput", "-v", "0", say_what="schema")
        self.manage("grant_app_rights", say_what="rights of the application's role")
        supervisor.tick()
        self.manage("seed_demo", say_what="demo campaign")
        self._finish_assets(assets)

    def _serve(self, supervisor: Supervisor, started: float) -> None:
        for name in services.DOORS:
            supervisor.start(services.http_door(self.config, name, self.environ))
        supervisor.start(services.sandbox(self.config, self.environ))
        for name in services.WORKERS:
            supervisor.start(services.worker(self.config, name, self.environ))
        supervisor.start(services.beat(self.config, self.environ))
        say("· web, edge, sandbox, workers and beat are starting")
        supervisor.wait_ready(READY_TIMEOUT_S)
        say(
            f"ready: web {self.config.web_url}/ edge {self.config.edge_url}/ "
            f"admin {self.config.web_url}/admin/ docs {self.config.web_url}/api/docs "
            f"(in {time.monotonic() - started:.0f} s; Ctrl-C stops all of it)"
        )

    def servers(self, supervisor: Supervisor) -> None:
        """Start the servers that aren't named by the environment, and find out all addresses."""
        config, embedded_valkey, embedded_postgres = self.config, None, None
        if config.redis_url is None:
            embedded_valkey = ValkeyServer(self.places)
            supervisor.adopt(services.valkey(embedded_valkey), embedded_valkey.spawn())
        if config.database_url is None:
            embedded_postgres = PostgresServer(self.places)
            if not embedded_postgres.exists:
                say("· making the database (once)")
            embedded_postgres.initialise()
            supervisor.adopt(services.postgres(embedded_postgres), embedded_postgres.spawn())
            embedded_postgres.wait()
            embedded_postgres.prepare()
            say(f"· Postgres {embedded_postgres.version()} on 127.0.0.1:{embedded_postgres.port}")
        if embedded_valkey is not None:
            embedded_valkey.wait()
            say(f"· Valkey {embedded_valkey.version()} on 127.0.0.1:{embedded_valkey.port}")
        via = configuration.via
        database_url = config.database_url or (
            via(embedded_postgres.url(APP), config.postgres_via_port) if embedded_postgres else ""
        )
        owner_url = config.migration_database_url or (
            embedded_postgres.url(OWNER) if embedded_postgres else database_url
        )
        redis_url = config.redis_url or (
            via(embedded_valkey.url, config.redis_via_port) if embedded_valkey else ""
        )
        self.values = configuration.values(
            config, database_url=database_url, owner_url=owner_url, redis_url=redis_url
        )
        self._reach_foreign_servers()

    def _reach_foreign_servers(self) -> None:
        for name in ("DATABASE_URL", "MIGRATION_DATABASE_URL"):
            if self.config.database_url is not None:
                try:
                    psycopg.connect(self.values[name], connect_timeout=5).close()
                except psycopg.Error as error:
                    raise RunProblem(f"{name} can't be reached: {error}; {ROLES_HINT}") from error
        for name in ("REDIS_URL", "BROKER_URL"):
            url = self.values[name]
            if self.config.redis_url is not None and url.startswith(("redis:", "rediss:")):
                try:
                    redis.Redis.from_url(url, socket_connect_timeout=5).ping()
                except redis.RedisError as error:
                    raise RunProblem(f"{name} can't be reached: {error}; {ROLES_HINT}") from error

    # --- manage.py ------------------------------------------------------------------------------

    def prepare_environment(self) -> None:
        self.environ = services.python_environment(self.values, self.places)

    def command(self, *command: str, log: Path | None) -> subprocess.Popen[bytes]:
        """Start `python COMMAND…` with this copy's environment; it dies with us."""
        return spawn.start(
            [sys.executable, *command],
            name="command",
            data_dir=self.places.root,
            log=log,
            death_signal=15,
            environ=self.environ,
            cwd=CHECKOUT,
        )

    def manage(self, *arguments: str, say_what: str) -> str:
        """Run `manage.py …` and say so; returns what it said."""
        log = self.places.log_file("setup")
        log.unlink(missing_ok=True)
        begun = time.monotonic()
        if self.command("manage.py", *arguments, log=log).wait() != 0:
            raise RunProblem(f"`manage.py {' '.join(arguments)}` failed:\n{spawn.tail(log, 30)}")
        say(f"· {say_what}: done in {time.monotonic() - begun:.1f} s")
        return log.read_text(errors="replace")

    def _start_assets(self) -> subprocess.Popen[bytes] | None:
        stamp = self.places.root / "static.stamp"
        if stamp.is_file() and stamp.read_text() == _asset_digest():
            return None
        log = self.places.log_file("assets")
        log.unlink(missing_ok=True)
        # Redoc comes with the Swagger UI package; nothing links to it, and compressing it is slow.
        arguments = ("collectstatic", "--noinput", "-v", "0", "-i", "redoc")
        return self.command("manage.py", *arguments, log=log)

    def _finish_assets(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        if process.wait() != 0:
            log = spawn.tail(self.places.log_file("assets"), 30)
            raise RunProblem(f"`manage.py collectstatic` failed:\n{log}")
        (self.places.root / "static.stamp").write_text(_asset_digest())
        say("· static files: collected")


def _asset_digest() -> str:
    """Changes when a package that brings assets changes, or one of our own assets does."""
    digest = hashlib.sha256(str(CHECKOUT).encode())
    for path in (CHECKOUT / "requirements.txt", CHECKOUT / "engine" / "settings.py"):
        digest.update(path.read_bytes())
    for room in ROOMS:
        for path in sorted((CHECKOUT / room).glob("static/**/*")):
            digest.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _living_supervisor(places: paths.Places) -> str:
    """Its pid; empty when it was killed and only its guard still cleans up."""
    path = places.pid_file("supervisor")
    pid = path.read_text().strip() if path.is_file() else ""
    return pid if pid and Path("/proc", pid).exists() else ""
