"""The channels that a version is approved with; null, as every row has it so far: all of them."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("campaign", "0014_sharing")]

    operations = [
        migrations.AddField(
            model_name="campaigngrowth",
            name="ways",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=24),
                blank=True,
                null=True,
                size=None,
                verbose_name="channels",
            ),
        ),
    ]
