"""The campaign's words on its share page, in the reader's language."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.translation import gettext as _

from campaign.channel_rules import RULES
from campaign.models import Channel
from referrals.linking.spread import Spread

# What the switch on the page says, and the language that it means.
LANGUAGES = {"zh": "zh-hans", "en": "en"}


@dataclass(frozen=True, slots=True)
class Words:
    title: str
    text: str


def words_of(spread: Spread, language: str, channel: str) -> Words:
    """The growth row's; where it says nothing, the campaign's name. A language that is empty is
    filled from the other one. In channels whose platform forbids promises for sharing only the name
    and a neutral sentence are shown (campaign/channel_rules.py)."""
    growth, campaign = spread.growth, spread.campaign
    chinese = language.startswith("zh")

    def pick(zh: str, en: str) -> str:
        return (zh or en) if chinese else (en or zh)

    name, neutral = pick(campaign.name_zh, campaign.name_en), _("A friend shares this with you.")
    rule = RULES.get(Channel(channel))
    if rule is not None and rule.plain_texts:
        return Words(title=name, text=neutral)
    return Words(
        title=pick(growth.title_zh, growth.title_en) or name,
        text=pick(growth.text_zh, growth.text_en) or neutral,
    )
