"""The rows of the data plane.

    Gate ── stands before packets: unless it is open, nothing behind it is claimed
    Packet ─< Lane ─< LaneEpoch        an amount cut into portions, in independent slices
              Lane ─< Claim ── ClaimState   one participant's portion, and what became of it
              Lane ── LaneCursor       how far settlement has come
    Packet ─< Ticket                   rights to a claim, where a person may claim more than once
    Account ─< Transfer                double entry

Claim, LaneEpoch, Ticket and Transfer are insert-only (triggers and the application's role refuse
the rest).
What the database itself guarantees is written in `packets/sql/`; the rules of a claim's commit are
in `packets/sql/commit_claims.sql`.
"""

from __future__ import annotations

import uuid
import zoneinfo

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from engine.lib import clock
from engine.lib.money import CURRENCY, MAX_FEN
from packets.claiming import limits

MAX_PORTIONS_PER_LANE = 94_906_265  # n² must stay below 2^53 in Lua's doubles
MAX_LIMIT_WINDOW_S = 31 * 24 * 3600  # counters longer than a month belong in a report
MAX_LANES = 1024  # a packet is closed in one transaction that locks them all


class Account(models.Model):
    """A ledger account; `balance_fen` = credits − debits. Only the ledger's trigger moves it."""

    class Kind(models.TextChoices):
        EXTERNAL = "external", _("outside world")
        CAMPAIGN = "campaign", _("campaign budget")
        ESCROW = "escrow", _("packet escrow")
        WALLET = "wallet", _("wallet")
        HELD = "held", _("held for review")
        CLEARING = "clearing", _("payout clearing")

    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices)
    owner = models.CharField(_("owner"), max_length=64)
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    debits_fen = models.BigIntegerField(_("debits"), default=0)
    credits_fen = models.BigIntegerField(_("credits"), default=0)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints = [
            models.UniqueConstraint(fields=["kind", "owner", "currency"], name="account_one_each"),
            # The target of the composite keys that keep every transfer within one currency.
            models.UniqueConstraint(fields=["id", "currency"], name="account_currency"),
            models.CheckConstraint(
                condition=Q(debits_fen__gte=0) & Q(credits_fen__gte=0), name="account_sums_positive"
            ),
            models.CheckConstraint(
                condition=Q(kind="external") | Q(credits_fen__gte=F("debits_fen")),
                name="account_not_overdrawn",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}:{self.owner}"

    @property
    def balance_fen(self) -> int:
        return self.credits_fen - self.debits_fen


class Transfer(models.Model):
    """Money moved once, for ever. Corrections are new transfers."""

    class Kind(models.TextChoices):
        FUND = "fund", _("fund a campaign")
        OPEN = "open", _("open a packet")
        SETTLE = "settle", _("settle a claim")
        CLOSE = "close", _("return of a packet's remainder")
        REFUND = "refund", _("return of a campaign's remainder")

    reference = models.CharField(_("reference"), max_length=80, unique=True)
    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices)
    # Without indexes of their own: those of an account's newest transfers begin with the account.
    debit_account = models.ForeignKey(
        Account,
        models.PROTECT,
        related_name="debits",
        verbose_name=_("debit account"),
        db_index=False,
    )
    credit_account = models.ForeignKey(
        Account,
        models.PROTECT,
        related_name="credits",
        verbose_name=_("credit account"),
        db_index=False,
    )
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    amount_fen = models.BigIntegerField(_("amount"))
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("transfer")
        verbose_name_plural = _("transfers")
        indexes = [
            models.Index(fields=["credit_account", "-id"], name="transfer_credit"),
            models.Index(fields=["debit_account", "-id"], name="transfer_debit"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_fen__gt=0) & Q(amount_fen__lte=MAX_FEN), name="transfer_amount"
            ),
            models.CheckConstraint(
                condition=~Q(debit_account=F("credit_account")), name="transfer_two_accounts"
            ),
        ]

    def __str__(self) -> str:
        return self.reference


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


class LimitRule(models.Model):
    """How often one subject may claim: a row that staff edit, and that every door heeds within a
    second. `packets/claiming/limits.py` says how it is counted."""

    class Subject(models.TextChoices):
        PARTICIPANT = "participant", _("one person")
        DEVICE = "device", _("one device")
        IP = "ip", _("one address")
        SUBNET = "subnet", _("one network (/24, /64)")
        GROUP = "group", _("one chat group")
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


class LaneCursor(models.Model):
    """How many of a lane's claims settlement has dealt with: positions 1..settled_count."""

    lane = models.OneToOneField(
        Lane, models.PROTECT, primary_key=True, related_name="cursor", verbose_name=_("lane")
    )
    settled_count = models.BigIntegerField(_("settled"), default=0)

    class Meta:
        verbose_name = _("settlement cursor")
        verbose_name_plural = _("settlement cursors")

    def __str__(self) -> str:
        return f"{self.lane_id}: {self.settled_count}"


class ClaimState(models.Model):
    """What became of a committed claim. No row: committed, and settlement hasn't come to it yet."""

    class State(models.TextChoices):
        SETTLED = "settled", _("settled")
        PARKED = "parked", _("parked: settlement was refused")

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
