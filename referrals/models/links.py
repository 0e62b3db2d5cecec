"""Share links, their visits, and complaints about them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign, Channel, Vehicle

CODE_CHARS = 10  # of 32 letters: 50 bits, out of reach of guessing behind a limit on misses


class ShareLink(models.Model):
    """A participant's link into one channel: the same for the same person and channel.

    The code is drawn at random and looked up; nothing can be derived from it.
    """

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="share_links", verbose_name=_("campaign")
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    client_app_id = models.BigIntegerField(_("client app"))
    channel = models.CharField(_("channel"), max_length=16, choices=Channel.choices)
    code = models.CharField(_("code"), max_length=16, unique=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    # When the person last asked for it: asking is sharing, and shares are paced.
    shared_at = models.DateTimeField(_("last shared at"), db_default=Now())
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    revoke_reason = models.CharField(_("why it was revoked"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("share link")
        verbose_name_plural = _("share links")
        indexes = [models.Index(fields=["participant", "-id"], name="sharelink_participant")]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign", "participant", "channel"], name="sharelink_once"
            )
        ]

    def __str__(self) -> str:
        return self.code


class Visit(models.Model):
    """One opening of a link by a person. Bots and previews leave none.

    `click_id` is what the signed click token carries; a referral uses it up.
    """

    link = models.ForeignKey(
        ShareLink, models.PROTECT, related_name="visits", verbose_name=_("share link")
    )
    # The link's, repeated for the index.
    campaign = models.ForeignKey(
        Campaign, models.PROTECT, null=True, related_name="+", verbose_name=_("campaign")
    )
    vehicle = models.CharField(_("vehicle"), max_length=8, choices=Vehicle.choices)
    click_id = models.UUIDField(_("click"), unique=True)
    # Keyed hash (with the key's version) of the truncated network; never the address.
    network_hash = models.CharField(_("network (keyed hash)"), max_length=80, blank=True)
    # Keyed hash of the whole address with the browser's name: the same visitor again.
    visitor_hash = models.CharField(
        _("visitor (keyed hash)"), max_length=80, blank=True, db_default=""
    )
    agent = models.CharField(_("kind of browser"), max_length=40, blank=True)
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("visit")
        verbose_name_plural = _("visits")
        indexes = [
            models.Index(fields=["link", "-at"], name="visit_link"),
            models.Index(fields=["campaign", "-at"], name="visit_campaign"),
            # Whose hashes are still to be forgotten, by age.
            models.Index(
                fields=["at"],
                name="visit_to_forget",
                condition=~Q(network_hash="") | ~Q(visitor_hash=""),
            ),
        ]

    def __str__(self) -> str:
        return self.click_id.hex


class Complaint(models.Model):
    """Somebody was bothered by a link."""

    link = models.ForeignKey(
        ShareLink, models.PROTECT, related_name="complaints", verbose_name=_("share link")
    )
    campaign = models.ForeignKey(
        Campaign, models.PROTECT, null=True, related_name="+", verbose_name=_("campaign")
    )
    network_hash = models.CharField(_("network (keyed hash)"), max_length=80, blank=True)
    reason = models.CharField(_("reason"), max_length=32, blank=True)
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("complaint")
        verbose_name_plural = _("complaints")
        indexes = [
            models.Index(fields=["link", "-at"], name="complaint_link"),
            models.Index(fields=["campaign", "-at"], name="complaint_campaign"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["link", "network_hash"], name="complaint_once")
        ]

    def __str__(self) -> str:
        return f"{self.link_id} {self.at:%Y-%m-%d}"
