"""A packet without prizes counts none of them."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0008_direct_end")]

    operations = [InstallSql("packets", "direct_lane.sql")]
