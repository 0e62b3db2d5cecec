"""The limits of the claim path, as staff write them."""

from __future__ import annotations

import zoneinfo

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from engine.lib import clock
from engine.lib.money import MAX_FEN
from packets.claiming import limits
from packets.models.packet import Gate, Packet

MAX_LIMIT_WINDOW_S = 31 * 24 * 3600  # counters longer than a month belong in a report


class LimitRule(models.Model):
    """How often one subject may claim: a row that staff edit, and that every door heeds within a
    second. `packets/claiming/limits.py` says how it is counted."""

    class Subject(models.TextChoices):
        PARTICIPANT = "participant", _("one person")
        DEVICE = "device", _("one device")
        IP = "ip", _("one address")
        SUBNET = "subnet", _("one network (/24, /64)")
        GROUP = "group", _("one chat group")
        LINK = "link", _("one share link")
        INVITER = "inviter", _("one inviter, over all their links")
        PACKET = "packet", _("everybody of one packet")
        CAMPAIGN = "campaign", _("everybody of one campaign")

    class Measure(models.TextChoices):
        CLAIMS = "claims", pgettext_lazy("a number", "claims")
        AMOUNT = "amount", _("money")

    class Method(models.TextChoices):
        WINDOW = "window", _("so many in a window")
        PACE = "pace", _("a steady pace, with a burst")

    class WhenAway(models.TextChoices):
        REFUSE = "refuse", _("refuse")
        ALLOW = "allow", _("let through")

    gate = models.ForeignKey(
        Gate, models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("campaign")
    )
    packet = models.ForeignKey(
        Packet, models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("packet")
    )
    subject = models.CharField(_("who is counted"), max_length=16, choices=Subject.choices)
    measure = models.CharField(
        _("what is counted"), max_length=8, choices=Measure.choices, default=Measure.CLAIMS
    )
    method = models.CharField(_("how"), max_length=8, choices=Method.choices, default=Method.WINDOW)
    limit = models.BigIntegerField(_("limit"))
    window_s = models.PositiveIntegerField(_("window (seconds)"))
    burst = models.PositiveIntegerField(_("burst"), default=0)
    timezone = models.CharField(_("time zone"), max_length=64, default="Asia/Shanghai")
    when_away = models.CharField(
        _("while Redis is away"), max_length=8, choices=WhenAway.choices, default=WhenAway.REFUSE
    )
    is_active = models.BooleanField(_("active"), default=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        constraints = [
            models.CheckConstraint(
                condition=Q(limit__gte=1) & Q(limit__lte=MAX_FEN), name="limit_positive"
            ),
            models.CheckConstraint(
                condition=Q(window_s__gte=1) & Q(window_s__lte=MAX_LIMIT_WINDOW_S),
                name="limit_window",
            ),
            models.CheckConstraint(
                condition=Q(method="window", burst=0) | Q(method="pace", burst__gte=1),
                name="limit_burst",
            ),
            models.CheckConstraint(condition=Q(gate=None) | Q(packet=None), name="limit_one_place"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def rule(self) -> limits.Rule:
        """What the claim path needs of it. A day begins at midnight of the rule's time zone."""
        offset = clock.now().astimezone(zoneinfo.ZoneInfo(self.timezone)).utcoffset()
        return limits.Rule(
            id=self.pk,
            subject=limits.Subject(self.subject),
            measure=limits.Measure(self.measure),
            method=limits.Method(self.method),
            limit=self.limit,
            window_s=self.window_s,
            burst=self.burst,
            offset_s=int(offset.total_seconds()) if offset else 0,
            refuse_when_away=self.when_away == self.WhenAway.REFUSE,
        )
