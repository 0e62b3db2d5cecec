"""Who may erase people: `risk`, who decides over them already."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("referrals"), verbosity=0, apps=apps)
    permission = apps.get_model("auth", "Permission").objects.get(
        content_type__app_label="referrals", codename="erase_person"
    )
    apps.get_model("auth", "Group").objects.get(name="risk").permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [("referrals", "0014_privacy")]

    operations = [
        migrations.AlterModelOptions(
            name="identity",
            options={
                "permissions": [("erase_person", "Can erase people")],
                "verbose_name": "phone or network",
                "verbose_name_plural": "phones and networks",
            },
        ),
        migrations.RunPython(give_rights, migrations.RunPython.noop),
    ]
