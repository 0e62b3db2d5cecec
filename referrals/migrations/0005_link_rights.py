"""Whoever sees claims sees links, complaints and channels; some may switch a channel."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("operations", "approver", "finance", "support", "sre", "risk")
SWITCH = ("operations", "sre", "risk")
SEEN = ("view_campaignchannel", "view_sharelink", "view_complaint")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    for app in ("campaign", "referrals"):
        create_permissions(real_apps.get_app_config(app), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects
    for group in apps.get_model("auth", "Group").objects.filter(name__in=SEE):
        group.permissions.add(*permissions.filter(codename__in=SEEN))
        if group.name in SWITCH:
            group.permissions.add(permissions.get(codename="change_campaignchannel"))


class Migration(migrations.Migration):
    dependencies = [("referrals", "0004_bans"), ("campaign", "0014_sharing")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
