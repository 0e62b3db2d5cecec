"""Whether an account is named by a hold or a payout is looked up, not read through."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("packets", "0029_removing")]

    operations = [
        migrations.AddIndex(
            model_name="hold", index=models.Index(fields=["wallet"], name="hold_wallet")
        ),
        migrations.AddIndex(
            model_name="hold", index=models.Index(fields=["funder"], name="hold_funder")
        ),
        migrations.AddIndex(
            model_name="payout", index=models.Index(fields=["wallet"], name="payout_wallet")
        ),
    ]
