"""Campaigns: a budget, a time window, and the packets it pays for.

    Campaign ── Account (kind campaign)   the budget, in the ledger
             ── Gate `campaign:<id>`      stands before every packet of the campaign
             ─< CampaignPacket ── Packet  which packets belong to it, in the order they are shown
             ─< Rain ─< CampaignPacket    those that are the rounds of a red-packet rain
             ─< CampaignApproval          a second person's word on one exact version
             ─< TopUp                     more money or packets for a running one, asked and decided
    Packet   ─< TargetUpload ─< TargetUploadPart, TargetUploadError   people, read in parts
    CampaignTemplate                      what a new campaign may be made from
    Notice                                what a member of staff has to know, shown in the admin

A version of a campaign is the hash of everything that matters (`versions.py`). At most one approval
of a campaign is valid, and none outlives an edit.

The budget is a ledger account that can't go below zero, so no counter of ours guards it: a packet
that the account can't pay doesn't open. States move only by conditional UPDATEs in `services.py`.
"""

from __future__ import annotations

import re
import uuid
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN

DEFAULT_TIMEZONE = "Asia/Shanghai"
SLUG_MAX_CHARS = 60
RULES_MAX_CHARS = 20_000  # a page of rules; longer texts belong on the app's own site
ODDS_MAX_CHARS = 4_000
HASH_HEX_CHARS = 64  # SHA-256 in hexadecimal


_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")


def slug_is_valid(text: str) -> bool:
    """Small letters, digits and single hyphens: what can stand in an address as it is."""
    return len(text) <= SLUG_MAX_CHARS and _SLUG.match(text) is not None


def validate_timezone(name: str) -> None:
    if name not in available_timezones():
        raise ValidationError(_("%(name)s is not a time zone"), params={"name": name})


