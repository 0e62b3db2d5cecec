"""Published rules, and who promises them. Filled as campaigns are approved; those that run already
are published by the clock (`campaign.tasks.campaign_clock`)."""

from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [
        ("campaign", "0015_growth_ways"),
        ("packets", "0019_ledger_plans"),  # laisee_insert_only
    ]

    operations = [
        migrations.AddField(
            model_name="campaign",
            name="contact_en",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=500,
                verbose_name="complaints (English)",
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="contact_zh",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=500,
                verbose_name="complaints (Chinese)",
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="organiser_en",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=120,
                verbose_name="organiser (English)",
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="organiser_zh",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=120,
                verbose_name="organiser (Chinese)",
            ),
        ),
        migrations.CreateModel(
            name="Disclosure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveIntegerField(verbose_name="version")),
                (
                    "cause",
                    models.CharField(
                        choices=[
                            ("approved", "approved"),
                            ("topped_up", "topped up"),
                            ("extended", "moved the end"),
                            ("round_moved", "moved a round"),
                            ("growth", "changed how it spreads"),
                        ],
                        max_length=12,
                        verbose_name="why",
                    ),
                ),
                ("version_hash", models.CharField(max_length=64, verbose_name="version hash")),
                ("body", models.TextField(verbose_name="what was published")),
                ("sha256", models.CharField(max_length=64, verbose_name="SHA-256 of it")),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="published at",
                    ),
                ),
                (
                    "campaign",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="disclosures",
                        to="campaign.campaign",
                        verbose_name="campaign",
                    ),
                ),
            ],
            options={
                "verbose_name": "published rules",
                "verbose_name_plural": "published rules",
                "ordering": ["campaign", "-number"],
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(fields=("campaign", "number"), name="disclosure_number")
                ],
            },
        ),
        InstallSql("campaign", "disclosing.sql"),
    ]
