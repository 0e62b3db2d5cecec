"""What staff start from and have to know: templates, notices, samples of the burn."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models.campaign import (
    SLUG_MAX_CHARS,
    Campaign,
)


class CampaignTemplate(models.Model):
    """What a new campaign may be made from: texts, a budget and packets (see `blueprints.py`)."""

    slug = models.SlugField(_("slug"), max_length=SLUG_MAX_CHARS, unique=True)
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80)
    description_zh = models.CharField(_("description (Chinese)"), max_length=200, blank=True)
    description_en = models.CharField(_("description (English)"), max_length=200, blank=True)
    document = models.JSONField(_("content"))
    order = models.PositiveIntegerField(_("order"), default=0)
    active = models.BooleanField(_("active"), default=True)

    class Meta:
        verbose_name = _("campaign template")
        verbose_name_plural = _("campaign templates")
        ordering = ["order", "slug"]

    def __str__(self) -> str:
        return self.slug


class Notice(models.Model):
    """Something one member of staff has to know. Its words are made when it is shown."""

    class Kind(models.TextChoices):
        REVIEW_REQUESTED = "review_requested", _("review requested")
        SENT_BACK = "sent_back", _("sent back")
        APPROVED = "approved", _("approved")
        APPROVAL_VOIDED = "approval_voided", _("approval voided")
        LAUNCH_REFUSED = "launch_refused", _("launch refused")
        TOP_UP_REQUESTED = "top_up_requested", _("top-up requested")
        TOP_UP_DECIDED = "top_up_decided", _("top-up decided")
        COMPLAINTS = "complaints", _("complaints about sharing")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices", verbose_name=_("user")
    )
    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="notices", verbose_name=_("campaign")
    )
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    details = models.JSONField(_("details"), default=dict)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    read_at = models.DateTimeField(_("read at"), null=True, blank=True)
    mailed_at = models.DateTimeField(_("mailed at"), null=True, blank=True)

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "-id"], name="notice_unread", condition=Q(read_at=None)),
            models.Index(fields=["id"], name="notice_unmailed", condition=Q(mailed_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.kind}"


class BurnSample(models.Model):
    """How far a running campaign was at a moment: the live board's line, never the books."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="samples", verbose_name=_("campaign")
    )
    at = models.DateTimeField(_("at"))
    claimed_fen = models.BigIntegerField(_("claimed"))
    claimed_count = models.BigIntegerField(_("claims"))

    class Meta:
        verbose_name = _("sample of the live board")
        verbose_name_plural = _("samples of the live board")
        constraints = [models.UniqueConstraint(fields=["campaign", "at"], name="burnsample_once")]
        indexes = [models.Index(fields=["-at"], name="burnsample_at")]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.at}"
