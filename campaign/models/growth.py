"""How a campaign may spread: attribution, rewards, channels, and the protection of bystanders.

What a person gets for a referral is a claim on a packet of the campaign (`inviter_packet`,
`invitee_packet`: packets that need a ticket), so a reward obeys the same cap as every claim.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from campaign.models.campaign import Campaign

# How far up a reward may reach. A constant, not a setting: pay that grows with indirect recruits is
# pyramid selling by law.
MAX_REWARD_DEPTH = 2
DAY_S = 24 * 3600
TEXT_MAX_CHARS = 120


class Channel(models.TextChoices):
    """Where a link goes."""

    WECHAT = "wechat", _("WeChat chat")
    MOMENTS = "moments", _("WeChat Moments")
    QQ = "qq", _("QQ")
    ALIPAY = "alipay", _("Alipay")
    WEIBO = "weibo", _("Weibo")
    SMS = "sms", _("text message")
    FEED = "feed", _("our app's feed")
    OFFLINE = "offline", _("printed or shown")
    OTHER = "other", _("elsewhere")


class Vehicle(models.TextChoices):
    """What carries it there."""

    LINK = "link", _("link")
    TEXT = "text", _("code in a text")
    QR = "qr", _("QR code")
    POSTER = "poster", _("poster")


WAYS = tuple(f"{channel}/{vehicle}" for channel in Channel.values for vehicle in Vehicle.values)


class CampaignGrowth(models.Model):
    """One row a campaign; a campaign without one doesn't spread."""

    class Attribution(models.TextChoices):
        FIRST = "first", _("the first who invited")
        LAST = "last", _("the last who invited")

    class Qualifying(models.TextChoices):
        FIRST_CLAIM = "first_claim", _("the friend's first claim")
        EVENT = "event", _("an event that the app reports")

    campaign = models.OneToOneField(
        Campaign, models.PROTECT, related_name="growth", verbose_name=_("campaign")
    )
    is_on = models.BooleanField(_("people may share"), default=True)
    attribution = models.CharField(
        _("who counts as the inviter"),
        max_length=8,
        choices=Attribution.choices,
        default=Attribution.LAST,
    )
    window_s = models.PositiveIntegerField(_("a visit counts for (seconds)"), default=7 * DAY_S)
    new_only = models.BooleanField(_("only new people can be invited"), default=True)
    qualifying = models.CharField(
        _("a reward is earned by"),
        max_length=16,
        choices=Qualifying.choices,
        default=Qualifying.FIRST_CLAIM,
    )
    qualifying_event = models.CharField(_("the event's kind"), max_length=32, blank=True)
    inviter_packet = models.ForeignKey(
        "packets.Packet",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("reward of the inviter"),
    )
    invitee_packet = models.ForeignKey(
        "packets.Packet",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("reward of the friend"),
    )
    depth = models.PositiveSmallIntegerField(_("reward depth"), default=1)
    inviter_cap = models.PositiveIntegerField(_("rewards an inviter can earn"), default=20)
    # Up to how many friends may open what one person shares; 0: nothing is shared that way.
    shared_friends = models.PositiveIntegerField(_("friends per shared packet"), default=0)

    # The channels with vehicles (`WAYS`) that are approved with the campaign; null: all there are.
    # `CampaignChannel` switches single ones off, at once and without a new version.
    ways = ArrayField(
        models.CharField(max_length=24), verbose_name=_("channels"), null=True, blank=True
    )

    # Bystanders.
    share_cooldown_s = models.PositiveIntegerField(_("pause between shares (seconds)"), default=0)
    visits_per_link_hour = models.PositiveIntegerField(_("visits a link and hour"), default=1_000)
    complaint_per_mille = models.PositiveSmallIntegerField(
        _("complaints per 1,000 visits that slow sharing"), default=5
    )
    complaint_min_visits = models.PositiveIntegerField(_("judged from so many visits"), default=200)

    # The share page.
    destination = models.URLField(_("where the button leads"), max_length=300, blank=True)
    destination_hosts = ArrayField(
        models.CharField(max_length=120), verbose_name=_("allowed hosts"), default=list, blank=True
    )
    title_zh = models.CharField(_("title (Chinese)"), max_length=TEXT_MAX_CHARS, blank=True)
    title_en = models.CharField(_("title (English)"), max_length=TEXT_MAX_CHARS, blank=True)
    text_zh = models.CharField(_("text (Chinese)"), max_length=TEXT_MAX_CHARS, blank=True)
    text_en = models.CharField(_("text (English)"), max_length=TEXT_MAX_CHARS, blank=True)
    image_url = models.URLField(_("picture"), max_length=300, blank=True)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("growth of a campaign")
        verbose_name_plural = _("growth of campaigns")
        constraints = [
            models.CheckConstraint(
                condition=Q(depth__gte=1) & Q(depth__lte=MAX_REWARD_DEPTH), name="growth_depth"
            ),
            models.CheckConstraint(
                condition=Q(window_s__gte=60) & Q(window_s__lte=90 * DAY_S), name="growth_window"
            ),
            models.CheckConstraint(
                condition=Q(qualifying="first_claim", qualifying_event="")
                | Q(qualifying="event") & ~Q(qualifying_event=""),
                name="growth_qualifying",
            ),
        ]

    def __str__(self) -> str:
        return f"growth of {self.campaign}"


class CampaignChannel(models.Model):
    """One way for links to travel, on or off, with the acknowledgement of the platform's rules."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="channels", verbose_name=_("campaign")
    )
    channel = models.CharField(_("channel"), max_length=16, choices=Channel.choices)
    vehicle = models.CharField(_("vehicle"), max_length=8, choices=Vehicle.choices)
    is_on = models.BooleanField(_("on"), default=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("platform's rules acknowledged by"),
    )
    acknowledged_at = models.DateTimeField(_("acknowledged at"), null=True, blank=True)
    # Which words were read (campaign/channel_rules.py): those of an older version don't count.
    acknowledged_version = models.PositiveSmallIntegerField(
        _("version of the words"), null=True, blank=True
    )
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("channel of a campaign")
        verbose_name_plural = _("channels of campaigns")
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "channel", "vehicle"], name="channel_vehicle_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.campaign}: {self.channel}/{self.vehicle}"
