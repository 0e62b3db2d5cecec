"""With which share code somebody claimed (`packets/sql/touches.sql`)."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class ShareTouch(models.Model):
    """A code that came with a claim, waiting to be looked at; dropped once that is done.

    No foreign key: it is written before the claim, which may come to nothing. The first code of a
    claim stays. `due_at`: whoever works on the row moves it into the future (a lease).
    """

    claim_id = models.UUIDField(_("claim"), primary_key=True)
    client_app_id = models.BigIntegerField(_("client app"))
    code = models.CharField(_("code"), max_length=64)
    at = models.DateTimeField(_("at"), db_default=Now())
    due_at = models.DateTimeField(_("due at"), db_default=Now())

    class Meta:
        verbose_name = _("code of a claim")
        verbose_name_plural = _("codes of claims")
        indexes = [models.Index(fields=["due_at"], name="sharetouch_due")]

    def __str__(self) -> str:
        return self.claim_id.hex
