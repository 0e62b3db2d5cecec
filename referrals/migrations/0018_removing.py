"""Which rows may go: those of a drill that its owner is removing."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [
        ("referrals", "0017_erased_links"),
        ("packets", "0029_removing"),
        ("engine", "0007_drills"),
    ]

    operations = [InstallSql("referrals", "removing.sql")]
