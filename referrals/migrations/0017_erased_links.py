from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    """Links that a ban has revoked stay revoked once their person was erased."""

    dependencies = [("referrals", "0016_circles")]

    operations = [InstallSql("referrals", "erasing.sql")]
