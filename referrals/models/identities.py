"""By what two accounts may turn out to be one person's: phones and networks, as keyed hashes."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Identity(models.Model):
    """That a person was seen with this phone, or in this network (`referrals/risk/noting.py`).

    Days only, and no order among those of one person: enough for clusters and for forgetting.
    """

    class Kind(models.TextChoices):
        DEVICE = "device", _("phone")
        NETWORK = "network", _("network")

    pk = models.CompositePrimaryKey("participant", "kind", "digest")
    participant = models.BinaryField(_("participant"), max_length=16)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    digest = models.BinaryField(_("keyed hash"), max_length=16)
    key_id = models.CharField(_("id of the key"), max_length=40)
    first_seen = models.DateField(_("first seen"))
    last_seen = models.DateField(_("last seen"))

    class Meta:
        verbose_name = _("phone or network")
        verbose_name_plural = _("phones and networks")
        permissions = [("erase_person", _("Can erase people"))]
        # What is forgotten by age.
        indexes = [models.Index(fields=["last_seen"], name="identity_by_age")]

    def __str__(self) -> str:
        return f"{bytes(self.participant).hex()[:8]}: {self.kind}"
