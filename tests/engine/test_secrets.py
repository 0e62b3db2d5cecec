"""Secrets at rest, and the names of people: what is kept can be read back, and nothing else can."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from engine.lib import ids
from engine.lib.crypto import UnreadableSecret, decrypt, encrypt
from engine.lib.sql import InstallSql, load

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def test_a_new_first_key_encrypts_and_the_old_still_decrypts(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [f"k1:{OLD}"]
    stored = encrypt(b"seed")
    assert stored.startswith("k1:")
    assert b"seed" not in stored.encode()
    settings.ENCRYPTION_KEYS = [f"k2:{NEW}", f"k1:{OLD}"]
    assert decrypt(stored) == b"seed"
    assert encrypt(b"seed").startswith("k2:")
    settings.ENCRYPTION_KEYS = [f"k2:{NEW}"]
    with pytest.raises(UnreadableSecret, match="no key 'k1'"):
        decrypt(stored)
    settings.ENCRYPTION_KEYS = [f"k1:{NEW}"]
    with pytest.raises(UnreadableSecret, match="doesn't fit"):
        decrypt(stored)
    settings.ENCRYPTION_KEYS = []
    with pytest.raises(ImproperlyConfigured):
        encrypt(b"seed")


def test_a_person_is_app_and_subject_and_nothing_runs_together() -> None:
    digests = {
        ids.participant_digest(app, subject)
        for app, subject in [(1, "1001"), (2, "1001"), (11, "001"), (1, "1001 "), (1, "l001")]
    }
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {16}


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n"])
def test_texts_that_are_no_id(text: str) -> None:
    assert ids.parse_hex_id(text) is None


def test_an_id_reads_back() -> None:
    made = uuid.uuid4()
    assert ids.parse_hex_id(made.hex) == made


def test_sql_is_kept_in_files_and_named_by_migrations() -> None:
    assert "audit_append_only" in load("engine", "audit.sql")
    operation = InstallSql("engine", "audit.sql")
    assert operation.deconstruct() == ("InstallSql", ["engine", "audit.sql"], {})
    assert operation.describe() == "Install engine/sql/audit.sql"
    assert operation.reversible
