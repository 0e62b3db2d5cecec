"""Site reliability keeps client apps' webhooks; operations see them too."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("view_webhookendpoint", "view_webhookdelivery")
KEEP = ("add_webhookendpoint", "change_webhookendpoint", "change_webhookdelivery")
RIGHTS = {"operations": SEE, "sre": SEE + KEEP}


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("engine"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="engine"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=RIGHTS):
        group.permissions.add(*permissions.filter(codename__in=RIGHTS[group.name]))


class Migration(migrations.Migration):
    dependencies = [("campaign", "0010_reconciling_rights"), ("engine", "0004_webhooks")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
