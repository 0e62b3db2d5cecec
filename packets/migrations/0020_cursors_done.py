"""A lane that is closed and settled to its end is marked, so that the sweep needn't look again."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("packets", "0019_ledger_plans")]

    operations = [
        migrations.AddField(
            model_name="lanecursor",
            name="is_done",
            field=models.BooleanField(
                db_default=False, default=False, verbose_name="closed and settled"
            ),
        ),
        migrations.AddIndex(
            model_name="lanecursor",
            index=models.Index(
                condition=models.Q(("is_done", False)), fields=["lane"], name="cursor_not_done"
            ),
        ),
    ]
