"""Money that waits for a person, and the rules that make it wait.

    RiskRule     one version of a rule; a change is a further version, the old ones stay
    Hold         money in the held account, until somebody releases or forfeits it
    HoldAppeal   what the person says about it, once

Rules and appeals are insert-only; a hold is resolved once (`packets/sql/holds.sql`).
"""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from engine.lib.money import CURRENCY, MAX_FEN
from packets.models.claim import Claim
from packets.models.ledger import Account

MAX_RULE_WINDOW_S = 31 * 24 * 3600  # a rule is asked for every claim: it looks back a month at most


class RiskRule(models.Model):
    """What is more than usual. `rule` is what its versions share; the highest of them counts.

    The first two kinds are asked when a claim is settled, and hold it; the others when money is
    withdrawn, and let the payout wait for a person.
    """

    class Kind(models.TextChoices):
        CLAIMS_PER_PERSON = "claims_per_person", _("one person's claims")
        AMOUNT_PER_PERSON = "amount_per_person", _("money that one person wins")
        WALLETS_PER_PAYEE = "wallets_per_payee", _("wallets paid out to one account")
        AMOUNT_PER_PAYEE = "amount_per_payee", _("money paid out to one account")

    rule = models.UUIDField(_("rule"), default=uuid.uuid4)
    version = models.PositiveIntegerField(_("version"), default=1)
    kind = models.CharField(_("what is counted"), max_length=24, choices=Kind.choices)
    most = models.BigIntegerField(_("still usual"))  # a number, or fen where money is counted
    window_s = models.PositiveIntegerField(_("window (seconds)"))
    is_active = models.BooleanField(_("active"), default=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    changed_by = models.CharField(_("changed by"), max_length=150)
    created_at = models.DateTimeField(_("valid from"), db_default=Now())

    class Meta:
        verbose_name = _("risk rule")
        verbose_name_plural = _("risk rules")
        constraints = [
            models.UniqueConstraint(fields=["rule", "version"], name="riskrule_version_once"),
            models.CheckConstraint(
                condition=Q(most__gte=1) & Q(most__lte=MAX_FEN), name="riskrule_most"
            ),
            models.CheckConstraint(
                condition=Q(window_s__gte=1) & Q(window_s__lte=MAX_RULE_WINDOW_S),
                name="riskrule_window",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rule.hex[:8]} v{self.version}"

    @property
    def counts_money(self) -> bool:
        return self.kind in (self.Kind.AMOUNT_PER_PERSON, self.Kind.AMOUNT_PER_PAYEE)


class Hold(models.Model):
    """Money of one person that waits for somebody's decision.

    It came from a packet's escrow in place of the wallet (`claim` says for which claim), or from
    the wallet itself (`claim` is empty). Released it goes to `wallet`, forfeited to `funder`.
    """

    class State(models.TextChoices):
        OPEN = "open", pgettext_lazy("of a hold", "open")
        RELEASED = "released", _("released")
        FORFEITED = "forfeited", _("forfeited")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4)
    claim = models.OneToOneField(
        Claim, models.PROTECT, null=True, related_name="hold", verbose_name=_("claim")
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    wallet = models.ForeignKey(
        Account, models.PROTECT, related_name="+", verbose_name=_("wallet"), db_index=False
    )
    funder = models.ForeignKey(
        Account, models.PROTECT, related_name="+", verbose_name=_("funded by"), db_index=False
    )
    amount_fen = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    # Codes (packets/holds/rules.py: RiskReason), and for each what was seen.
    reasons = models.JSONField(_("reasons"), default=list)
    evidence = models.JSONField(_("evidence"), default=list)
    rule = models.ForeignKey(
        RiskRule,
        models.PROTECT,
        null=True,
        related_name="holds",
        verbose_name=_("risk rule"),
        db_index=False,
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.OPEN)
    opened_by = models.CharField(_("held by"), max_length=150)
    opened_at = models.DateTimeField(_("held since"), db_default=Now())
    resolved_by = models.CharField(_("decided by"), max_length=150, blank=True, db_default="")
    resolved_at = models.DateTimeField(_("decided at"), null=True)
    reason = models.CharField(_("reason"), max_length=200, blank=True, db_default="")

    class Meta:
        verbose_name = _("hold")
        verbose_name_plural = _("holds")
        permissions = [("resolve_hold", _("Can release and forfeit held money"))]
        indexes = [
            models.Index(fields=["opened_at"], name="hold_open", condition=Q(state="open")),
            models.Index(fields=["funder"], name="hold_open_funder", condition=Q(state="open")),
            models.Index(fields=["participant", "-opened_at", "-id"], name="hold_participant"),
            models.Index(fields=["-opened_at"], name="hold_newest"),
            # By these Postgres looks whether an account that is removed with its drill is named.
            models.Index(fields=["wallet"], name="hold_wallet"),
            models.Index(fields=["funder"], name="hold_funder"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(amount_fen__gt=0) & Q(amount_fen__lte=MAX_FEN), name="hold_amount"
            ),
            models.CheckConstraint(
                condition=Q(state="open", resolved_at=None)
                | Q(state__in=["released", "forfeited"], resolved_at__isnull=False),
                name="hold_resolved",
            ),
        ]

    def __str__(self) -> str:
        return self.id.hex


class HoldAppeal(models.Model):
    """What the person says about a hold. Encrypted: people write names and numbers."""

    hold = models.OneToOneField(
        Hold, models.PROTECT, primary_key=True, related_name="appeal", verbose_name=_("hold")
    )
    text_encrypted = models.TextField(_("text (encrypted)"))
    created_at = models.DateTimeField(_("appealed at"), db_default=Now())

    class Meta:
        verbose_name = _("appeal")
        verbose_name_plural = _("appeals")

    def __str__(self) -> str:
        return self.hold_id.hex
