"""`make backup` and `make restore FILE=…`.

A backup is one consistent snapshot, of a copy that runs or of one that doesn't. A restore replaces
the books in one transaction, then has every lane open a new epoch above Postgres's and Redis's, so
that nothing Redis remembers beyond the restored books can pass for a claim (docs/flow.md).
Invariants: a restore that is refused has changed nothing; one that was interrupted can be run
again, and nothing starts on its data before it has been.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet, InvalidToken
from psycopg import sql

from engine.lib.env import read_env_file
from engine.run import archive, paths, spawn
from engine.run.config import Config
from engine.run.launch import Launch
from engine.run.paths import Places, RunProblem
from engine.run.postgres import OWNER, PostgresServer
from engine.run.supervisor import Interrupted, Supervisor, say

NEWEST_SHOWN = 5
# psql's exit code where a statement failed under ON_ERROR_STOP; 2 is a lost connection.
PSQL_REFUSED = 3


@dataclass(frozen=True)
class Books:
    """What a database holds, in one snapshot."""

    claims: int
    claimed_fen: int
    transfers: int


# --- backup ---------------------------------------------------------------------------------------


def backup(config: Config, file: str | None) -> int:
    """Write a backup to `file`, or to a new one below DATA_DIR/backups; the exit code."""
    config.places.make()
    named = _named(file) if file else None
    with _owner_url(config) as url:
        _dump(config.places, url, named or _new_file(config.places, "laisee"), "backup")
    if config.encryption_keys is None:
        say(
            f"  Seeds in it can be read only with {config.places.secrets / 'encryption_keys'}: "
            "keep a copy of that file, in another place."
        )
    return 0


def _named(file: str) -> Path:
    target = Path(file).expanduser().resolve()
    if target.is_dir():
        raise RunProblem(f"{target} is a folder; name a file in it: make backup FILE={file}/NAME")
    if target.exists():
        raise RunProblem(f"{target} exists already; a backup never overwrites one")
    if not target.parent.is_dir():
        raise RunProblem(f"there is no folder {target.parent}; make it first")
    return target


def _new_file(places: Places, name: str) -> Path:
    places.backups.mkdir(mode=0o700, exist_ok=True)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = places.backups / f"{name}-{stamp}.dump"
    number = 2
    while target.exists():
        target = places.backups / f"{name}-{stamp}-{number}.dump"
        number += 1
    return target


@contextmanager
def _owner_url(config: Config) -> Iterator[str]:
    """The owner's address of the copy's database, whether it runs or not."""
    places = config.places
    held = spawn.lock(places.lock)
    if held is None:
        running = read_env_file(places.env_file)
        if "MIGRATION_DATABASE_URL" not in running:
            raise RunProblem(f"the copy on {places.root} is starting or ending; try again soon")
        yield running["MIGRATION_DATABASE_URL"]
        return
    try:
        if config.database_url is not None:
            yield config.migration_database_url or config.database_url
            return
        server = PostgresServer(places)
        if not server.exists:
            raise RunProblem(f"there is no database in {places.root} yet: nothing to back up")
        spawn.kill_strays(places.root)
        with _ended_by_signals():
            try:
                server.start()
                yield server.url(OWNER)
            finally:
                server.stop()
    finally:
        os.close(held)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: what was started is stopped first."""

    def end(number: int, frame: object) -> None:
        raise Interrupted(signal.Signals(number).name)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dump(places: Places, url: str, target: Path, what: str) -> None:
    """Dump the books and say what they were; both see the same snapshot."""
    try:
        link = psycopg.connect(url, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise RunProblem(f"the database can't be reached: {error}") from error
    with link:
        link.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        link.execute("SET LOCAL statement_timeout = 0")
        link.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        schema = _schema(link)
        books = _books(link)
        if books is None:
            raise RunProblem("this database holds no books of Laisee: nothing to back up")
        (snapshot,) = link.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        clients = archive.clients(link.info.server_version // 10_000)
        digest = archive.write(places, clients, url, target, schema, snapshot)
    say(
        f"{what}: {target}\n"
        f"  {books.claims:,} claims (¥{books.claimed_fen / 100:,.2f}), {books.transfers:,} "
        f"transfers, {target.stat().st_size:,} bytes, sha256 {digest}"
    )


def _schema(link: psycopg.Connection[tuple[object, ...]]) -> str:
    row = link.execute("SELECT current_schema()").fetchone()
    if row is None or row[0] is None:
        raise RunProblem("the owner's search_path names no schema that exists")
    return str(row[0])


def _books(link: psycopg.Connection[tuple[object, ...]]) -> Books | None:
    """None: nothing of ours is in there."""
    row = link.execute("SELECT to_regclass('packets_claim'), to_regclass('packets_transfer')")
    if None in (row.fetchone() or (None,)):
        return None
    counts = link.execute(
        "SELECT (SELECT count(*) FROM packets_claim),"
        " (SELECT coalesce(sum(amount_fen), 0)::bigint FROM packets_claim),"
        " (SELECT count(*) FROM packets_transfer)"
    ).fetchone()
    assert counts is not None
    return Books(*(int(str(count)) for count in counts))


# --- restore --------------------------------------------------------------------------------------


def restore(config: Config, file: str | None) -> int:
    """Replace the books by those of `file`; the exit code. 0 only if they agree afterwards."""
    places = config.places
    source = _source(places, file)
    places.make()
    if spawn.lock(places.lock) is None:
        raise RunProblem(
            f"a copy runs on {places.root}; stop it first (Ctrl-C). Nothing was changed."
        )
    spawn.kill_strays(places.root)
    places.env_file.unlink(missing_ok=True)
    script = places.run / "restore.sql"
    launch = Launch(config)
    try:
        contents = _read(config, source, script)
        supervisor = Supervisor(places)
        try:
            supervisor.catch_signals()
            launch.servers(supervisor)
            _replace_books(launch, source, script)
            return _bring_in_line(launch, contents)
        finally:
            supervisor.stop()
    finally:
        script.unlink(missing_ok=True)


def _source(places: Places, file: str | None) -> Path:
    if not file:
        known = sorted(places.backups.glob("*.dump"), key=lambda path: path.stat().st_mtime)
        newest = [f"    make restore FILE={path}" for path in known[: -NEWEST_SHOWN - 1 : -1]]
        lines = ["name the backup: make restore FILE=…"]
        raise RunProblem("\n".join([*lines, *(["  The newest:", *newest] if newest else [])]))
    source = Path(file).expanduser().resolve()
    if not source.is_file():
        raise RunProblem(f"there is no file {source}")
    return source


def _read(config: Config, source: Path, script: Path) -> archive.Contents:
    """Read all of the backup and refuse what this copy couldn't live with."""
    checksum = archive.check_sum(source)
    contents = archive.unpack(config.places, archive.clients(), source, script)
    if unknown := archive.unknown_migrations(contents):
        raise RunProblem(
            f"{source} was made by a newer Laisee (it has {', '.join(unknown)}); "
            "restore it with that version"
        )
    _check_keys(config, contents)
    say(
        f"· {source.name} is sound: {contents.claims:,} claims, {contents.transfers:,} transfers, "
        f"{checksum}"
    )
    return contents


def _check_keys(config: Config, contents: archive.Contents) -> None:
    """Whether our ENCRYPTION_KEYS open the backup's seeds: without them no lane could go on."""
    path = config.places.secrets / "encryption_keys"
    spec = config.encryption_keys or (path.read_text().strip() if path.is_file() else "")
    keys = {key_id: key for key_id, _, key in (entry.partition(":") for entry in spec.split(","))}
    for key_id, secret in contents.secrets.items():
        try:
            Fernet(keys[key_id]).decrypt(secret.partition(":")[2])
        except (KeyError, ValueError, InvalidToken):
            raise RunProblem(
                f"the seeds in this backup are encrypted with a key {key_id!r} that this copy "
                f"doesn't have. Put the file encryption_keys of the copy that made it at {path}, "
                "or set ENCRYPTION_KEYS. Nothing was changed."
            ) from None


def _replace_books(launch: Launch, source: Path, script: Path) -> None:
    """One transaction: the old schema goes, the backup's comes. −9 at any point leaves either."""
    places, url = launch.places, launch.values["MIGRATION_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as link:
        others = link.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND usesysid IS NOT NULL AND pid <> pg_backend_pid()"
        ).fetchone()
        if others is not None and others[0]:
            raise RunProblem(
                f"{others[0]} other sessions use this database; stop whatever runs on it first. "
                "Nothing was changed."
            )
        schema, has_books = _schema(link), _books(link) is not None
        server_major = link.info.server_version // 10_000
    unfinished = places.unfinished_restore
    first_attempt = not unfinished.exists()
    # An earlier attempt kept what was there; what is there now may be its half.
    if has_books and first_attempt:
        places.backups.mkdir(mode=0o700, exist_ok=True)
        _dump(places, url, _new_file(places, "before-restore"), "· kept what is there")
    paths.write_private(unfinished, json.dumps({"file": str(source)}) + "\n")
    archive.forget_newer_settings(script, server_major)
    drop = sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)).as_string()
    say("· restoring")
    try:
        archive.run(
            places,
            url,
            archive.clients().path("psql"),
            *("--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"),
            *("--single-transaction", "--output=/dev/null"),
            "--command=SET client_min_messages = warning",
            *(f"--command={drop}", f"--file={script}"),
        )
    except archive.ProgramFailed as problem:
        # Only where Postgres itself refused a statement is it certain that all was rolled back.
        if problem.code == PSQL_REFUSED and first_attempt:
            unfinished.unlink()
            raise RunProblem(f"{problem}\n  Nothing was changed.") from problem
        raise


def _bring_in_line(launch: Launch, contents: archive.Contents) -> int:
    """Schema, rights, lanes and the money check, as after any start; then the doors may open."""
    launch.prepare_environment()
    launch.manage("migrate", "--noinput", "-v", "0", say_what="schema")
    launch.manage("grant_app_rights", say_what="rights of the application's role")
    reopened = launch.manage("reopen_lanes", say_what="new epochs").rstrip().splitlines()[-1]
    held = launch.manage("hold_payouts", say_what="payouts held").rstrip().splitlines()[-1]
    launch.places.unfinished_restore.unlink(missing_ok=True)
    if launch.command("manage.py", "audit_money", log=None).wait() != 0:
        say("! restored, but the books don't agree: see above, before you let anybody in")
        return 1
    say(
        f"restored: {contents.claims:,} claims, {contents.transfers:,} transfers; {reopened} in "
        "new epochs; the books agree. `make run` starts it."
    )
    say(f"· {held}: reconcile the days since the backup first (admin, Money)")
    return 0
