"""Whoever sees campaigns sees their limits; operations and site reliability set them."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("operations", "approver", "finance", "support", "sre")
SET = ("operations", "sre")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("packets"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="packets"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=SEE):
        group.permissions.add(permissions.get(codename="view_limitrule"))
        if group.name in SET:
            group.permissions.add(
                *permissions.filter(codename__in=("add_limitrule", "change_limitrule"))
            )


class Migration(migrations.Migration):
    dependencies = [("campaign", "0006_rain"), ("packets", "0011_limit_rules")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
