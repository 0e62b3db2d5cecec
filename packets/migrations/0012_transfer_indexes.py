"""Three indexes of transfers go: others answer what they answered, and each settled claim paid them.

An account's transfers are found by `transfer_debit` and `transfer_credit`, which begin with the
account. A reference is found by its unique index; the second one was for LIKE 'prefix%', which
nobody asks.
"""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("packets", "0011_limit_rules")]

    operations = [
        migrations.AlterField(
            model_name="transfer",
            name="debit_account",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="debits",
                to="packets.account",
                verbose_name="debit account",
            ),
        ),
        migrations.AlterField(
            model_name="transfer",
            name="credit_account",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="credits",
                to="packets.account",
                verbose_name="credit account",
            ),
        ),
        migrations.RunSQL(
            "DROP INDEX packets_transfer_reference_adc8202c_like",
            "CREATE INDEX packets_transfer_reference_adc8202c_like"
            " ON packets_transfer (reference varchar_pattern_ops)",
        ),
    ]
