"""Whoever sees claims sees rewards, events and ticket rules; operations write the rules."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("operations", "approver", "finance", "support", "sre", "risk")
VIEW = ("view_reward", "view_serverevent", "view_ticketrule")
WRITE = ("add_ticketrule", "change_ticketrule")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("referrals"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="referrals"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=SEE):
        names = VIEW + WRITE if group.name == "operations" else VIEW
        group.permissions.add(*permissions.filter(codename__in=names))


class Migration(migrations.Migration):
    dependencies = [("referrals", "0005_link_rights"), ("campaign", "0014_sharing")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
