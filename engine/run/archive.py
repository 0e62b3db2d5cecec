"""Archives of the database: written whole or not at all, and read to the end before they are used.

An archive is a `pg_dump` of the one schema, in the custom format, with a line for `sha256sum -c`
beside it (`NAME.sha256`). Owners and rights are not in it: whoever restores it becomes the owner,
and `manage.py grant_app_rights` says what the application may do. Invariant: a file under an
archive's own name is complete; a password is never on a command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import conninfo

from engine.run import paths, spawn
from engine.run.paths import CHECKOUT, Places, RunProblem

PROGRAMS = ("pg_dump", "pg_restore", "psql")
# Milliseconds that a dump waits for a table which a migration holds.
DUMP_LOCK_TIMEOUT_MS = 10_000
# What no archive of ours lacks.
TABLES = ("django_migrations", "packets_packet", "packets_claim", "packets_transfer")
# Where secrets are encrypted with ENCRYPTION_KEYS: table -> column.
SECRETS = {"packets_packet": "seed_encrypted", "engine_clientkey": "secret_encrypted"}
ROOMS = ("engine", "packets", "campaign", "referrals")
_COPY = re.compile(rb'COPY ("?)(\w+)\1\.("?)(\w+)\3 \((.*)\) FROM stdin;\n')


class ProgramFailed(RunProblem):
    """A client program of Postgres ended with `code`; the message says what it said."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


# --- Postgres's client programs -------------------------------------------------------------------


@dataclass(frozen=True)
class Clients:
    """pg_dump, pg_restore and psql of one version, in one folder."""

    folder: Path
    major: int

    def path(self, program: str) -> str:
        return str(self.folder / program)


