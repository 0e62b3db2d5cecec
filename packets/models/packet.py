"""A packet: an amount cut into portions, the gate it stands behind, and for whom it is."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN
from packets.models.ledger import Account

MAX_LANES = 1024  # a packet is closed in one transaction that locks them all


class Gate(models.Model):
    """Open, or nothing behind it is claimed: every commit reads it, so closing it acts at once.

    The gate `all` stands before everything; each funder (a campaign) brings one of its own.
    """

    class State(models.TextChoices):
        OPEN = "open", _("open")
        PAUSED = "paused", _("paused")
        CLOSED = "closed", _("closed")

    ALL = "all"

    key = models.CharField(_("key"), max_length=64, unique=True)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.PAUSED)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    # Moves with each change of who is blocked here (`packets/blocking.py`).
    blocks = models.PositiveBigIntegerField(_("changes of blocked people"), db_default=0)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("gate")
        verbose_name_plural = _("gates")

    def __str__(self) -> str:
        return self.key


class Packet(models.Model):
    """An amount cut into `count` portions that can be claimed."""

    class Strategy(models.TextChoices):
        FIXED = "fixed", _("fixed")
        LUCKY = "lucky", _("lucky")
        DOUBLE_MEAN = "double_mean", _("double mean")
        TIERS = "tiers", _("prize tiers")

    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        OPEN = "open", _("open")
        PAUSED = "paused", _("paused")
        CLOSED = "closed", _("closed")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4)
    name = models.CharField(_("name"), max_length=80, blank=True)
    gate = models.ForeignKey(Gate, models.PROTECT, related_name="packets", verbose_name=_("gate"))
    funder = models.ForeignKey(
        Account, models.PROTECT, related_name="funded_packets", verbose_name=_("funded by")
    )
    escrow = models.OneToOneField(
        Account, models.PROTECT, related_name="packet", verbose_name=_("escrow"), null=True
    )
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.DRAFT)

    # How it is cut. Frozen when the packet opens.
    strategy = models.CharField(
        _("strategy"), max_length=16, choices=Strategy.choices, default=Strategy.LUCKY
    )
    total_fen = models.BigIntegerField(_("total"))
    count = models.BigIntegerField(_("portions"))
    min_fen = models.BigIntegerField(_("smallest portion"), default=1)
    max_fen = models.BigIntegerField(_("largest portion"), null=True, blank=True)
    evenness = models.PositiveSmallIntegerField(_("evenness"), default=2)
    tiers = models.JSONField(_("prize tiers"), default=list, blank=True)
    remainder = models.CharField(
        _("remainder strategy"), max_length=16, choices=Strategy.choices, default=Strategy.LUCKY
    )
    lane_count = models.PositiveIntegerField(_("lanes"), default=1)

    # When and for whom.
    opens_at = models.DateTimeField(_("opens at"))
    closes_at = models.DateTimeField(_("closes at"))
    client_apps = ArrayField(models.BigIntegerField(), verbose_name=_("client apps"), default=list)
    targeted = models.BooleanField(_("only for listed people"), default=False)
    group = models.CharField(_("only for this group"), max_length=128, blank=True)
    new_only = models.BooleanField(_("only for new people"), default=False)
    min_account_age_days = models.PositiveIntegerField(_("least account age (days)"), default=0)
    password_hash = models.CharField(_("password"), max_length=64, blank=True)
    # With a default in the database: processes of the version before this column write packets too.
    needs_ticket = models.BooleanField(_("only with a ticket"), default=False, db_default=False)

    # Proof of fairness: see packets/proof.py.
    seed_encrypted = models.TextField(_("seed (encrypted)"))
    commitment = models.CharField(_("seed commitment"), max_length=64)
    beacon = models.CharField(_("beacon"), max_length=32, blank=True)
    beacon_commitment = models.CharField(_("beacon commitment"), max_length=64, blank=True)
    home_key = models.BinaryField(_("home key"), max_length=16)

    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    opened_at = models.DateTimeField(_("opened at"), null=True)
    closed_at = models.DateTimeField(_("closed at"), null=True)

    class Meta:
        verbose_name = _("packet")
        verbose_name_plural = _("packets")
        indexes = [
            models.Index(
                fields=["closes_at"], name="packet_due", condition=Q(state__in=["open", "paused"])
            ),
            models.Index(fields=["funder", "-created_at"], name="packet_funder"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(count__gt=0) & Q(total_fen__gte=F("count")) & Q(total_fen__lte=MAX_FEN),
                name="packet_shape",
            ),
            models.CheckConstraint(condition=Q(min_fen__gte=1), name="packet_min"),
            models.CheckConstraint(condition=Q(closes_at__gt=F("opens_at")), name="packet_window"),
            models.CheckConstraint(
                condition=Q(lane_count__gte=1) & Q(lane_count__lte=MAX_LANES), name="packet_lanes"
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.id.hex

    @property
    def public_id(self) -> str:
        return self.id.hex


class PacketTarget(models.Model):
    """One person of a targeted packet's list."""

    packet = models.ForeignKey(
        Packet, models.CASCADE, related_name="targets", verbose_name=_("packet")
    )
    participant = models.BinaryField(_("participant"), max_length=16)

    class Meta:
        verbose_name = _("listed person")
        verbose_name_plural = _("listed people")
        constraints = [
            models.UniqueConstraint(fields=["packet", "participant"], name="target_once")
        ]

    def __str__(self) -> str:
        return f"{self.packet_id.hex}: {bytes(self.participant).hex()}"


class Ticket(models.Model):
    """A right to one claim, given to one person by an app's back end or by a rule. Insert-only.

    `serial` counts the person's tickets of the packet 1, 2, 3, …; it is the serial of the claim
    that the ticket makes. `key` is the issuer's own name of the ticket, so that issuing can be
    repeated.
    """

    packet = models.ForeignKey(
        Packet, models.PROTECT, related_name="tickets", verbose_name=_("packet")
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    serial = models.IntegerField(_("serial"))
    client_app_id = models.BigIntegerField(_("client app"))
    key = models.CharField(_("issuer's id"), max_length=128)
    reason = models.CharField(_("reason"), max_length=200)
    created_at = models.DateTimeField(_("issued at"), db_default=Now())

    class Meta:
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")
        constraints = [
            models.UniqueConstraint(fields=["client_app_id", "key"], name="ticket_key_once"),
            models.UniqueConstraint(
                fields=["participant", "packet", "serial"], name="ticket_serial_once"
            ),
            models.CheckConstraint(condition=Q(serial__gt=0), name="ticket_serial"),
        ]

    def __str__(self) -> str:
        return f"{self.packet_id.hex}: {bytes(self.participant).hex()} {self.serial}"


class Participant(models.Model):
    """Who a digest is: (client app, subject). Written before the claim it belongs to."""

    digest = models.BinaryField(_("digest"), primary_key=True, max_length=16)
    client_app_id = models.BigIntegerField(_("client app"))
    subject = models.CharField(_("the app's user id"), max_length=128)
    created_at = models.DateTimeField(_("first seen"), db_default=Now())

    class Meta:
        verbose_name = _("participant")
        verbose_name_plural = _("participants")

    def __str__(self) -> str:
        return f"{self.client_app_id}/{self.subject}"
