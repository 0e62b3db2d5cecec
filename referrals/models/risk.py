"""People who seem to be one person many times, and the rewards held because of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign


class RiskCase(models.Model):
    """One cluster of one campaign, as it was found. Who joins it later is added to it."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="risk_cases", verbose_name=_("campaign")
    )
    score = models.PositiveSmallIntegerField(_("score"))
    # By reason (referrals/risk/detectors.py), the numbers that were seen; never an identifier.
    evidence = models.JSONField(_("evidence"), default=dict)
    opened_at = models.DateTimeField(_("found at"), db_default=Now())

    class Meta:
        verbose_name = _("risk case")
        verbose_name_plural = _("risk cases")
        indexes = [models.Index(fields=["campaign", "-id"], name="riskcase_campaign")]
        constraints = [
            models.CheckConstraint(condition=Q(score__gte=1, score__lte=100), name="riskcase_score")
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.pk}"


class RiskMember(models.Model):
    """A person of a case: of one case in a campaign, for ever."""

    case = models.ForeignKey(
        RiskCase, models.PROTECT, related_name="members", verbose_name=_("risk case")
    )
    campaign = models.ForeignKey(
        Campaign,
        models.PROTECT,
        related_name="+",
        verbose_name=_("campaign"),
        db_index=False,
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    added_at = models.DateTimeField(_("added at"), db_default=Now())

    class Meta:
        verbose_name = _("person of a risk case")
        verbose_name_plural = _("people of risk cases")
        constraints = [
            models.UniqueConstraint(fields=["campaign", "participant"], name="riskmember_once")
        ]

    def __str__(self) -> str:
        return bytes(self.participant).hex()


class RiskReward(models.Model):
    """A reward that was looked at because of a case, once. `hold`: empty where nothing was left."""

    member = models.ForeignKey(
        RiskMember, models.PROTECT, related_name="rewards", verbose_name=_("person")
    )
    reward = models.OneToOneField(
        "referrals.Reward", models.PROTECT, related_name="risk", verbose_name=_("reward")
    )
    hold = models.OneToOneField(
        "packets.Hold", models.PROTECT, null=True, related_name="risk", verbose_name=_("hold")
    )

    class Meta:
        verbose_name = _("reward of a risk case")
        verbose_name_plural = _("rewards of risk cases")

    def __str__(self) -> str:
        return f"{self.member_id}: {self.reward_id}"
