"""Whoever sees claims sees tickets."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

GROUPS = ("operations", "approver", "finance", "support", "sre")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("packets"), verbosity=0, apps=apps)
    right = apps.get_model("auth", "Permission").objects.get(
        content_type__app_label="packets", codename="view_ticket"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=GROUPS):
        group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("campaign", "0004_burn_sample"), ("packets", "0005_tickets")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
