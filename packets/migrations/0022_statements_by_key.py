"""Statements are compared by key, and in ranges: the functions anew."""

from __future__ import annotations

from django.db import migrations

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0021_people_packets_newest")]

    operations = [InstallSql("packets", "reconciling.sql")]
