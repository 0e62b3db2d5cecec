"""What is kept for ever goes where its owner removes a drill."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0028_ledger_by_key")]

    operations = [
        InstallSql("packets", "ledger.sql"),
        InstallSql("packets", "holds.sql"),
        InstallSql("packets", "payouts.sql"),
    ]
