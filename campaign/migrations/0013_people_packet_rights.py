"""Whoever sees claims sees people's own packets; who may stop campaigns may stop those too."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("operations", "approver", "finance", "support", "sre", "risk")
STOP = ("operations", "approver", "sre", "risk")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("packets"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="packets"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=SEE):
        group.permissions.add(permissions.get(codename="view_peoplepacket"))
        if group.name in STOP:
            group.permissions.add(permissions.get(codename="stop_peoplepackets"))


class Migration(migrations.Migration):
    dependencies = [("campaign", "0012_risk_group"), ("packets", "0014_people_packets")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
