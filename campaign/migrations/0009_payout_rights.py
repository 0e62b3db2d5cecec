"""Payouts: who sees them, who acts on them, who decides on what somebody else asked for."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("view_payout", "view_provideraccount")
RIGHTS = {
    "approver": (*SEE, "decide_payoutmark", "decide_providerchange"),
    "finance": (
        *SEE, "handle_payout", "add_payoutmark", "decide_payoutmark", "add_provideraccount",
        "change_provideraccount", "decide_providerchange",
    ),
    "support": SEE,
    "sre": (*SEE, "add_provideraccount", "change_provideraccount"),
}  # fmt: skip


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("packets"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="packets"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=RIGHTS):
        group.permissions.add(*permissions.filter(codename__in=RIGHTS[group.name]))


class Migration(migrations.Migration):
    dependencies = [("campaign", "0008_growth"), ("packets", "0018_decisions")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
