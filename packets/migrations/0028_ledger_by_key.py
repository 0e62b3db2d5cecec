"""A transfer looks its accounts up by key whatever Postgres believes about how many there are."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0027_erasing")]

    operations = [InstallSql("packets", "ledger.sql")]
