"""What participants were told, and when: the published rules of each version, word for word."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models.campaign import HASH_HEX_CHARS, Campaign


class Disclosure(models.Model):
    """One published version. Rows are written once: a change is a further row."""

    class Cause(models.TextChoices):
        """Why there is a further version. All but `approved` happen to a running campaign, and
        favour those who take part."""

        APPROVED = "approved", _("approved")
        TOPPED_UP = "topped_up", _("topped up")
        EXTENDED = "extended", _("moved the end")
        ROUND_MOVED = "round_moved", _("moved a round")
        GROWTH = "growth", _("changed how it spreads")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="disclosures", verbose_name=_("campaign")
    )
    number = models.PositiveIntegerField(_("version"))
    cause = models.CharField(_("why"), max_length=12, choices=Cause.choices)
    # Of the campaign's document (campaign/versions.py) from which it was written.
    version_hash = models.CharField(_("version hash"), max_length=HASH_HEX_CHARS)
    # Canonical JSON, both languages: {"zh": {…}, "en": {…}} as campaign/disclosing/wording.py says.
    body = models.TextField(_("what was published"))
    sha256 = models.CharField(_("SHA-256 of it"), max_length=HASH_HEX_CHARS)
    at = models.DateTimeField(_("published at"), db_default=Now())

    class Meta:
        verbose_name = _("published rules")
        verbose_name_plural = _("published rules")
        ordering = ["campaign", "-number"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["campaign", "number"], name="disclosure_number")
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id.hex}: {self.number}"