class Campaign(models.Model):
    """Rules, a window and a budget. Nothing of it can be claimed unless it is live."""

    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        REVIEW = "review", _("in review")
        SCHEDULED = "scheduled", _("scheduled")
        LIVE = "live", _("live")
        PAUSED = "paused", _("paused")
        KILLED = "killed", _("killed")
        ENDED = "ended", _("ended")
        SETTLED = "settled", _("settled")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(_("slug"), max_length=SLUG_MAX_CHARS, unique=True)
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80, blank=True)
    rules_zh = models.TextField(_("rules (Chinese)"), max_length=RULES_MAX_CHARS, blank=True)
    rules_en = models.TextField(_("rules (English)"), max_length=RULES_MAX_CHARS, blank=True)
    # How likely each prize is; the law wants it said wherever a prize is drawn.
    odds_zh = models.TextField(_("odds (Chinese)"), max_length=ODDS_MAX_CHARS, blank=True)
    odds_en = models.TextField(_("odds (English)"), max_length=ODDS_MAX_CHARS, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.DRAFT)

    budget_fen = models.BigIntegerField(_("budget"))
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    account = models.OneToOneField(
        "packets.Account", models.PROTECT, related_name="campaign", verbose_name=_("account")
    )
    gate = models.OneToOneField(
        "packets.Gate", models.PROTECT, related_name="campaign", verbose_name=_("gate")
    )

    starts_at = models.DateTimeField(_("starts at"))
    ends_at = models.DateTimeField(_("ends at"))
    timezone = models.CharField(
        _("time zone"), max_length=64, default=DEFAULT_TIMEZONE, validators=[validate_timezone]
    )
    client_apps = models.ManyToManyField(
        "engine.ClientApp", related_name="campaigns", verbose_name=_("client apps")
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("created by"),
    )
    # Nobody approves what they wrote, changed last or handed in themselves.
    edited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("last changed by"),
    )
    submitted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("submitted by"),
    )
    submitted_at = models.DateTimeField(_("submitted at"), null=True, blank=True)
    launched_at = models.DateTimeField(_("launched at"), null=True, blank=True)
    # Raised by every write, so that a form filled in against an older state is refused.
    version = models.PositiveIntegerField(_("version"), default=1)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    packets = models.ManyToManyField(
        "packets.Packet",
        through="CampaignPacket",
        related_name="campaigns",
        verbose_name=_("packets"),
    )

    class Meta:
        verbose_name = _("campaign")
        verbose_name_plural = _("campaigns")
        ordering = ["-created_at", "-id"]
        permissions = [
            ("submit_campaign", _("Can hand a campaign in for review")),
            ("approve_campaign", _("Can approve a campaign or send it back")),
            ("launch_campaign", _("Can launch an approved campaign (money moves)")),
            ("stop_campaign", _("Can pause, resume and kill a campaign")),
            ("end_campaign", _("Can end a campaign before its time (money moves)")),
            ("settle_campaign", _("Can settle a campaign (money moves)")),
            ("extend_campaign", _("Can move the end of a running campaign further away")),
            ("move_round", _("Can move a round of a red-packet rain to another time")),
            ("request_topup", _("Can ask for more budget or packets for a running campaign")),
            ("approve_topup", _("Can approve more budget or packets (money moves)")),
            ("switch_all", _("Can stop and allow all claims")),
        ]
        indexes = [
            models.Index(
                fields=["ends_at"], name="campaign_due", condition=Q(state__in=["live", "paused"])
            ),
            models.Index(
                fields=["starts_at"], name="campaign_start", condition=Q(state="scheduled")
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(budget_fen__gt=0) & Q(budget_fen__lte=MAX_FEN), name="campaign_budget"
            ),
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="campaign_window"),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "draft",
                        "review",
                        "scheduled",
                        "live",
                        "paused",
                        "killed",
                        "ended",
                        "settled",
                    ]
                ),
                name="campaign_state",
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Rain(models.Model):
    """Red-packet rain: rounds that belong together. Their times stand in their packets."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="rains", verbose_name=_("campaign")
    )
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("red-packet rain")
        verbose_name_plural = _("red-packet rains")
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name_zh


class CampaignPacket(models.Model):
    """A packet of a campaign; a packet belongs to at most one. It may be a round of a rain."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="links", verbose_name=_("campaign")
    )
    packet = models.OneToOneField(
        "packets.Packet", models.PROTECT, related_name="campaign_link", verbose_name=_("packet")
    )
    order = models.PositiveIntegerField(_("order"))
    # The packet's own hash can't be read back, and a copy of the campaign needs the pass phrase.
    password_encrypted = models.TextField(_("pass phrase, encrypted"), blank=True, default="")
    rain = models.ForeignKey(
        Rain, models.PROTECT, null=True, blank=True, related_name="links", verbose_name=_("rain")
    )
    round = models.PositiveSmallIntegerField(_("round"), null=True, blank=True)

    class Meta:
        verbose_name = _("packet of a campaign")
        verbose_name_plural = _("packets of campaigns")
        ordering = ["order"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "order"], name="campaign_packet_order"),
            models.UniqueConstraint(fields=["rain", "round"], name="campaign_packet_round"),
            models.CheckConstraint(
                condition=Q(rain=None, round=None) | Q(rain__isnull=False, round__gt=0),
                name="campaign_packet_rain",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.order}: {self.packet_id.hex}"


class CampaignApproval(models.Model):
    """A second person's word: this version, and no other, may start."""

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="approvals", verbose_name=_("campaign")
    )
    version_hash = models.CharField(_("version hash"), max_length=HASH_HEX_CHARS)
    # What was approved, so that the next version can be shown as its difference from this one.
    document = models.JSONField(_("what was approved"))
    approver = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("approved by")
    )
    at = models.DateTimeField(_("approved at"), db_default=Now())
    revoked_at = models.DateTimeField(_("voided at"), null=True, blank=True)
    revoked_by = models.CharField(_("voided by"), max_length=150, blank=True, default="")
    revoke_reason = models.CharField(_("why it was voided"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("approval")
        verbose_name_plural = _("approvals")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign"], condition=Q(revoked_at=None), name="approval_one_valid"
            )
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id.hex}: {self.version_hash[:12]}"


