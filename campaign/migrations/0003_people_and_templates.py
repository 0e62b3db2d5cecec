"""The staff's groups with their rights, and the templates a campaign may be made from.

Written down as they were at this migration: later changes are later migrations'. What staff change
afterwards is theirs. `campaign/people.py` says what the groups are for.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.management import create_permissions
from django.db import migrations

_SEE_CAMPAIGNS = (
    "campaign.view_campaign campaign.view_campaignpacket campaign.view_campaignapproval "
    "campaign.view_topup campaign.view_targetupload campaign.view_targetuploaderror "
    "campaign.view_campaigntemplate packets.view_packet packets.view_gate "
)
_SEE_CLAIMS = "packets.view_claim packets.view_claimstate packets.view_participant "
_SEE_MONEY = (
    "packets.view_account packets.view_transfer packets.view_lane packets.view_laneepoch "
    "engine.view_auditevent "
)
GROUPS = {
    "operations": _SEE_CAMPAIGNS
    + _SEE_CLAIMS
    + _SEE_MONEY
    + "campaign.add_campaign campaign.change_campaign campaign.submit_campaign "
    "campaign.upload_targets campaign.launch_campaign campaign.stop_campaign "
    "campaign.end_campaign campaign.extend_campaign campaign.request_topup "
    "campaign.add_campaigntemplate campaign.change_campaigntemplate "
    "campaign.delete_campaigntemplate engine.view_clientapp engine.view_forcedoutcome "
    "engine.add_forcedoutcome engine.change_forcedoutcome engine.delete_forcedoutcome",
    "approver": _SEE_CAMPAIGNS
    + _SEE_CLAIMS
    + _SEE_MONEY
    + "campaign.approve_campaign campaign.approve_topup campaign.launch_campaign "
    "campaign.stop_campaign campaign.end_campaign campaign.switch_all",
    "finance": _SEE_CAMPAIGNS
    + _SEE_CLAIMS
    + _SEE_MONEY
    + "campaign.settle_campaign campaign.approve_topup",
    "support": _SEE_CAMPAIGNS + _SEE_CLAIMS,
    "sre": _SEE_CAMPAIGNS + _SEE_CLAIMS + _SEE_MONEY + "campaign.stop_campaign campaign.switch_all "
    "engine.view_clientapp engine.add_clientapp engine.change_clientapp "
    "engine.view_clientkey engine.add_clientkey engine.change_clientkey "
    "engine.view_apikey engine.add_apikey engine.change_apikey "
    "engine.view_forcedoutcome engine.add_forcedoutcome engine.change_forcedoutcome "
    "engine.delete_forcedoutcome",
}

_RULES_ZH = "每人每个红包限领一次，先到先得，领完即止。红包到账后存入钱包。"
_RULES_EN = (
    "One portion of each packet per person; first come, first served, until all are claimed. "
    "What you win goes into your wallet."
)

TEMPLATES = [
    {
        "slug": "group-lucky",
        "name_zh": "拼手气群红包",
        "name_en": "Lucky group packet",
        "description_zh": "一个拼手气红包：金额随机，先后机会均等。",
        "description_en": "One lucky packet: random amounts, with equal chances for first and last.",
        "document": {
            "campaign": {
                "name_zh": "拼手气红包",
                "name_en": "Lucky red packet",
                "rules_zh": _RULES_ZH + "金额随机，先后领取机会均等。",
                "rules_en": _RULES_EN + " Amounts are random; early and late have equal chances.",
                "odds_zh": "每份金额由公开的随机算法决定，人人中奖，平均 ¥2.00。",
                "odds_en": "Every portion wins; amounts are drawn by a published method, "
                "¥2.00 on average.",
                "budget_fen": 1_000_000,
                "hours": 24,
            },
            "packets": [
                {
                    "name": "拼手气红包",
                    "strategy": "lucky",
                    "total_fen": 1_000_000,
                    "count": 5_000,
                    "max_fen": 5_000,
                }
            ],
        },
    },
    {
        "slug": "pool-with-prizes",
        "name_zh": "大奖池（分档奖品）",
        "name_en": "Prize pool with tiers",
        "description_zh": "几档大奖加拼手气红包，人人有份；须公示中奖概率。",
        "description_en": "A few big prizes and lucky portions for all others; odds must be shown.",
        "document": {
            "campaign": {
                "name_zh": "新春大奖池",
                "name_en": "New Year prize pool",
                "rules_zh": _RULES_ZH + "奖品分档，未中大奖者仍可领取随机金额。",
                "rules_en": _RULES_EN
                + " Prizes come in tiers; everybody else gets a random amount.",
                "odds_zh": "共 100,000 份：¥888.00 十份（0.01%），¥88.00 两百份（0.2%），"
                "¥8.88 五千份（5%），其余 94,790 份金额随机。",
                "odds_en": "Of 100,000 portions: ten of ¥888.00 (0.01%), two hundred of ¥88.00 "
                "(0.2%), five thousand of ¥8.88 (5%); the other 94,790 are random amounts.",
                "budget_fen": 20_000_000,
                "hours": 72,
            },
            "packets": [
                {
                    "name": "大奖池",
                    "strategy": "tiers",
                    "total_fen": 20_000_000,
                    "count": 100_000,
                    "tiers": [[88_800, 10], [8_800, 200], [888, 5_000]],
                    "remainder": "lucky",
                    "max_fen": 88_800,
                }
            ],
        },
    },
    {
        "slug": "red-packet-rain",
        "name_zh": "红包雨",
        "name_en": "Red packet rain",
        "description_zh": "一晚五轮，每轮十分钟，整点开抢。",
        "description_en": "Five rounds in one evening, ten minutes each, on the hour.",
        "document": {
            "campaign": {
                "name_zh": "红包雨",
                "name_en": "Red packet rain",
                "rules_zh": _RULES_ZH + "每轮十分钟，每轮均可领取一次。",
                "rules_en": _RULES_EN + " Each round lasts ten minutes; everybody may take part in "
                "each.",
                "odds_zh": "每份金额由公开的随机算法决定，领到即中，平均 ¥1.00。",
                "odds_en": "Every portion wins; amounts are drawn by a published method, "
                "¥1.00 on average.",
                "budget_fen": 5_000_000,
                "hours": 5,
            },
            "packets": [
                {
                    "name": f"第{word}轮",
                    "strategy": "lucky",
                    "total_fen": 1_000_000,
                    "count": 10_000,
                    "max_fen": 2_000,
                    "opens_after_s": number * 3_600,
                    "open_for_s": 600,
                }
                for number, word in enumerate("一二三四五")
            ],
        },
    },
    {
        "slug": "newcomers-fixed",
        "name_zh": "新人固定红包",
        "name_en": "Fixed packet for newcomers",
        "description_zh": "仅限新用户，每人固定金额。",
        "description_en": "For new people only, the same amount for each.",
        "document": {
            "campaign": {
                "name_zh": "新人红包",
                "name_en": "Newcomers' red packet",
                "rules_zh": _RULES_ZH + "仅限新用户，每人 ¥5.00。",
                "rules_en": _RULES_EN + " New people only, ¥5.00 each.",
                "budget_fen": 500_000,
                "hours": 168,
            },
            "packets": [
                {
                    "name": "新人红包",
                    "strategy": "fixed",
                    "total_fen": 500_000,
                    "count": 1_000,
                    "new_only": True,
                }
            ],
        },
    },
]


def people(apps, schema_editor):
    # Permissions are made after the last migration of a run, and are needed here.
    for name in ("engine", "packets", "campaign"):
        config = apps.get_app_config(name)
        config.models_module = True
        create_permissions(config, verbosity=0, apps=apps)
        config.models_module = None
    Group = apps.get_model("auth", "Group")
    Permission = apps.get_model("auth", "Permission")
    known = {
        f"{row.content_type.app_label}.{row.codename}": row
        for row in Permission.objects.select_related("content_type")
    }
    for name, words in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set([known[word] for word in words.split()])


def templates(apps, schema_editor):
    Template = apps.get_model("campaign", "CampaignTemplate")
    for order, template in enumerate(TEMPLATES, start=1):
        Template.objects.get_or_create(slug=template["slug"], defaults={**template, "order": order})


def leave(apps, schema_editor):
    """Going backwards drops the templates' table; groups are left to whoever uses them."""


class Migration(migrations.Migration):
    dependencies = [
        ("campaign", "0002_life_cycle"),
        ("engine", "0002_forced_outcomes"),
        ("packets", "0003_ledger"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [migrations.RunPython(people, leave), migrations.RunPython(templates, leave)]
