"""People who win nothing (`packets/blocking.py`)."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from packets.models.packet import Gate


class Block(models.Model):
    """One person wins nothing behind this gate (`all`: anywhere), as long as the row is there."""

    gate = models.ForeignKey(
        Gate, models.PROTECT, related_name="blocked", verbose_name=_("gate"), db_index=False
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    at = models.DateTimeField(_("at"), db_default=Now())

    class Meta:
        verbose_name = _("blocked person")
        verbose_name_plural = _("blocked people")
        constraints = [models.UniqueConstraint(fields=["gate", "participant"], name="block_once")]

    def __str__(self) -> str:
        return bytes(self.participant).hex()
