"""A group for those who look at suspicious money; finance decides over holds too."""

from __future__ import annotations

from typing import Any

from django.apps import apps as real_apps
from django.contrib.auth.management import create_permissions
from django.db import migrations

SEE = (
    "campaign.view_campaign campaign.view_campaignpacket campaign.view_campaignapproval "
    "campaign.view_topup campaign.view_targetupload campaign.view_targetuploaderror "
    "campaign.view_campaigntemplate packets.view_packet packets.view_gate packets.view_limitrule "
    "packets.view_claim packets.view_claimstate packets.view_participant packets.view_ticket "
    "packets.view_account packets.view_transfer packets.view_lane packets.view_laneepoch "
    "engine.view_auditevent"
)
HOLDS = "packets.view_hold packets.view_holdappeal packets.view_riskrule packets.resolve_hold"
PAYOUTS = "packets.view_payout packets.view_provideraccount"
RIGHTS = {
    "risk": f"{SEE} {HOLDS} {PAYOUTS} packets.add_riskrule packets.change_riskrule",
    "finance": HOLDS,
}


def give_rights(apps: Any, schema_editor: Any) -> None:
    # Permissions are made after the last migration; here they are needed now.
    for label in ("campaign", "packets", "engine"):
        create_permissions(real_apps.get_app_config(label), verbosity=0, apps=apps)
    known = {
        f"{row.content_type.app_label}.{row.codename}": row
        for row in apps.get_model("auth", "Permission").objects.select_related("content_type")
    }
    for name, rights in RIGHTS.items():
        group, _made = apps.get_model("auth", "Group").objects.get_or_create(name=name)
        group.permissions.add(*(known[right] for right in rights.split()))


class Migration(migrations.Migration):
    dependencies = [("campaign", "0011_webhook_rights"), ("packets", "0015_holds")]

    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
