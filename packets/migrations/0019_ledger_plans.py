"""The ledger's trigger keeps its way of looking accounts up, whatever its caller has switched off."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0018_decisions")]

    operations = [InstallSql("packets", "ledger.sql")]
