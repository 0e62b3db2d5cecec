"""The commit function's look-ups are by key, whatever a table's statistics say."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0009_direct_tiers")]

    operations = [InstallSql("packets", "commit_claims.sql")]
