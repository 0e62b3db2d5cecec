"""A campaign, its packets, and the rounds of a rain."""

from __future__ import annotations

import re
import uuid
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN

DEFAULT_TIMEZONE = "Asia/Shanghai"
SLUG_MAX_CHARS = 60
RULES_MAX_CHARS = 20_000  # a page of rules; longer texts belong on the app's own site
ODDS_MAX_CHARS = 4_000
ORGANISER_MAX_CHARS = 120
CONTACT_MAX_CHARS = 500
HASH_HEX_CHARS = 64  # SHA-256 in hexadecimal
# A campaign's texts, in both languages; English may be empty.
TEXTS = (
    "name_zh", "name_en", "rules_zh", "rules_en", "odds_zh", "odds_en", "organiser_zh",
    "organiser_en", "contact_zh", "contact_en",
)  # fmt: skip


_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")


def slug_is_valid(text: str) -> bool:
    """Small letters, digits and single hyphens: what can stand in an address as it is."""
    return len(text) <= SLUG_MAX_CHARS and _SLUG.match(text) is not None


def validate_timezone(name: str) -> None:
    if name not in available_timezones():
        raise ValidationError(_("%(name)s is not a time zone"), params={"name": name})


class Campaign(models.Model):
    """Rules, a window and a budget. Nothing of it can be claimed unless it is live."""

    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        REVIEW = "review", _("in review")
        SCHEDULED = "scheduled", _("scheduled")
        LIVE = "live", _("live")
        PAUSED = "paused", _("paused")
        KILLED = "killed", _("killed")
        ENDED = "ended", _("ended")
        SETTLED = "settled", _("settled")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(_("slug"), max_length=SLUG_MAX_CHARS, unique=True)
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80, blank=True)
    rules_zh = models.TextField(_("rules (Chinese)"), max_length=RULES_MAX_CHARS, blank=True)
    rules_en = models.TextField(_("rules (English)"), max_length=RULES_MAX_CHARS, blank=True)
    # How likely each prize is; the law wants it said wherever a prize is drawn.
    odds_zh = models.TextField(_("odds (Chinese)"), max_length=ODDS_MAX_CHARS, blank=True)
    odds_en = models.TextField(_("odds (English)"), max_length=ODDS_MAX_CHARS, blank=True)
    # Who promises all this, and how to reach them; empty: the client apps stand for themselves.
    organiser_zh = models.CharField(
        _("organiser (Chinese)"),
        max_length=ORGANISER_MAX_CHARS,
        blank=True,
        default="",
        db_default="",
    )
    organiser_en = models.CharField(
        _("organiser (English)"),
        max_length=ORGANISER_MAX_CHARS,
        blank=True,
        default="",
        db_default="",
    )
    contact_zh = models.CharField(
        _("complaints (Chinese)"),
        max_length=CONTACT_MAX_CHARS,
        blank=True,
        default="",
        db_default="",
    )
    contact_en = models.CharField(
        _("complaints (English)"),
        max_length=CONTACT_MAX_CHARS,
        blank=True,
        default="",
        db_default="",
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.DRAFT)

    budget_fen = models.BigIntegerField(_("budget"))
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    account = models.OneToOneField(
        "packets.Account", models.PROTECT, related_name="campaign", verbose_name=_("account")
    )
    gate = models.OneToOneField(
        "packets.Gate", models.PROTECT, related_name="campaign", verbose_name=_("gate")
    )

    starts_at = models.DateTimeField(_("starts at"))
    ends_at = models.DateTimeField(_("ends at"))
    timezone = models.CharField(
        _("time zone"), max_length=64, default=DEFAULT_TIMEZONE, validators=[validate_timezone]
    )
    client_apps = models.ManyToManyField(
        "engine.ClientApp", related_name="campaigns", verbose_name=_("client apps")
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("created by"),
    )
    # Nobody approves what they wrote, changed last or handed in themselves.
    edited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("last changed by"),
    )
    submitted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("submitted by"),
    )
    submitted_at = models.DateTimeField(_("submitted at"), null=True, blank=True)
    launched_at = models.DateTimeField(_("launched at"), null=True, blank=True)
    # Raised by every write, so that a form filled in against an older state is refused.
    version = models.PositiveIntegerField(_("version"), default=1)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    packets = models.ManyToManyField(
        "packets.Packet",
        through="CampaignPacket",
        related_name="campaigns",
        verbose_name=_("packets"),
    )

    class Meta:
        verbose_name = _("campaign")
        verbose_name_plural = _("campaigns")
        ordering = ["-created_at", "-id"]
        permissions = [
            ("submit_campaign", _("Can hand a campaign in for review")),
            ("approve_campaign", _("Can approve a campaign or send it back")),
            ("launch_campaign", _("Can launch an approved campaign (money moves)")),
            ("stop_campaign", _("Can pause, resume and kill a campaign")),
            ("end_campaign", _("Can end a campaign before its time (money moves)")),
            ("settle_campaign", _("Can settle a campaign (money moves)")),
            ("extend_campaign", _("Can move the end of a running campaign further away")),
            ("move_round", _("Can move a round of a red-packet rain to another time")),
            ("request_topup", _("Can ask for more budget or packets for a running campaign")),
            ("approve_topup", _("Can approve more budget or packets (money moves)")),
            ("switch_all", _("Can stop and allow all claims")),
        ]
        indexes = [
            models.Index(
                fields=["ends_at"], name="campaign_due", condition=Q(state__in=["live", "paused"])
            ),
            models.Index(
                fields=["starts_at"], name="campaign_start", condition=Q(state="scheduled")
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(budget_fen__gt=0) & Q(budget_fen__lte=MAX_FEN), name="campaign_budget"
            ),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="campaign_window"),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "draft",
                        "review",
                        "scheduled",
                        "live",
                        "paused",
                        "killed",
                        "ended",
                        "settled",
                    ]
                ),
                name="campaign_state",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Rain(models.Model):
    """Red-packet rain: rounds that belong together. Their times stand in their packets."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="rains", verbose_name=_("campaign")
    )
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("red-packet rain")
        verbose_name_plural = _("red-packet rains")
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name_zh


class CampaignPacket(models.Model):
    """A packet of a campaign; a packet belongs to at most one. It may be a round of a rain."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="links", verbose_name=_("campaign")
    )
    packet = models.OneToOneField(
        "packets.Packet", models.PROTECT, related_name="campaign_link", verbose_name=_("packet")
    )
    order = models.PositiveIntegerField(_("order"))
    # The packet's own hash can't be read back, and a copy of the campaign needs the pass phrase.
    password_encrypted = models.TextField(_("pass phrase, encrypted"), blank=True, default="")
    rain = models.ForeignKey(
        Rain, models.PROTECT, null=True, blank=True, related_name="links", verbose_name=_("rain")
    )
    round = models.PositiveSmallIntegerField(_("round"), null=True, blank=True)

    class Meta:
        verbose_name = _("packet of a campaign")
        verbose_name_plural = _("packets of campaigns")
        ordering = ["order"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "order"], name="campaign_packet_order"),
            models.UniqueConstraint(fields=["rain", "round"], name="campaign_packet_round"),
            models.CheckConstraint(
                condition=Q(rain=None, round=None) | Q(rain__isnull=False, round__gt=0),
                name="campaign_packet_rain",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.order}: {self.packet_id.hex}"
