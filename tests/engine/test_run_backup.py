"""Keeping the books and putting them back: nothing is lost by a refusal, a damaged file or a −9.

`tests/faults/test_restore.py` holds what the restored books say against what people heard.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.run import archive
from engine.run.paths import CHECKOUT
from engine.run.postgres import APP, OWNER, PostgresServer
from engine.run.valkey import ValkeyServer
from tests.conftest import wait_until
from tests.private_copy import Copy

# Whole copies start here, on cores that the other tests of a busy machine may be using.
pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Kept:
    """A copy that has been stopped, and a backup that was made while it ran."""

    copy: Copy
    file: Path
    said: str
    transfers: int

    def traces(self) -> tuple[Any, ...]:
        """What changes as soon as anything of the copy is touched."""
        places = self.copy.places
        control = places.postgres / "global" / "pg_control"
        return (
            sorted(path.name for path in places.backups.iterdir()),
            control.read_bytes() if control.exists() else b"",
            places.log_file("postgres").read_bytes(),
            places.unfinished_restore.exists(),
            sorted(path.name for path in places.run.iterdir()),
            self.copy.alive(),
        )


@pytest.fixture(scope="module")
def kept(laisee: Copy) -> Kept:
    """The tests that take `laisee` alone stand before those that take this: it stops the copy."""
    done = laisee.launcher("backup")
    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(laisee.env["MIGRATION_DATABASE_URL"]) as link:
        (transfers,) = link.execute("SELECT count(*) FROM packets_transfer").fetchone() or (0,)
    assert laisee.stop() == 0
    file = Path(done.stdout.splitlines()[0].removeprefix("backup: "))
    return Kept(laisee, file, done.stdout, transfers)


# --- while it runs --------------------------------------------------------------------------------


def test_a_restore_is_refused_while_the_copy_runs(laisee: Copy, tmp_path: Path) -> None:
    before = laisee.pids()
    file = tmp_path / "books.dump"
    assert laisee.launcher("backup", str(file)).returncode == 0

    done = laisee.launcher("restore", str(file))

    assert done.returncode == 1
    assert "a copy runs on" in done.stdout
    assert "stop it first (Ctrl-C). Nothing was changed." in done.stdout
    assert laisee.pids() == before
    assert laisee.env["PORT"] == str(laisee.port)


def test_a_backup_overwrites_nothing(laisee: Copy, tmp_path: Path) -> None:
    file = tmp_path / "holiday.jpg"
    file.write_bytes(b"a picture")

    done = laisee.launcher("backup", str(file))

    assert done.returncode == 1
    assert f"{file} exists already" in done.stdout
    assert file.read_bytes() == b"a picture"
    assert sorted(tmp_path.iterdir()) == [file]
    nowhere = laisee.launcher("backup", str(tmp_path / "no" / "such.dump"))
    assert (nowhere.returncode, "there is no folder" in nowhere.stdout) == (1, True)


# --- what a backup is -----------------------------------------------------------------------------


def test_a_backup_says_what_it_holds_and_is_for_its_owner_alone(kept: Kept) -> None:
    digest = archive.sha256(kept.file)
    assert kept.file.parent == kept.copy.places.backups
    assert f"0 claims (¥0.00), {kept.transfers} transfers" in kept.said
    assert kept.transfers > 0
    assert f"sha256 {digest}" in kept.said
    assert "secrets/encryption_keys" in kept.said
    assert kept.file.parent.stat().st_mode & 0o777 == 0o700
    for path in kept.file.parent.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path
    checked = subprocess.run(
        ["sha256sum", "-c", f"{kept.file.name}.sha256"], cwd=kept.file.parent, capture_output=True
    )
    assert checked.returncode == 0


def test_a_copy_that_does_not_run_is_kept_by_starting_postgres_alone(
    kept: Kept, tmp_path: Path
) -> None:
    done = kept.copy.launcher("backup", str(tmp_path / "cold.dump"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"0 claims (¥0.00), {kept.transfers} transfers" in done.stdout
    assert kept.copy.alive() == []
    assert not kept.copy.places.env_file.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cold.dump", "cold.dump.sha256"]


def test_nothing_is_made_up_where_no_books_are(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    done = copy.launcher("backup")
    assert (done.returncode, done.stdout) == (
        1,
        f"! there is no database in {copy.places.root} yet: nothing to back up\n",
    )
    assert not copy.places.backups.exists()


# --- refused before anything is touched -----------------------------------------------------------


def _cut_at_the_end(data: bytes) -> bytes:
    return data[:-1]


def _cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _a_bit_of_a_name(data: bytes) -> bytes:
    # In the table of contents, which has no check of its own: only the checksum tells.
    at = data.index(b"packets_transfer")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _a_bit_of_a_row(data: bytes) -> bytes:
    # The rows are the end of the archive.
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def _a_text(data: bytes) -> bytes:
    return b"CREATE TABLE books ();\n"


@pytest.mark.parametrize(
    ("damage", "with_checksum"),
    [
        (_cut_at_the_end, False),
        (_cut_in_half, False),
        (_cut_in_half, True),
        (_a_bit_of_a_row, False),
        (_a_bit_of_a_name, True),
        (_a_text, False),
    ],
)
def test_a_damaged_backup_is_refused(
    kept: Kept, tmp_path: Path, damage: Callable[[bytes], bytes], with_checksum: bool
) -> None:
    file = tmp_path / kept.file.name
    file.write_bytes(damage(kept.file.read_bytes()))
    if with_checksum:
        shutil.copy(f"{kept.file}.sha256", tmp_path)
    before = kept.traces()

    done = kept.copy.launcher("restore", str(file))

    assert done.returncode == 1
    assert ("is damaged: its SHA-256" if with_checksum else "is no archive") in done.stdout
    assert kept.traces() == before


def test_a_file_that_is_not_there_is_named_and_none_lists_the_newest(kept: Kept) -> None:
    before = kept.traces()
    done = kept.copy.launcher("restore", "/no/such.dump")
    assert (done.returncode, done.stdout) == (1, "! there is no file /no/such.dump\n")

    unnamed = kept.copy.launcher("restore")

    assert unnamed.returncode == 1
    assert unnamed.stdout.startswith("! name the backup: make restore FILE=…\n")
    assert f"make restore FILE={kept.file}\n" in unnamed.stdout
    assert kept.traces() == before


def test_seeds_that_nobody_could_read_are_refused(kept: Kept) -> None:
    before = kept.traces()
    foreign = "k1:" + "A" * 43 + "="

    done = kept.copy.launcher("restore", str(kept.file), ENCRYPTION_KEYS=foreign)

    assert done.returncode == 1
    assert "encrypted with a key 'k1' that this copy doesn't have" in done.stdout
    assert kept.traces() == before


def test_a_backup_of_a_newer_laisee_is_recognised(tmp_path: Path) -> None:
    script = tmp_path / "restore.sql"
    script.write_text(
        "COPY public.django_migrations (id, app, name, applied) FROM stdin;\n"
        "1\tpackets\t0001_initial\t2026-01-01\n"
        "2\tpackets\t0999_tomorrow\t2026-01-01\n"
        "3\tauth\t0999_not_ours\t2026-01-01\n"
        "\\.\n"
    )
    contents = archive.inspect(script)
    assert contents.rows == {"django_migrations": 3}
    assert archive.unknown_migrations(contents) == ["packets.0999_tomorrow"]


@pytest.mark.parametrize(("server_major", "kept_setting"), [(16, b"-- "), (17, b"SET")])
def test_an_older_server_is_spared_a_setting_it_does_not_know(
    tmp_path: Path, server_major: int, kept_setting: bytes
) -> None:
    script = tmp_path / "restore.sql"
    text = b"SET lock_timeout = 0;\n%s transaction_timeout = 0;\nSELECT 1;\n"
    script.write_bytes(text % b"SET")
    archive.forget_newer_settings(script, server_major)
    assert script.read_bytes() == text % kept_setting


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["· restoring", "· schema: done"])
def test_a_restore_that_was_killed_is_finished_by_the_next_one(kept: Kept, moment: str) -> None:
    copy, safety = kept.copy, kept.copy.places.backups
    before = {path.name for path in safety.glob("before-restore-*.dump")}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "engine.run", "restore", str(kept.file)],
        cwd=CHECKOUT,
        env=copy.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(moment):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not copy.alive(), 20, "the end of what the restore had started")

    # Nobody gets in before it is finished.
    refused = copy.launcher("up")
    assert refused.returncode == 1
    assert f"finish it first: make restore FILE={kept.file}\n" in refused.stdout

    done = copy.launcher("restore", str(kept.file))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"restored: 0 claims, {kept.transfers} transfers" in done.stdout
    assert not copy.places.unfinished_restore.exists()
    assert copy.alive() == []
    # What was there was kept once, by the first attempt: the second might have kept a half.
    made = {path.name for path in safety.glob("before-restore-*.dump")} - before
    assert len(made) == 1


# --- elsewhere ------------------------------------------------------------------------------------


def test_clean_keeps_the_backups_and_what_opens_them(kept: Kept) -> None:
    places = kept.copy.places
    secret = (places.secrets / "encryption_keys").read_text()

    cleaned = kept.copy.launcher("clean")

    assert cleaned.returncode == 0
    assert f"{places.backups} and {places.secrets}" in cleaned.stdout
    assert sorted(path.name for path in places.root.iterdir()) == ["backups", "secrets"]

    # The empty folder takes the books back: a database is made for them.
    done = kept.copy.launcher("restore", str(kept.file))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "making the database" in done.stdout
    assert "kept what is there" not in done.stdout
    assert f"restored: 0 claims, {kept.transfers} transfers" in done.stdout
    assert (places.secrets / "encryption_keys").read_text() == secret


def test_servers_of_yours_are_kept_and_restored_too(
    kept: Kept, tmp_path: Path, postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    keys = (kept.copy.places.secrets / "encryption_keys").read_text().strip()
    copy = Copy(
        tmp_path,
        DATABASE_URL=postgres_server.url(APP),
        MIGRATION_DATABASE_URL=postgres_server.url(OWNER),
        REDIS_URL=valkey_server.url,
        ENCRYPTION_KEYS=keys,
    )
    with psycopg.connect(postgres_server.url(OWNER)) as link:
        link.execute("CREATE TABLE later (fen int)")
    # Somebody is on it: a restore would pull the tables from under them.
    with psycopg.connect(postgres_server.url(APP)) as link:
        refused = copy.launcher("restore", str(kept.file))
        assert refused.returncode == 1
        assert "1 other sessions use this database" in refused.stdout
        assert link.execute("SELECT to_regclass('later')::text").fetchone() == ("later",)
    assert not copy.places.unfinished_restore.exists()

    done = copy.launcher("restore", str(kept.file))

    assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(postgres_server.url(OWNER)) as link:
        assert link.execute("SELECT to_regclass('later')").fetchone() == (None,)
        found = link.execute("SELECT count(*) FROM packets_transfer").fetchone()
        assert found == (kept.transfers,)
    with psycopg.connect(postgres_server.url(APP)) as link:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            link.execute("DELETE FROM packets_transfer")
        link.rollback()
    again = copy.launcher("backup", str(tmp_path / "again.dump"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"0 claims (¥0.00), {kept.transfers} transfers" in again.stdout
    assert "encryption_keys" not in again.stdout
