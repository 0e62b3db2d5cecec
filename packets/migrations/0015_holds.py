"""Money that waits for a person, and the rules that make it wait."""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0014_people_packets"),
    ]

    operations = [
        migrations.CreateModel(
            name="Hold",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, primary_key=True, serialize=False, verbose_name="id"
                    ),
                ),
                ("participant", models.BinaryField(max_length=16, verbose_name="participant")),
                ("amount_fen", models.BigIntegerField(verbose_name="amount")),
                (
                    "currency",
                    models.CharField(default="CNY", max_length=3, verbose_name="currency"),
                ),
                ("reasons", models.JSONField(default=list, verbose_name="reasons")),
                ("evidence", models.JSONField(default=list, verbose_name="evidence")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "open"),
                            ("released", "released"),
                            ("forfeited", "forfeited"),
                        ],
                        default="open",
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("opened_by", models.CharField(max_length=150, verbose_name="held by")),
                (
                    "opened_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="held since",
                    ),
                ),
                (
                    "resolved_by",
                    models.CharField(
                        blank=True, db_default="", max_length=150, verbose_name="decided by"
                    ),
                ),
                ("resolved_at", models.DateTimeField(null=True, verbose_name="decided at")),
                (
                    "reason",
                    models.CharField(
                        blank=True, db_default="", max_length=200, verbose_name="reason"
                    ),
                ),
                (
                    "claim",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="hold",
                        to="packets.claim",
                        verbose_name="claim",
                    ),
                ),
                (
                    "funder",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="packets.account",
                        verbose_name="funded by",
                    ),
                ),
                (
                    "wallet",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="packets.account",
                        verbose_name="wallet",
                    ),
                ),
            ],
            options={
                "verbose_name": "hold",
                "verbose_name_plural": "holds",
                "permissions": [("resolve_hold", "Can release and forfeit held money")],
            },
        ),
        migrations.AlterField(
            model_name="claimstate",
            name="state",
            field=models.CharField(
                choices=[
                    ("settled", "settled"),
                    ("parked", "parked: settlement was refused"),
                    ("held", "held for review"),
                    ("forfeited", "forfeited"),
                ],
                max_length=10,
                verbose_name="state",
            ),
        ),
        migrations.CreateModel(
            name="HoldAppeal",
            fields=[
                (
                    "hold",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="appeal",
                        serialize=False,
                        to="packets.hold",
                        verbose_name="hold",
                    ),
                ),
                ("text_encrypted", models.TextField(verbose_name="text (encrypted)")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="appealed at",
                    ),
                ),
            ],
            options={
                "verbose_name": "appeal",
                "verbose_name_plural": "appeals",
            },
        ),
        migrations.CreateModel(
            name="RiskRule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("rule", models.UUIDField(default=uuid.uuid4, verbose_name="rule")),
                ("version", models.PositiveIntegerField(default=1, verbose_name="version")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("claims_per_person", "one person's claims"),
                            ("amount_per_person", "money that one person wins"),
                            ("wallets_per_payee", "wallets paid out to one account"),
                            ("amount_per_payee", "money paid out to one account"),
                        ],
                        max_length=24,
                        verbose_name="what is counted",
                    ),
                ),
                ("most", models.BigIntegerField(verbose_name="still usual")),
                ("window_s", models.PositiveIntegerField(verbose_name="window (seconds)")),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                ("note", models.CharField(blank=True, max_length=200, verbose_name="note")),
                ("changed_by", models.CharField(max_length=150, verbose_name="changed by")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        verbose_name="valid from",
                    ),
                ),
            ],
            options={
                "verbose_name": "risk rule",
                "verbose_name_plural": "risk rules",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("rule", "version"), name="riskrule_version_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("most__gte", 1), ("most__lte", 9007199254740991)),
                        name="riskrule_most",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("window_s__gte", 1), ("window_s__lte", 2678400)),
                        name="riskrule_window",
                    ),
                ],
            },
        ),
        migrations.AddField(
            model_name="hold",
            name="rule",
            field=models.ForeignKey(
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="holds",
                to="packets.riskrule",
                verbose_name="risk rule",
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(
                condition=models.Q(("state", "open")), fields=["opened_at"], name="hold_open"
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(
                condition=models.Q(("state", "open")), fields=["funder"], name="hold_open_funder"
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(
                fields=["participant", "-opened_at", "-id"], name="hold_participant"
            ),
        ),
        migrations.AddIndex(
            model_name="hold",
            index=models.Index(fields=["-opened_at"], name="hold_newest"),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_fen__gt", 0), ("amount_fen__lte", 9007199254740991)),
                name="hold_amount",
            ),
        ),
        migrations.AddConstraint(
            model_name="hold",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("resolved_at", None), ("state", "open")),
                    models.Q(
                        ("resolved_at__isnull", False), ("state__in", ["released", "forfeited"])
                    ),
                    _connector="OR",
                ),
                name="hold_resolved",
            ),
        ),
        InstallSql("packets", "holds.sql"),
    ]
