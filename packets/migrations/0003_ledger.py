"""The ledger: its trigger, its guards, and how its tables are stored."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0002_commit_claims")]

    operations = [InstallSql("packets", "ledger.sql")]
