"""What was counted of a campaign's growth, and when it is to be counted again."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign


class GrowthSnapshot(models.Model):
    """One kind of figures of one campaign as they were at a moment. Sums only: nobody is named.

    `until_at` is the moment up to which was counted, `data` what `referrals/analytics/` says.
    """

    class Kind(models.TextChoices):
        FUNNEL = "funnel", _("visits, joins, claims, invitations")
        SPREAD = "spread", _("how far it spreads")
        RETENTION = "retention", _("who comes back")
        GROUPS = "groups", _("chat groups")
        COST = "cost", _("what it costs")
        BURN = "burn", _("budget burn")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="snapshots", verbose_name=_("campaign")
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices)
    computed_at = models.DateTimeField(_("counted at"), db_default=Now())
    from_at = models.DateTimeField(_("counted from"))
    until_at = models.DateTimeField(_("counted until"))
    data = models.JSONField(_("figures"))

    class Meta:
        verbose_name = _("growth figures")
        verbose_name_plural = _("growth figures")
        indexes = [models.Index(fields=["campaign", "kind", "-id"], name="snapshot_newest")]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.kind}"


class SnapshotDue(models.Model):
    """When a campaign is counted next, by Postgres's clock; NULL: it was counted to its end."""

    campaign = models.OneToOneField(
        Campaign,
        models.PROTECT,
        primary_key=True,
        related_name="snapshot_due",
        verbose_name=_("campaign"),
    )
    due_at = models.DateTimeField(_("due at"), null=True, db_default=Now())

    class Meta:
        verbose_name = _("next growth figures")
        verbose_name_plural = _("next growth figures")
        indexes = [models.Index(fields=["due_at"], name="snapshot_due")]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.due_at}"
