"""A client app may be a drill's: said when it is made, and never changed."""

from __future__ import annotations

from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("engine", "0006_erasing")]

    operations = [
        migrations.AddField(
            model_name="clientapp",
            name="is_drill",
            field=models.BooleanField(
                db_default=False, default=False, editable=False, verbose_name="of a drill"
            ),
        ),
        InstallSql("engine", "drills.sql"),
    ]
