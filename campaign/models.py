"""Campaigns: a budget, a time window, and the packets it pays for.

    Campaign ── Account (kind campaign)   the budget, in the ledger
             ── Gate `campaign:<id>`      stands before every packet of the campaign
             ─< CampaignPacket ── Packet  which packets belong to it, in the order they are shown

The budget is a ledger account that can't go below zero, so no counter of ours guards it: a packet
that the account can't pay doesn't open. States move only by conditional UPDATEs in `services.py`.
"""

from __future__ import annotations

import re
import uuid
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN

DEFAULT_TIMEZONE = "Asia/Shanghai"
SLUG_MAX_CHARS = 60
RULES_MAX_CHARS = 20_000  # a page of rules; longer texts belong on the app's own site


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
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.DRAFT)

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
            ("launch_campaign", _("Can launch, top up and settle a campaign (money moves)")),
            ("stop_campaign", _("Can pause, resume, end and kill a campaign")),
        ]
        indexes = [
            models.Index(
                fields=["ends_at"], name="campaign_due", condition=Q(state__in=["live", "paused"])
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(budget_fen__gt=0) & Q(budget_fen__lte=MAX_FEN), name="campaign_budget"
            ),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="campaign_window"),
            models.CheckConstraint(
                condition=Q(state__in=["draft", "live", "paused", "killed", "ended", "settled"]),
                name="campaign_state",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class CampaignPacket(models.Model):
    """A packet of a campaign; a packet belongs to at most one."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="links", verbose_name=_("campaign")
    )
    packet = models.OneToOneField(
        "packets.Packet", models.PROTECT, related_name="campaign_link", verbose_name=_("packet")
    )
    order = models.PositiveIntegerField(_("order"))

    class Meta:
        verbose_name = _("packet of a campaign")
        verbose_name_plural = _("packets of campaigns")
        ordering = ["order"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "order"], name="campaign_packet_order")
        ]

    def __str__(self) -> str:
        return f"{self.order}: {self.packet_id.hex}"
