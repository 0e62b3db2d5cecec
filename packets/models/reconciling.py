"""What a provider says that it paid, day by day, and where it disagrees with us.

    Statement ─< StatementLine    one day of one provider account, as the provider has it
    Difference                    something that only one side has, or that both have differently
    StockCheck                    what a three-way check of Redis, ledger and provider found

Lines and checks are insert-only. What is true of a difference is never changed, only what became of
it. Which lines differ is decided by `packets/sql/reconciling.sql`.
"""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from engine.lib.money import MAX_FEN
from packets.models.payouts import Payout, ProviderAccount

OUT_NUMBER_MAX_CHARS = 64  # Alipay's are the longest


class Statement(models.Model):
    """One version of a day's statement. Of a day at most one counts: the one that is `matched`."""

    class Source(models.TextChoices):
        FETCHED = "fetched", _("fetched from the provider")
        UPLOADED = "uploaded", _("uploaded")

    class State(models.TextChoices):
        READING = "reading", _("being read")
        RECEIVED = "received", _("being compared")
        MATCHED = "matched", _("compared")
        FAILED = "failed", _("not readable")
        REPLACED = "replaced", _("replaced by a newer one")

    UNDER_WAY = (State.READING, State.RECEIVED)

    account = models.ForeignKey(
        ProviderAccount,
        models.PROTECT,
        related_name="statements",
        verbose_name=_("provider account"),
    )
    day = models.DateField(_("day"))
    # Counts an account's statements in the order in which they were read to their end; 0: not yet.
    number = models.PositiveIntegerField(_("number"), default=0)
    source = models.CharField(_("source"), max_length=8, choices=Source.choices)
    filename = models.CharField(_("file"), max_length=200, blank=True)
    sha256 = models.CharField(_("hash of the file"), max_length=64, blank=True)
    lines = models.PositiveIntegerField(_("lines"), default=0)
    sum_fen = models.BigIntegerField(_("paid, in all"), default=0)
    done_lines = models.PositiveIntegerField(_("lines compared"), default=0)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.READING)
    fault = models.CharField(_("why it was not readable"), max_length=300, blank=True)
    # Whoever reads a statement has it until then, by the database's clock.
    lease_until = models.DateTimeField(_("being read until"), null=True)
    uploaded_by = models.CharField(_("uploaded by"), max_length=150, blank=True)
    created_at = models.DateTimeField(_("begun at"), db_default=Now())
    matched_at = models.DateTimeField(_("compared at"), null=True)

    class Meta:
        verbose_name = _("statement")
        verbose_name_plural = _("statements")
        permissions = [
            ("reconcile", _("Can upload statements and resolve differences")),
            ("export_money", _("Can take transfers, payouts and differences as files")),
            ("export_payees", _("Can take payees' whole accounts and names as a file")),
        ]
        indexes = [models.Index(fields=["-created_at", "-id"], name="statement_newest")]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "day"], condition=Q(state="matched"), name="statement_one_a_day"
            ),
            # Two readers at once: the second one finds that somebody is at it.
            models.UniqueConstraint(
                fields=["account", "day"],
                condition=Q(state__in=["reading", "received"]),
                name="statement_one_reader",
            ),
            models.CheckConstraint(
                condition=Q(done_lines__lte=F("lines")), name="statement_progress"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id}: {self.day}"


