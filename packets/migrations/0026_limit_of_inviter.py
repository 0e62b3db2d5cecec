"""Limits may count an inviter."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("packets", "0025_blocks"),
    ]

    operations = [
        migrations.AlterField(
            model_name="limitrule",
            name="subject",
            field=models.CharField(
                choices=[
                    ("participant", "one person"),
                    ("device", "one device"),
                    ("ip", "one address"),
                    ("subnet", "one network (/24, /64)"),
                    ("group", "one chat group"),
                    ("link", "one share link"),
                    ("inviter", "one inviter, over all their links"),
                    ("packet", "everybody of one packet"),
                    ("campaign", "everybody of one campaign"),
                ],
                max_length=16,
                verbose_name="who is counted",
            ),
        ),
    ]
