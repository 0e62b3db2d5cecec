"""Who is erased is no longer named in what was told."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("engine", "0005_challenge_event")]

    operations = [InstallSql("engine", "erasing.sql"), InstallSql("engine", "webhooks.sql")]
