"""Operations say how a campaign spreads."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

EDIT = ("operations",)


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("campaign"), verbosity=0, apps=apps)
    permission = apps.get_model("auth", "Permission").objects.get(
        content_type__app_label="campaign", codename="change_campaigngrowth"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=EDIT):
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [("campaign", "0016_disclosing")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
