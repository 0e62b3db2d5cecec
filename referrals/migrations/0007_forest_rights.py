"""Whoever sees claims sees referrals and bans; risk bans people and lifts bans."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = ("operations", "approver", "finance", "support", "sre", "risk")
VIEW = ("view_referral", "view_ban")


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    create_permissions(real_apps.get_app_config("referrals"), verbosity=0, apps=apps)
    permissions = apps.get_model("auth", "Permission").objects.filter(
        content_type__app_label="referrals"
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=SEE):
        names = (*VIEW, "ban_person") if group.name == "risk" else VIEW
        group.permissions.add(*permissions.filter(codename__in=names))


class Migration(migrations.Migration):
    dependencies = [("referrals", "0006_reward_rights")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
