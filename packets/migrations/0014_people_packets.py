"""People's own packets, and the gate that all of them stand behind, open."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


def make_gate(apps: Any, schema_editor: Any) -> None:
    gates = apps.get_model("packets", "Gate").objects
    gates.get_or_create(key="people", defaults={"state": "open"})


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0013_payouts"),
    ]

    operations = [
        migrations.CreateModel(
            name="PeoplePacket",
            fields=[
                (
                    "packet",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="sent",
                        serialize=False,
                        to="packets.packet",
                        verbose_name="packet",
                    ),
                ),
                ("participant", models.BinaryField(max_length=16, verbose_name="sender")),
                ("key", models.CharField(max_length=255, verbose_name="idempotency key")),
                ("message", models.CharField(blank=True, max_length=80, verbose_name="message")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), verbose_name="sent at"
                    ),
                ),
            ],
            options={
                "verbose_name": "person's packet",
                "verbose_name_plural": "people's packets",
                "permissions": [("stop_peoplepackets", "Can stop people's packets")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("participant", "key"), name="peoplepacket_key_once"
                    )
                ],
            },
        ),
        migrations.RunPython(make_gate, migrations.RunPython.noop),
    ]
