"""What each channel's platform wants of those who let people share there, as we tell marketers.

Constants: a rule has words in both languages and a version, raised with every change of the words
(a test keeps their hashes), so that an acknowledgement says which words were read. Where a platform
forbids promises for sharing, our own page keeps to it (`plain_texts`). Nothing here helps to get
around a platform's decision, and nothing is legal advice.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass

from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from campaign.growth_rules import growth_of, ways_of
from campaign.models import Campaign, CampaignChannel, Channel, Vehicle
from engine.lib.errors import ServiceError


@dataclass(frozen=True)
class ChannelRule:
    """A platform's rule. `vehicles` are those that fit it; `plain_texts`: the share page, its card
    and the poster show the campaign's name and neutral words there, never staff's own."""

    channel: Channel
    version: int
    zh: str
    en: str
    vehicles: tuple[Vehicle, ...]
    plain_texts: bool = False

    @property
    def words(self) -> str:
        return self.en if (get_language() or "").startswith("en") else self.zh

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.zh}\n{self.en}".encode()).hexdigest()


_TENCENT_ZH = (
    "不允许以红包、现金、优惠券、抽奖机会等利益诱导用户分享、关注或助力（参见《微信外部链接内容管理规范》）。"
    "违反的链接和域名可能被停止访问，带口令的文本也曾被限制。因此：发到这里的文案和打开的页面不得承诺分享有奖；"
    "在此渠道，分享页、卡片和海报只显示活动名称和中性文字。被处置后请整改，不要更换域名或变换口令来规避。"
    "以平台最新规则为准；本提示不构成法律意见。"
)
_TENCENT_EN = (
    "do not allow inducing people to share, follow or help by red packets, cash, coupons or "
    "chances to win (see WeChat's rules for external links). Links and domains that do may be "
    "blocked; texts with codes have been cut off too. So what is sent there and the page it opens "
    "must promise nothing for sharing: on this channel the share page, its card and the poster "
    "show the campaign's name and neutral words only. After a block, put right what was wrong; "
    "do not change domains or codes to get around it. The platform's current rules count; this is "
    "not legal advice."
)
_UNDER_TENCENT = (Vehicle.LINK, Vehicle.QR, Vehicle.POSTER)

RULES: dict[Channel, ChannelRule] = {
    rule.channel: rule
    for rule in (
        ChannelRule(
            Channel.WECHAT, 1, f"微信聊天{_TENCENT_ZH}", f"WeChat's rules {_TENCENT_EN}",
            _UNDER_TENCENT, plain_texts=True,
        ),
        ChannelRule(
            Channel.MOMENTS, 1, f"微信朋友圈{_TENCENT_ZH}",
            f"WeChat's rules, for Moments as well, {_TENCENT_EN}",
            _UNDER_TENCENT, plain_texts=True,
        ),
        ChannelRule(
            Channel.QQ, 1, f"QQ 同属腾讯平台，{_TENCENT_ZH}",
            f"QQ belongs to the same house as WeChat, whose rules {_TENCENT_EN}",
            _UNDER_TENCENT, plain_texts=True,
        ),
        ChannelRule(
            Channel.ALIPAY, 1,
            "支付宝对其小程序和生活号内的营销活动、分享和诱导行为有单独规定。请在平台后台核对最新规则，"
            "按要求报备活动，并确保文案不夸大金额。本提示不构成法律意见。",
            "Alipay has its own rules for promotions, sharing and inducement in its mini programs "
            "and accounts. Check the current ones, register the promotion where they ask for it, "
            "and do not overstate amounts. This is not legal advice.",
            tuple(Vehicle),
        ),
        ChannelRule(
            Channel.WEIBO, 1,
            "微博要求有奖活动遵守其社区公约和商业活动规则，抽奖通常须使用平台的抽奖工具并公示结果；"
            "不得要求用户批量转发或@好友骚扰他人。以平台最新规则为准；本提示不构成法律意见。",
            "Weibo wants promotions with prizes to follow its community and business rules; draws "
            "usually have to use the platform's own tool, with the results shown. Do not make "
            "people repost in bulk or mention others who did not ask. The platform's current rules "
            "count; this is not legal advice.",
            tuple(Vehicle),
        ),
        ChannelRule(
            Channel.SMS, 1,
            "商业性短信须事先征得接收人同意或应其请求，写明发送者，并提供便捷的拒收方式；对方拒绝后不得再发"
            "（参见《通信短信息服务管理规定》）。用户可用自己的手机分享；不要代用户群发。本提示不构成法律意见。",
            "Commercial text messages need the recipient's consent or request, the sender's name "
            "and an easy way to refuse; who has refused gets no more (see the Provisions on the "
            "Administration of Short Message Services). People may share from their own phones; do "
            "not send in bulk for them. This is not legal advice.",
            (Vehicle.LINK, Vehicle.TEXT),
        ),
        ChannelRule(
            Channel.OTHER, 1,
            "每个平台都有自己的规则。上线前请确认链接会传到哪些平台，核对它们对利益诱导分享、抽奖和外部链接的规定，"
            "不适合的渠道请关闭。本提示不构成法律意见。",
            "Each platform has rules of its own. Before the launch find out where links will "
            "travel, check what is said there on rewards for sharing, draws and outside links, and "
            "leave out what doesn't fit. This is not legal advice.",
            tuple(Vehicle),
        ),
    )
}  # fmt: skip
# In our own app's feed and on paper nobody's rules but ours hold.
WITHOUT_A_RULE = (Channel.FEED, Channel.OFFLINE)


@dataclass(frozen=True)
class Acknowledgement:
    """Whether the rule of a channel that is on was read, by whom, and which words."""

    rule: ChannelRule
    by: str  # "" where nobody has
    at: dt.datetime | None
    version: int | None
    unfit: tuple[Vehicle, ...]  # on, though the rule speaks against them

    @property
    def is_current(self) -> bool:
        return self.at is not None and self.version == self.rule.version


def acknowledgements(campaign: Campaign) -> list[Acknowledgement]:
    """Of each channel that is on and has a rule, in the channels' order; none if nobody shares."""
    growth = growth_of(campaign)
    if growth is None or not growth.is_on:
        return []
    rows = list(CampaignChannel.objects.filter(campaign=campaign).select_related("acknowledged_by"))
    ways = ways_of(growth) - {(row.channel, row.vehicle) for row in rows if not row.is_on}
    found = []
    for channel, rule in RULES.items():
        on = [Vehicle(vehicle) for named, vehicle in ways if named == channel]
        if not on:
            continue
        # All ways of a channel are acknowledged together (services/channels.py).
        read = next((row for row in rows if row.channel == channel and row.acknowledged_at), None)
        found.append(
            Acknowledgement(
                rule=rule,
                by=read.acknowledged_by.get_username() if read and read.acknowledged_by else "",
                at=read.acknowledged_at if read else None,
                version=read.acknowledged_version if read else None,
                unfit=tuple(v for v in Vehicle if v in on and v not in rule.vehicles),
            )
        )
    return found


def is_acknowledged(campaign: Campaign, channel: str) -> bool:
    """Whether the words that hold now were read; so too where the channel has no rule."""
    rule = RULES.get(Channel(channel))
    return (
        rule is None
        or CampaignChannel.objects.filter(
            campaign=campaign,
            channel=channel,
            acknowledged_at__isnull=False,
            acknowledged_version=rule.version,
        ).exists()
    )


def check_acknowledged(campaign: Campaign) -> None:
    """Nobody hands in or approves a campaign whose channels' rules weren't read."""
    missing = [one.rule.channel.label for one in acknowledgements(campaign) if not one.is_current]
    if missing:
        raise ServiceError(
            "ways",
            "not_acknowledged",
            _("Read and acknowledge the platforms' rules first: %(channels)s."),
            channels=", ".join(map(str, missing)),
        )
