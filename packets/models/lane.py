"""Lanes: the slices of a packet, what each epoch of them began with, how far each is settled."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from packets.models.packet import Packet

MAX_PORTIONS_PER_LANE = 94_906_265  # n² must stay below 2^53 in Lua's doubles


class Lane(models.Model):
    """An independent slice of one packet, with its own amount and count (an escrow of stock).

    What is left moves between the open lanes of a packet (packets/rebalancing.py), by
    `laisee_rebalance` alone: the lanes' sums stay what the packet was opened with.

    The CHECKs are the last word on the cap. The row is updated by every commit, so its pages are
    left nearly empty (fillfactor 10, set in SQL) for the new versions.
    """

    class State(models.TextChoices):
        LOADING = "loading", _("loading")
        OPEN = "open", _("open")
        CLOSED = "closed", _("closed")

    packet = models.ForeignKey(
        Packet, models.PROTECT, related_name="lanes", verbose_name=_("packet")
    )
    number = models.PositiveIntegerField(_("number"))
    total_fen = models.BigIntegerField(_("total"))
    count = models.BigIntegerField(_("portions"))
    tiers = models.JSONField(_("tier quantities"), default=list)
    # How many small hashes hold the claimants in Redis; frozen, or records would be looked for in
    # another hash than the one they are in.
    buckets = models.PositiveIntegerField(_("buckets"), default=1)
    claimed_fen = models.BigIntegerField(_("claimed"), default=0)
    claimed_count = models.BigIntegerField(_("claims"), default=0)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default="loading")
    epoch = models.BigIntegerField(_("epoch"), default=0)
    # Who is loading the current epoch into Redis, and until when nobody else may try.
    loader = models.UUIDField(_("loader"), null=True)
    loader_until = models.DateTimeField(_("loader's lease"), null=True)
    # Set while the current epoch is one of cause `direct`: until when a process without Redis has
    # the lane to itself and those that follow it. See packets/sql/direct_lane.sql.
    direct_until = models.DateTimeField(_("lease without Redis"), null=True)

    class Meta:
        verbose_name = _("lane")
        verbose_name_plural = _("lanes")
        constraints = [
            models.UniqueConstraint(fields=["packet", "number"], name="lane_number"),
            models.CheckConstraint(
                condition=Q(claimed_fen__gte=0) & Q(claimed_fen__lte=F("total_fen")),
                name="lane_cap_fen",
            ),
            models.CheckConstraint(
                condition=Q(claimed_count__gte=0) & Q(claimed_count__lte=F("count")),
                name="lane_cap_count",
            ),
            # A lane that has given its last portion has given exactly its total.
            models.CheckConstraint(
                condition=Q(claimed_count__lt=F("count")) | Q(claimed_fen=F("total_fen")),
                name="lane_ends_exactly",
            ),
            models.CheckConstraint(
                # None at all: a lane whose portions all moved on before anybody claimed there.
                condition=Q(count__gte=0)
                & Q(count__lte=MAX_PORTIONS_PER_LANE)
                & Q(total_fen__gte=F("count")),
                name="lane_shape",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.packet_id.hex}:{self.number}"


class LaneEpoch(models.Model):
    """What a lane started an epoch with. Append-only, shown with the proof, so a re-roll shows."""

    class Cause(models.TextChoices):
        OPENED = "opened", _("opened")
        REBUILT = "rebuilt", _("rebuilt")
        RESTORED = "restored", _("restored from backup")
        DIRECT = "direct", _("served without Redis")
        REBALANCED = "rebalanced", _("rebalanced")

    lane = models.ForeignKey(Lane, models.PROTECT, related_name="epochs", verbose_name=_("lane"))
    epoch = models.BigIntegerField(_("epoch"))
    left_fen = models.BigIntegerField(_("left"))
    left_count = models.BigIntegerField(_("portions left"))
    tiers_left = models.JSONField(_("tiers left"), default=list)
    cause = models.CharField(_("cause"), max_length=10, choices=Cause.choices)
    # Of cause `rebalanced`: the number of the packet's move, shared by the lanes that took part.
    move = models.BigIntegerField(_("move"), null=True)
    opened_at = models.DateTimeField(_("opened at"), db_default=Now())

    class Meta:
        verbose_name = _("lane epoch")
        verbose_name_plural = _("lane epochs")
        constraints = [models.UniqueConstraint(fields=["lane", "epoch"], name="lane_epoch_once")]

    def __str__(self) -> str:
        return f"{self.lane_id}:{self.epoch}"


class LaneCursor(models.Model):
    """How many of a lane's claims settlement has dealt with: positions 1..settled_count."""

    lane = models.OneToOneField(
        Lane, models.PROTECT, primary_key=True, related_name="cursor", verbose_name=_("lane")
    )
    settled_count = models.BigIntegerField(_("settled"), default=0)
    # The lane is closed and all of its claims are dealt with: the sweep needn't look again.
    is_done = models.BooleanField(_("closed and settled"), default=False, db_default=False)

    class Meta:
        verbose_name = _("settlement cursor")
        verbose_name_plural = _("settlement cursors")
        indexes = [
            models.Index(fields=["lane"], name="cursor_not_done", condition=Q(is_done=False))
        ]

    def __str__(self) -> str:
        return f"{self.lane_id}: {self.settled_count}"