class StatementLine(models.Model):
    """One line, as the provider gave it, in our words. Insert-only."""

    class State(models.TextChoices):
        PAID = "paid", _("paid")
        FAILED = "failed", _("failed")
        REFUNDED = "refunded", _("returned")

    statement = models.ForeignKey(
        Statement,
        models.PROTECT,
        related_name="rows",
        verbose_name=_("statement"),
        db_index=False,
    )
    line_no = models.PositiveIntegerField(_("line"))
    out_number = models.CharField(_("number"), max_length=OUT_NUMBER_MAX_CHARS)
    provider_ref = models.CharField(_("provider's reference"), max_length=80, blank=True)
    amount_fen = models.BigIntegerField(_("amount"))
    state = models.CharField(_("state"), max_length=8, choices=State.choices)
    at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("statement line")
        verbose_name_plural = _("statement lines")
        indexes = [models.Index(fields=["out_number"], name="statementline_number")]
        constraints = [
            models.UniqueConstraint(fields=["statement", "line_no"], name="statementline_once"),
            models.CheckConstraint(
                condition=Q(amount_fen__gt=0) & Q(amount_fen__lte=MAX_FEN),
                name="statementline_amount",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.statement_id}: {self.line_no}"


class Difference(models.Model):
    """Something on which the provider and we disagree. `key` names it within (account, kind), so
    that finding it again is finding the same one."""

    class Kind(models.TextChoices):
        MISSING_HERE = "missing_here", _("we don't know it")
        MISSING_THERE = "missing_there", _("the provider doesn't name it")
        AMOUNT = "amount", _("another amount")
        STATE = "state", _("another outcome")
        DUPLICATE = "duplicate", _("named twice")

    class State(models.TextChoices):
        OPEN = "open", pgettext_lazy("a difference", "open")
        RESOLVED = "resolved", _("resolved")

    class Resolution(models.TextChoices):
        AGREES = "agrees", _("both sides agree by now")
        CORRECTED_HERE = "corrected_here", _("corrected on our side")
        CORRECTED_THERE = "corrected_there", _("corrected by the provider")
        STATEMENT_WRONG = "statement_wrong", _("the statement was wrong, the money is right")
        NOT_OURS = "not_ours", _("another system's money on the same account")
        WRITTEN_OFF = "written_off", _("accepted as a loss")

    account = models.ForeignKey(
        ProviderAccount,
        models.PROTECT,
        related_name="differences",
        verbose_name=_("provider account"),
    )
    day = models.DateField(_("day"))
    kind = models.CharField(_("class"), max_length=16, choices=Kind.choices)
    key = models.CharField(_("key"), max_length=160)
    out_number = models.CharField(_("number"), max_length=OUT_NUMBER_MAX_CHARS)
    statement = models.ForeignKey(
        Statement, models.PROTECT, related_name="differences", verbose_name=_("statement")
    )
    line = models.ForeignKey(
        StatementLine, models.PROTECT, null=True, related_name="+", verbose_name=_("line")
    )
    payout = models.ForeignKey(
        Payout, models.PROTECT, null=True, related_name="differences", verbose_name=_("payout")
    )
    # As they were when it was found. NULL and empty: this side has nothing.
    ours_fen = models.BigIntegerField(_("amount here"), null=True)
    theirs_fen = models.BigIntegerField(_("amount there"), null=True)
    ours_state = models.CharField(_("outcome here"), max_length=16, blank=True)
    theirs_state = models.CharField(_("outcome there"), max_length=16, blank=True)
    found_at = models.DateTimeField(_("found at"), db_default=Now())

    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.OPEN)
    resolution = models.CharField(
        _("resolution"), max_length=16, choices=Resolution.choices, blank=True
    )
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    resolved_by = models.CharField(_("resolved by"), max_length=150, blank=True)
    resolved_at = models.DateTimeField(_("resolved at"), null=True)

    class Meta:
        verbose_name = _("difference")
        verbose_name_plural = _("differences")
        indexes = [
            models.Index(fields=["account", "day"], name="difference_day"),
            models.Index(fields=["out_number"], name="difference_number"),
            models.Index(fields=["id"], name="difference_open", condition=Q(state="open")),
        ]
        constraints = [
            models.UniqueConstraint(fields=["account", "kind", "key"], name="difference_once"),
            models.CheckConstraint(
                condition=Q(state="open", resolution="", resolved_at=None)
                | Q(state="resolved", resolved_at__isnull=False) & ~Q(resolution=""),
                name="difference_resolved",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.out_number}"


class StockCheck(models.Model):
    """One three-way check: Redis stock, Postgres and ledger, provider. Insert-only."""

    at = models.DateTimeField(_("time"), db_default=Now())
    took_ms = models.PositiveIntegerField(_("took (ms)"))
    packets = models.PositiveIntegerField(_("packets"))
    lanes = models.PositiveIntegerField(_("lanes"))
    found = models.PositiveIntegerField(_("differences"))
    report = models.JSONField(_("report"))

    class Meta:
        verbose_name = _("three-way check")
        verbose_name_plural = _("three-way checks")
        indexes = [models.Index(fields=["-at", "-id"], name="stockcheck_newest")]

    def __str__(self) -> str:
        return f"{self.at}: {self.found}"
