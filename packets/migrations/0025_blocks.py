"""Who wins nothing behind a gate, and how often that changed."""

from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0024_limit_of_link"),
    ]

    operations = [
        migrations.AddField(
            model_name="gate",
            name="blocks",
            field=models.PositiveBigIntegerField(
                db_default=0, verbose_name="changes of blocked people"
            ),
        ),
        migrations.CreateModel(
            name="Block",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("participant", models.BinaryField(max_length=16, verbose_name="participant")),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="at"
                    ),
                ),
                (
                    "gate",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="blocked",
                        to="packets.gate",
                        verbose_name="gate",
                    ),
                ),
            ],
            options={
                "verbose_name": "blocked person",
                "verbose_name_plural": "blocked people",
                "constraints": [
                    models.UniqueConstraint(fields=("gate", "participant"), name="block_once")
                ],
            },
        ),
    ]
