"""SQL that lives in files, and the migration operation that installs it.

Triggers and functions are kept as `<app>/sql/<name>.sql` so that they can be read, reviewed and
tested as SQL. A file must be written so that running it again is harmless (`CREATE OR REPLACE`,
`DROP TRIGGER IF EXISTS`): a later migration installs the newer text by naming the same file again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

ROOT = Path(__file__).resolve().parent.parent.parent


def load(app: str, file: str) -> str:
    """The text of `<app>/sql/<file>`."""
    return (ROOT / app / "sql" / file).read_text(encoding="utf-8")


def _run(app: str, file: str, apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # Without parameters psycopg sends the whole text as one script, in the migration's transaction;
    # percent signs and dollar quotes need no escaping.
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(load(app, file))


def _leave(apps: Any, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Going backwards drops the tables, and their triggers with them."""


class InstallSql(migrations.RunPython):
    """`InstallSql("packets", "ledger.sql")` runs packets/sql/ledger.sql; reversing does nothing."""

    reduces_to_sql = False

    def __init__(self, app: str, file: str) -> None:
        self.app = app
        self.file = file
        super().__init__(partial(_run, app, file), _leave)

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return (self.__class__.__name__, [self.app, self.file], {})

    def describe(self) -> str:
        return f"Install {self.app}/sql/{self.file}"
