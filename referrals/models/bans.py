"""People who may not spread a campaign any more, and what was frozen because of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign


class Ban(models.Model):
    """One person, in one campaign or (without one) in all of them. Lifted, it stays as history.

    `due_at`, `is_done`: rewards of the person's tree are held (and, once lifted, released) by a
    sweep, a little at a time; done when nothing is left to look at.
    """

    participant = models.BinaryField(_("participant"), max_length=16)
    campaign = models.ForeignKey(
        Campaign, models.PROTECT, null=True, related_name="bans", verbose_name=_("campaign")
    )
    reason = models.CharField(_("reason"), max_length=200)
    banned_by = models.CharField(_("banned by"), max_length=150)
    banned_at = models.DateTimeField(_("banned at"), db_default=Now())
    lifted_by = models.CharField(_("lifted by"), max_length=150, blank=True, db_default="")
    lifted_at = models.DateTimeField(_("lifted at"), null=True)
    lift_reason = models.CharField(
        _("why it was lifted"), max_length=200, blank=True, db_default=""
    )
    is_done = models.BooleanField(_("carried out"), db_default=False, default=False)
    due_at = models.DateTimeField(_("due at"), db_default=Now())

    class Meta:
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        permissions = [("ban_person", _("Can ban people and lift bans"))]
        indexes = [
            models.Index(fields=["due_at"], name="ban_due", condition=Q(is_done=False)),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["participant", "campaign"],
                name="ban_once",
                condition=Q(lifted_at=None),
                nulls_distinct=False,
            ),
        ]

    def __str__(self) -> str:
        return bytes(self.participant).hex()


class BanReward(models.Model):
    """A reward that a ban has looked at, once. `hold`: empty where nothing of it was left."""

    ban = models.ForeignKey(Ban, models.PROTECT, related_name="rewards", verbose_name=_("ban"))
    reward = models.ForeignKey(
        "referrals.Reward", models.PROTECT, related_name="bans", verbose_name=_("reward")
    )
    hold = models.OneToOneField(
        "packets.Hold", models.PROTECT, null=True, related_name="ban", verbose_name=_("hold")
    )

    class Meta:
        verbose_name = _("reward of a ban")
        verbose_name_plural = _("rewards of bans")
        constraints = [models.UniqueConstraint(fields=["ban", "reward"], name="banreward_once")]

    def __str__(self) -> str:
        return f"{self.ban_id}: {self.reward_id}"
