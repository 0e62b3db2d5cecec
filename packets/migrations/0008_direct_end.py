"""Without Redis a window ends at its end: no grace for what nobody has reserved."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0007_rebalancing")]

    operations = [InstallSql("packets", "direct_lane.sql")]
