"""What an app's back end reports of its people."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models import Campaign


class ServerEvent(models.Model):
    """One event of one person, once per (client app, id). Insert-only.

    `kind` is `joined`, `active`, `mission_done`, or a word of the app's own.
    """

    client_app_id = models.BigIntegerField(_("client app"))
    key = models.CharField(_("the app's id"), max_length=128)
    participant = models.BinaryField(_("participant"), max_length=16)
    kind = models.CharField(_("kind"), max_length=32)
    campaign = models.ForeignKey(
        Campaign,
        models.PROTECT,
        null=True,
        related_name="server_events",
        verbose_name=_("campaign"),
    )
    mission = models.CharField(_("mission"), max_length=64, blank=True)
    at = models.DateTimeField(_("at"))
    received_at = models.DateTimeField(_("received at"), db_default=Now())

    class Meta:
        verbose_name = _("server event")
        verbose_name_plural = _("server events")
        indexes = [
            models.Index(fields=["participant", "kind", "at"], name="serverevent_participant"),
            models.Index(fields=["kind", "at"], name="serverevent_kind"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["client_app_id", "key"], name="serverevent_once")
        ]

    def __str__(self) -> str:
        return f"{self.client_app_id}: {self.key}"
