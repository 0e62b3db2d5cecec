"""What is left of a packet moves between its lanes; nobody read the stock version."""

from __future__ import annotations

from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0006_direct_claims")]

    operations = [
        # The column itself goes with the next version: the one before this still reads it.
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE packets_packet ALTER COLUMN stock_version SET DEFAULT 1",
                    migrations.RunSQL.noop,
                )
            ],
            state_operations=[migrations.RemoveField(model_name="packet", name="stock_version")],
        ),
        migrations.AddField(
            model_name="laneepoch",
            name="move",
            field=models.BigIntegerField(null=True, verbose_name="move"),
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
                    ("rebalanced", "rebalanced"),
                ],
                max_length=10,
                verbose_name="cause",
            ),
        ),
        migrations.RemoveConstraint(model_name="lane", name="lane_shape"),
        migrations.AddConstraint(
            model_name="lane",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("count__gte", 0),
                    ("count__lte", 94906265),
                    ("total_fen__gte", models.F("count")),
                ),
                name="lane_shape",
            ),
        ),
        InstallSql("packets", "direct_lane.sql"),
        InstallSql("packets", "rebalance.sql"),
    ]