class TopUp(models.Model):
    """More for the people of a running campaign: asked by one person, decided by another."""

    class State(models.TextChoices):
        PENDING = "pending", _("waiting for a decision")
        APPROVED = "approved", _("approved")
        REJECTED = "rejected", _("rejected")
        WITHDRAWN = "withdrawn", _("withdrawn")

    campaign = models.ForeignKey(
        Campaign, models.PROTECT, related_name="top_ups", verbose_name=_("campaign")
    )
    extra_fen = models.BigIntegerField(_("extra budget"), default=0)
    # Rules of further packets, as `campaign_packet_add` takes them; opened when it is approved.
    packets = models.JSONField(_("further packets"), default=list, blank=True)
    reason = models.CharField(_("reason"), max_length=300)
    state = models.CharField(
        _("state"), max_length=10, choices=State.choices, default=State.PENDING
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("requested by")
    )
    requested_at = models.DateTimeField(_("requested at"), db_default=Now())
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("decided by"),
    )
    decided_at = models.DateTimeField(_("decided at"), null=True, blank=True)
    decision = models.CharField(_("words of the decision"), max_length=300, blank=True, default="")

    class Meta:
        verbose_name = _("top-up")
        verbose_name_plural = _("top-ups")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["campaign"], condition=Q(state="pending"), name="topup_one_pending"
            ),
            models.CheckConstraint(
                condition=Q(extra_fen__gte=0) & Q(extra_fen__lte=MAX_FEN), name="topup_amount"
            ),
            models.CheckConstraint(
                condition=~Q(state="approved") | ~Q(requested_by=F("decided_by")),
                name="topup_two_people",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.campaign_id.hex}: {self.extra_fen}"


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


class CampaignTemplate(models.Model):
    """What a new campaign may be made from: texts, a budget and packets (see `blueprints.py`)."""

    slug = models.SlugField(_("slug"), max_length=SLUG_MAX_CHARS, unique=True)
    name_zh = models.CharField(_("name (Chinese)"), max_length=80)
    name_en = models.CharField(_("name (English)"), max_length=80)
    description_zh = models.CharField(_("description (Chinese)"), max_length=200, blank=True)
    description_en = models.CharField(_("description (English)"), max_length=200, blank=True)
    document = models.JSONField(_("content"))
    order = models.PositiveIntegerField(_("order"), default=0)
    active = models.BooleanField(_("active"), default=True)

    class Meta:
        verbose_name = _("campaign template")
        verbose_name_plural = _("campaign templates")
        ordering = ["order", "slug"]

    def __str__(self) -> str:
        return self.slug


class Notice(models.Model):
    """Something one member of staff has to know. Its words are made when it is shown."""

    class Kind(models.TextChoices):
        REVIEW_REQUESTED = "review_requested", _("review requested")
        SENT_BACK = "sent_back", _("sent back")
        APPROVED = "approved", _("approved")
        APPROVAL_VOIDED = "approval_voided", _("approval voided")
        LAUNCH_REFUSED = "launch_refused", _("launch refused")
        TOP_UP_REQUESTED = "top_up_requested", _("top-up requested")
        TOP_UP_DECIDED = "top_up_decided", _("top-up decided")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices", verbose_name=_("user")
    )
    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="notices", verbose_name=_("campaign")
    )
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    details = models.JSONField(_("details"), default=dict)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    read_at = models.DateTimeField(_("read at"), null=True, blank=True)
    mailed_at = models.DateTimeField(_("mailed at"), null=True, blank=True)

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["user", "-id"], name="notice_unread", condition=Q(read_at=None)),
            models.Index(fields=["id"], name="notice_unmailed", condition=Q(mailed_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.kind}"


class BurnSample(models.Model):
    """How far a running campaign was at a moment: the live board's line, never the books."""

    campaign = models.ForeignKey(
        Campaign, models.CASCADE, related_name="samples", verbose_name=_("campaign")
    )
    at = models.DateTimeField(_("at"))
    claimed_fen = models.BigIntegerField(_("claimed"))
    claimed_count = models.BigIntegerField(_("claims"))

    class Meta:
        verbose_name = _("sample of the live board")
        verbose_name_plural = _("samples of the live board")
        constraints = [models.UniqueConstraint(fields=["campaign", "at"], name="burnsample_once")]
        indexes = [models.Index(fields=["-at"], name="burnsample_at")]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.at}"
