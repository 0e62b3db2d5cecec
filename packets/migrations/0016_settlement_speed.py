"""Settlement's guards look at a statement's rows at once; two indexes that each new wallet paid go.

The ledger's trigger finds every account that it moves anyway: it refuses a transfer whose account
isn't there in its currency, which the composite foreign keys asked again row by row. With them goes
the index that they pointed to. The accounts' unique key begins with the owner, who tells accounts
apart; the version before asks for it by its columns, whatever their order.
"""

from __future__ import annotations

from django.db import migrations, models

from engine.lib.sql import InstallSql


class Migration(migrations.Migration):
    dependencies = [("packets", "0015_holds")]

    operations = [
        migrations.AddConstraint(
            model_name="account",
            constraint=models.UniqueConstraint(
                fields=("owner", "kind", "currency"), name="account_of_owner"
            ),
        ),
        migrations.RemoveConstraint(model_name="account", name="account_one_each"),
        InstallSql("packets", "ledger.sql"),
        migrations.RemoveConstraint(model_name="account", name="account_currency"),
    ]
