"""Statements and differences: finance works with them, site reliability sees them."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("view_statement", "view_difference", "view_stockcheck")
RIGHTS = {
    "finance": (*SEE, "reconcile", "export_money", "export_payees"),
    "sre": SEE,
}


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("packets"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="packets"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=RIGHTS):
        group.permissions.add(*permissions.filter(codename__in=RIGHTS[group.name]))


class Migration(migrations.Migration):
    dependencies = [("campaign", "0009_payout_rights"), ("packets", "0017_reconciling")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
