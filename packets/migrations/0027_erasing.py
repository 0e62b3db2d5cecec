"""A person's words may be erased from rows that are otherwise written once."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [
        ("engine", "0006_erasing"),
        ("packets", "0026_limit_of_inviter"),
    ]

    operations = [
        InstallSql("packets", "ledger.sql"),
        InstallSql("packets", "tickets.sql"),
        InstallSql("packets", "holds.sql"),
        InstallSql("packets", "payouts.sql"),
    ]
