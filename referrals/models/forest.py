"""The referral forest: who was invited by whom, and what each of them earned by it."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign
from referrals.models.links import ShareLink


class Referral(models.Model):
    """An accepted edge. Bound once, for ever; a campaign's edges form a forest.

    `depth` counts the edges up to the root, `root` is the person at the top (who has no row: nobody
    invited them).
    """

    class Source(models.TextChoices):
        CLICK = "click", _("opened the link")
        CODE = "code", _("typed the code")
        CLAIM = "claim", _("claimed with the code")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="referrals", verbose_name=_("campaign")
    )
    client_app_id = models.BigIntegerField(_("client app"))
    invitee = models.BinaryField(_("friend"), max_length=16)
    inviter = models.BinaryField(_("inviter"), max_length=16)
    link = models.ForeignKey(
        ShareLink, models.PROTECT, related_name="referrals", verbose_name=_("share link")
    )
    parent = models.ForeignKey(
        "self",
        models.PROTECT,
        null=True,
        related_name="children",
        verbose_name=_("the inviter's own referral"),
    )
    root = models.BinaryField(_("root"), max_length=16)
    depth = models.PositiveIntegerField(_("depth"))
    source = models.CharField(_("source"), max_length=8, choices=Source.choices)
    click_id = models.UUIDField(_("click"), null=True, unique=True)
    bound_at = models.DateTimeField(_("bound at"), db_default=Now())

    class Meta:
        verbose_name = _("referral")
        verbose_name_plural = _("referrals")
        indexes = [
            models.Index(fields=["campaign", "inviter", "-id"], name="referral_inviter"),
            models.Index(fields=["campaign", "bound_at"], name="referral_by_time"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "invitee"], name="referral_once"),
            models.CheckConstraint(condition=~Q(invitee=F("inviter")), name="referral_not_oneself"),
            models.CheckConstraint(condition=Q(depth__gte=1), name="referral_depth"),
        ]

    def __str__(self) -> str:
        return f"{bytes(self.invitee).hex()[:8]} ← {bytes(self.inviter).hex()[:8]}"


class CircleTry(models.Model):
    """That somebody tried to become the invitee of one of their own tree: what farms do, and
    hardly anybody else. Of the same two people once; forgotten by age."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="+", verbose_name=_("campaign"), db_index=False
    )
    invitee = models.BinaryField(_("friend"), max_length=16)
    inviter = models.BinaryField(_("inviter"), max_length=16)
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("circle that was refused")
        verbose_name_plural = _("circles that were refused")
        constraints = [
            models.UniqueConstraint(fields=["campaign", "invitee", "inviter"], name="circle_once")
        ]

    def __str__(self) -> str:
        return f"{bytes(self.invitee).hex()[:8]} ← {bytes(self.inviter).hex()[:8]}"


class Reward(models.Model):
    """What one side of a referral earned: granted once, as a claim on the reward packet."""

    class Side(models.TextChoices):
        INVITER = "inviter", _("the inviter")
        INVITEE = "invitee", _("the friend")
        ANCESTOR = "ancestor", _("the inviter's inviter")

    class State(models.TextChoices):
        GRANTED = "granted", _("granted")
        CAPPED = "capped", _("not granted: the cap was reached")
        SOLD_OUT = "sold_out", _("not granted: the budget was used up")
        ENDED = "ended", _("not granted: the packet had ended")
        REFUSED = "refused", _("not granted: the packet isn't for this person")

    referral = models.ForeignKey(
        Referral, models.PROTECT, related_name="rewards", verbose_name=_("referral")
    )
    side = models.CharField(_("side"), max_length=8, choices=Side.choices)
    participant = models.BinaryField(_("participant"), max_length=16)
    state = models.CharField(_("state"), max_length=8, choices=State.choices)
    claim = models.OneToOneField(
        "packets.Claim",
        models.PROTECT,
        null=True,
        related_name="reward",
        verbose_name=_("claim"),
    )
    qualified_by = models.CharField(_("earned by"), max_length=160)
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("reward")
        verbose_name_plural = _("rewards")
        indexes = [models.Index(fields=["participant", "-id"], name="reward_participant")]
        constraints = [
            models.UniqueConstraint(fields=["referral", "side"], name="reward_once"),
            models.CheckConstraint(
                condition=Q(state="granted", claim__isnull=False)
                | ~Q(state="granted") & Q(claim=None),
                name="reward_claim",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.referral_id}: {self.side}"
