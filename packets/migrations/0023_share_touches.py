"""Codes of share links that come with claims are written down until they are looked at."""

from __future__ import annotations

import django.db.models.functions.datetime
from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0022_statements_by_key"),
    ]

    operations = [
        migrations.CreateModel(
            name="ShareTouch",
            fields=[
                (
                    "claim_id",
                    models.UUIDField(primary_key=True, serialize=False, verbose_name="claim"),
                ),
                ("client_app_id", models.BigIntegerField(verbose_name="client app")),
                ("code", models.CharField(max_length=64, verbose_name="code")),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="at"
                    ),
                ),
                (
                    "due_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="due at"
                    ),
                ),
            ],
            options={
                "verbose_name": "code of a claim",
                "verbose_name_plural": "codes of claims",
                "indexes": [models.Index(fields=["due_at"], name="sharetouch_due")],
            },
        ),
        InstallSql("packets", "touches.sql"),
    ]
