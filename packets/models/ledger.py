"""Double entry: accounts, and the transfers that alone move them (`packets/sql/ledger.sql`)."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN


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
            # The owner first: nearly all accounts are wallets in one currency, and a look-up
            # that has to compare these for each step of the tree is slower for it.
            models.UniqueConstraint(fields=["owner", "kind", "currency"], name="account_of_owner"),
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
        HOLD = "hold", _("hold for review")
        RELEASE = "release", _("release of a hold")
        FORFEIT = "forfeit", _("forfeit of a hold")
        PAYOUT = "payout", _("payout begun")
        PAID = "paid", _("payout paid")
        PAYBACK = "payback", _("payout failed, money returned")

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
