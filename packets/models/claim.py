"""Claims, and what became of each."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import MAX_FEN
from packets.models.lane import Lane
from packets.models.ledger import Transfer
from packets.models.packet import Packet


class Claim(models.Model):
    """One participant's portion of one packet. Written only by `laisee_commit_claims`.

    `position` counts the lane's claims 1, 2, 3, … in the order of their commits, without gaps
    (it is given under the lane's lock): settlement follows it like a tape.
    """

    id = models.UUIDField(_("id"), primary_key=True)
    packet = models.ForeignKey(
        Packet, models.PROTECT, related_name="claims", verbose_name=_("packet"), db_index=False
    )
    lane = models.ForeignKey(
        Lane, models.PROTECT, related_name="claims", verbose_name=_("lane"), db_index=False
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    serial = models.IntegerField(_("serial"), default=0)
    epoch = models.BigIntegerField(_("epoch"))
    index = models.BigIntegerField(_("index"))
    amount_fen = models.BigIntegerField(_("amount"))
    tier = models.SmallIntegerField(_("tier"), default=0)
    position = models.BigIntegerField(_("position"))
    committed_at = models.DateTimeField(_("committed at"), db_default=Now())

    class Meta:
        verbose_name = _("claim")
        verbose_name_plural = _("claims")
        indexes = [
            models.Index(fields=["participant", "-committed_at", "-id"], name="claim_participant"),
            # Grows at its right end only, so it costs a commit little; lists by date, the live
            # board's last minute and the newest claims are read by it.
            models.Index(fields=["committed_at"], name="claim_committed_at"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["lane", "epoch", "index"], name="claim_index_once"),
            models.UniqueConstraint(fields=["lane", "position"], name="claim_position"),
            models.CheckConstraint(
                condition=Q(amount_fen__gt=0) & Q(amount_fen__lte=MAX_FEN), name="claim_amount"
            ),
        ]

    def __str__(self) -> str:
        return self.id.hex


class ClaimState(models.Model):
    """What became of a committed claim. No row: committed, and settlement hasn't come to it yet."""

    class State(models.TextChoices):
        SETTLED = "settled", _("settled")
        PARKED = "parked", _("parked: settlement was refused")
        HELD = "held", _("held for review")
        FORFEITED = "forfeited", _("forfeited")

    claim = models.OneToOneField(
        Claim, models.PROTECT, primary_key=True, related_name="state", verbose_name=_("claim")
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices)
    transfer = models.OneToOneField(
        Transfer, models.PROTECT, null=True, related_name="claim_state", verbose_name=_("transfer")
    )
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    changed_at = models.DateTimeField(_("changed at"), db_default=Now())

    class Meta:
        verbose_name = _("claim state")
        verbose_name_plural = _("claim states")
        indexes = [
            models.Index(
                fields=["changed_at"], name="claimstate_parked", condition=Q(state="parked")
            )
        ]

    def __str__(self) -> str:
        return f"{self.claim_id.hex}: {self.state}"
