"""Which words on a channel were read: without a version none."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("campaign", "0017_growth_rights"),
    ]

    operations = [
        migrations.AddField(
            model_name="campaignchannel",
            name="acknowledged_version",
            field=models.PositiveSmallIntegerField(
                blank=True, null=True, verbose_name="version of the words"
            ),
        ),
    ]
