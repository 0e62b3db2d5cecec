"""The commit function, and the gate that stands before everything."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from engine.lib.sql import InstallSql


def create_gate_all(apps: Any, schema_editor: Any) -> None:
    apps.get_model("packets", "Gate").objects.create(key="all", state="open")


class Migration(migrations.Migration):
    dependencies = [("packets", "0001_initial")]

    operations = [
        migrations.RunPython(create_gate_all, migrations.RunPython.noop),
        InstallSql("packets", "commit_claims.sql"),
    ]
