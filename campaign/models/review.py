"""A second person's word: approvals of versions, and top-ups asked and decided."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models.campaign import (
    HASH_HEX_CHARS,
    Campaign,
)
from engine.lib.money import MAX_FEN


class CampaignApproval(models.Model):
    """A second person's word: this version, and no other, may start."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="approvals", verbose_name=_("campaign")
    )
    version_hash = models.CharField(_("version hash"), max_length=HASH_HEX_CHARS)
    # What was approved, so that the next version can be shown as its difference from this one.
    document = models.JSONField(_("what was approved"))
    approver = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("approved by")
    )
    at = models.DateTimeField(_("approved at"), db_default=Now())
    revoked_at = models.DateTimeField(_("voided at"), null=True, blank=True)
    revoked_by = models.CharField(_("voided by"), max_length=150, blank=True, default="")
    revoke_reason = models.CharField(_("why it was voided"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign"], condition=Q(revoked_at=None), name="approval_one_valid"
            )
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id.hex}: {self.version_hash[:12]}"


class TopUp(models.Model):
    """More for the people of a running campaign: asked by one person, decided by another."""

    class State(models.TextChoices):
        PENDING = "pending", _("waiting for a decision")
        APPROVED = "approved", _("approved")
        REJECTED = "rejected", _("rejected")
        WITHDRAWN = "withdrawn", _("withdrawn")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="top_ups", verbose_name=_("campaign")
    )
    extra_fen = models.BigIntegerField(_("extra budget"), default=0)
    # Rules of further packets, as `campaign_packet_add` takes them; opened when it is approved.
    packets = models.JSONField(_("further packets"), default=list, blank=True)
    reason = models.CharField(_("reason"), max_length=300)
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.PENDING
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("requested by")
    )
    requested_at = models.DateTimeField(_("requested at"), db_default=Now())
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("decided by"),
    )
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True)
    decision = models.CharField(_("words of the decision"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("top-up")
        verbose_name_plural = _("top-ups")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign"], condition=Q(state="pending"), name="topup_one_pending"
            ),
            models.CheckConstraint(
                condition=Q(extra_fen__gte=0) & Q(extra_fen__lte=MAX_FEN), name="topup_amount"
            ),
            models.CheckConstraint(
                condition=~Q(state="approved") | ~Q(requested_by=F("decided_by")),
                name="topup_two_people",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id.hex}: {self.extra_fen}"