def _major(folder: Path) -> int | None:
    if not all((folder / program).is_file() for program in PROGRAMS):
        return None
    command = [str(folder / "pg_dump"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)", said)
    return int(found.group(1)) if found else None


def _folders() -> Iterator[Path]:
    with contextlib.suppress(RunProblem):  # no wheels: a server of one's own, and its programs
        yield paths.postgres_bin()
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def clients(server_major: int = 0) -> Clients:
    """The programs of the server's own version, else the oldest that are newer than it.

    Without a server in view: the newest, because they read every older archive.
    """
    found = [Clients(folder, major) for folder in _folders() if (major := _major(folder))]
    fitting = sorted((one for one in found if one.major >= server_major), key=lambda c: c.major)
    if not fitting:
        raise RunProblem(
            f"pg_dump, pg_restore and psql of version {server_major or 14} or newer are needed and "
            "not here; on Debian and Ubuntu: apt install postgresql-client"
        )
    return fitting[0] if server_major else fitting[-1]


def run(places: Places, url: str, *command: str) -> None:
    """Run a client program on the database at `url`; it dies with us. Raises with what it said."""
    parts = conninfo.conninfo_to_dict(url)
    password = parts.pop("password", None)
    address = [f"--dbname={conninfo.make_conninfo('', **parts)}"] if url else []
    log = places.log_file("backup")
    log.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    process = spawn.start(
        [*command, *address],
        name="backup",
        data_dir=places.root,
        log=log,
        death_signal=signal.SIGKILL,
        environ={**kept, "LANG": "C", **({"PGPASSWORD": str(password)} if password else {})},
    )
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        name = Path(command[0]).name
        raise ProgramFailed(f"{name} failed (exit code {code}):\n{spawn.tail(log, 8)}", code)


# --- writing --------------------------------------------------------------------------------------


def write(places: Places, clients: Clients, url: str, target: Path, schema: str, snap: str) -> str:
    """Dump `schema` as the exported snapshot `snap` shows it into `target`; its SHA-256."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    checksum = _checksum_file(target)
    try:
        # Made first, so that nobody else can read it at any moment.
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        run(
            places,
            url,
            clients.path("pg_dump"),
            *("--format=custom", "--no-owner", "--no-privileges", "--no-password"),
            *(f"--schema={schema}", f"--snapshot={snap}", f"--file={fresh}"),
            f"--lock-wait-timeout={DUMP_LOCK_TIMEOUT_MS}",
        )
        digest = sha256(fresh)
        paths.write_private(checksum, f"{digest}  {target.name}\n")
        _flush(fresh)
        fresh.replace(target)
        _flush(target.parent)
    except BaseException:
        fresh.unlink(missing_ok=True)
        if not target.exists():
            checksum.unlink(missing_ok=True)
        raise
    return digest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_file(archive: Path) -> Path:
    return archive.with_name(archive.name + ".sha256")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading --------------------------------------------------------------------------------------


@dataclass
class Contents:
    """What an archive would put into the database."""

    schemas: set[str] = field(default_factory=set)
    rows: dict[str, int] = field(default_factory=dict)
    migrations: list[tuple[str, str]] = field(default_factory=list)
    # One secret for each name of an encryption key: `keyid:token`.
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> int:
        return self.rows.get("packets_claim", 0)

    @property
    def transfers(self) -> int:
        return self.rows.get("packets_transfer", 0)


def check_sum(archive: Path) -> str:
    """What to say of the archive's SHA-256; it must be the one that was written down beside it."""
    digest = sha256(archive)
    beside = _checksum_file(archive)
    if not beside.is_file():
        return f"sha256 {digest} (not checked: there is no {beside.name} beside it)"
    if beside.read_text().split()[:1] != [digest]:
        raise RunProblem(
            f"{archive} is damaged: its SHA-256 is {digest}, and {beside.name} says otherwise"
        )
    return f"sha256 {digest}"


def unpack(places: Places, clients: Clients, archive: Path, script: Path) -> Contents:
    """Write the archive as SQL to `script`, which reads every byte of it, and say what it holds."""
    os.close(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        run(
            places,
            "",
            clients.path("pg_restore"),
            *("--no-owner", "--no-privileges", "--exit-on-error", f"--file={script}"),
            str(archive),
        )
    except RunProblem as problem:
        raise RunProblem(f"{archive} is no archive, or a damaged one; {problem}") from problem
    contents = inspect(script)
    missing = [table for table in TABLES if table not in contents.rows]
    if missing:
        raise RunProblem(f"{archive} holds no books of Laisee: {', '.join(missing)} is missing")
    return contents


def inspect(script: Path) -> Contents:
    """Read the rows of a SQL script as pg_restore writes it."""
    contents = Contents()
    table, columns = "", []
    with script.open("rb") as file:
        for line in file:
            if not table:
                if line.startswith(b"COPY ") and (head := _COPY.fullmatch(line)):
                    contents.schemas.add(head[2].decode())
                    table = head[4].decode()
                    columns = [name.strip(' "') for name in head[5].decode().split(",")]
                    contents.rows[table] = 0
            elif line == b"\\.\n":
                table = ""
            else:
                contents.rows[table] += 1
                if table == "django_migrations":
                    values = _values(line, columns)
                    contents.migrations.append((values["app"], values["name"]))
                elif table in SECRETS and (text := _values(line, columns)[SECRETS[table]]):
                    contents.secrets[text.partition(":")[0]] = text
    return contents


def _values(line: bytes, columns: list[str]) -> dict[str, str]:
    # None of the columns that are looked at can hold a character that COPY would escape.
    return dict(zip(columns, line.decode().rstrip("\n").split("\t"), strict=True))


def unknown_migrations(contents: Contents) -> list[str]:
    """Migrations of ours that the archive has seen and this checkout doesn't have."""
    return [
        f"{app}.{name}"
        for app, name in contents.migrations
        if app in ROOMS and not (CHECKOUT / app / "migrations" / f"{name}.py").is_file()
    ]


def forget_newer_settings(script: Path, server_major: int) -> None:
    """Comment out what pg_restore of 17 and newer sets and an older server doesn't know."""
    if server_major >= 17:
        return
    with script.open("r+b") as file:
        start = file.read(8_192)
        at = start.find(b"\nSET transaction_timeout")
        if at >= 0:
            file.seek(at + 1)
            file.write(b"-- ")  # as long as "SET"
