"""Lists of people for targeted packets, read in parts."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from campaign.models.campaign import (
    HASH_HEX_CHARS,
)


class TargetUpload(models.Model):
    """A list of people for a targeted packet: received whole, then read part by part."""

    class State(models.TextChoices):
        RECEIVED = "received", _("waiting")
        RUNNING = "running", _("running")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        CLEARED = "cleared", _("cleared")

    packet = models.ForeignKey(
        "packets.Packet", models.CASCADE, related_name="uploads", verbose_name=_("packet")
    )
    client_app = models.ForeignKey(
        "engine.ClientApp", models.PROTECT, related_name="+", verbose_name=_("client app")
    )
    filename = models.CharField(_("file"), max_length=200)
    sha256 = models.CharField(_("SHA-256"), max_length=HASH_HEX_CHARS)
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.RECEIVED
    )
    total_rows = models.BigIntegerField(_("rows"), default=0)
    done_rows = models.BigIntegerField(_("rows read"), default=0)
    added = models.BigIntegerField(_("people added"), default=0)
    repeated = models.BigIntegerField(_("people who were listed already"), default=0)
    refused = models.BigIntegerField(_("rows refused"), default=0)
    why = models.CharField(_("why it failed"), max_length=300, blank=True, default="")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("uploaded by"),
    )
    created_at = models.DateTimeField(_("uploaded at"), db_default=Now())
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("target list")
        verbose_name_plural = _("target lists")
        ordering = ["-id"]
        permissions = [("upload_targets", _("Can upload and clear target lists"))]
        indexes = [
            models.Index(
                fields=["id"],
                name="targetupload_due",
                condition=Q(state__in=["received", "running"]),
            )
        ]

    def __str__(self) -> str:
        return self.filename

    @property
    def percent(self) -> int:
        return 100 if not self.total_rows else self.done_rows * 100 // self.total_rows


class TargetUploadPart(models.Model):
    """Some thousand rows of an upload; gone once they are read, so none is read twice."""

    upload = models.ForeignKey(TargetUpload, models.CASCADE, related_name="parts")
    number = models.PositiveIntegerField()
    first_row = models.BigIntegerField()
    rows = models.PositiveIntegerField()
    text = models.TextField()

    class Meta:
        verbose_name = _("part of a target list")
        verbose_name_plural = _("parts of target lists")
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["upload", "number"], name="uploadpart_once")]

    def __str__(self) -> str:
        return f"{self.upload_id}: {self.number}"


class TargetUploadError(models.Model):
    """A row of an upload that names nobody, and why."""

    upload = models.ForeignKey(
        TargetUpload, models.CASCADE, related_name="errors", verbose_name=_("target list")
    )
    row = models.BigIntegerField(_("row"))
    text = models.CharField(_("text"), max_length=200)
    code = models.CharField(_("code"), max_length=32)

    class Meta:
        verbose_name = _("refused row")
        verbose_name_plural = _("refused rows")
        ordering = ["row"]
        constraints = [models.UniqueConstraint(fields=["upload", "row"], name="uploaderror_once")]

    def __str__(self) -> str:
        return f"{self.row}: {self.code}"
