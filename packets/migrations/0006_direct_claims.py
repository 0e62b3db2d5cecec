"""Claims without Redis: the lane's lease, the epoch's cause, and the functions."""

from __future__ import annotations

from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0005_tickets")]

    operations = [
        migrations.AddField(
            model_name="lane",
            name="direct_until",
            field=models.DateTimeField(null=True, verbose_name="lease without Redis"),
        ),
        migrations.AlterField(
            model_name="laneepoch",
            name="cause",
            field=models.CharField(
                choices=[
                    ("opened", "opened"),
                    ("rebuilt", "rebuilt"),
                    ("restored", "restored from backup"),
                    ("direct", "served without Redis"),
                ],
                max_length=10,
                verbose_name="cause",
            ),
        ),
        InstallSql("packets", "direct_lane.sql"),
    ]
