"""People who may not spread a campaign any more, and the rewards held because of it."""

from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("campaign", "0014_sharing"),
        ("packets", "0023_share_touches"),
        ("referrals", "0003_rewarding"),
    ]

    operations = [
        migrations.CreateModel(
            name="Ban",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("participant", models.BinaryField(max_length=16, verbose_name="participant")),
                ("reason", models.CharField(max_length=200, verbose_name="reason")),
                ("banned_by", models.CharField(max_length=150, verbose_name="banned by")),
                (
                    "banned_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="banned at",
                    ),
                ),
                (
                    "lifted_by",
                    models.CharField(
                        blank=True, db_default="", max_length=150, verbose_name="lifted by"
                    ),
                ),
                ("lifted_at", models.DateTimeField(null=True, verbose_name="lifted at")),
                (
                    "lift_reason",
                    models.CharField(
                        blank=True, db_default="", max_length=200, verbose_name="why it was lifted"
                    ),
                ),
                (
                    "is_done",
                    models.BooleanField(
                        db_default=False, default=False, verbose_name="carried out"
                    ),
                ),
                (
                    "due_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="due at"
                    ),
                ),
                (
                    "campaign",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="bans",
                        to="campaign.campaign",
                        verbose_name="campaign",
                    ),
                ),
            ],
            options={
                "verbose_name": "ban",
                "verbose_name_plural": "bans",
                "permissions": [("ban_person", "Can ban people and lift bans")],
            },
        ),
        migrations.CreateModel(
            name="BanReward",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "ban",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="rewards",
                        to="referrals.ban",
                        verbose_name="ban",
                    ),
                ),
                (
                    "hold",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ban",
                        to="packets.hold",
                        verbose_name="hold",
                    ),
                ),
                (
                    "reward",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="bans",
                        to="referrals.reward",
                        verbose_name="reward",
                    ),
                ),
            ],
            options={
                "verbose_name": "reward of a ban",
                "verbose_name_plural": "rewards of bans",
            },
        ),
        migrations.AddIndex(
            model_name="ban",
            index=models.Index(
                condition=models.Q(("is_done", False)), fields=["due_at"], name="ban_due"
            ),
        ),
        migrations.AddConstraint(
            model_name="ban",
            constraint=models.UniqueConstraint(
                condition=models.Q(("lifted_at", None)),
                fields=("participant", "campaign"),
                name="ban_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="banreward",
            constraint=models.UniqueConstraint(fields=("ban", "reward"), name="banreward_once"),
        ),
    ]
