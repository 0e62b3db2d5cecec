"""What one person asks for about payouts and another decides.

    PayoutMark       to end a payout by hand, on the evidence of what the provider says elsewhere
    ProviderChange   to use another address or other keys for a provider account

A request is decided once, by a conditional UPDATE; that the two people differ is a CHECK.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from packets.models.payouts import Payout, ProviderAccount

EVIDENCE_MAX_CHARS = 1_000
WORDS_MAX_CHARS = 300


class Decision(models.Model):
    """Asked by one person, decided by another; the one who asked may withdraw it."""

    class State(models.TextChoices):
        PENDING = "pending", _("waiting for a decision")
        APPROVED = "approved", _("approved")
        REJECTED = "rejected", _("rejected")
        WITHDRAWN = "withdrawn", _("withdrawn")

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
        related_name="+",
        verbose_name=_("decided by"),
    )
    decided_at = models.DateTimeField(_("decided at"), null=True)
    decision = models.CharField(_("words of the decision"), max_length=WORDS_MAX_CHARS, blank=True)

    class Meta:
        abstract = True


class PayoutMark(Decision):
    """That a payout be marked paid or failed without the provider's answer: money is decided on."""

    class Outcome(models.TextChoices):
        PAID = "paid", _("paid")
        FAILED = "failed", _("failed, money returned")

    payout = models.ForeignKey(
        Payout, models.PROTECT, related_name="marks", verbose_name=_("payout")
    )
    outcome = models.CharField(_("outcome"), max_length=8, choices=Outcome.choices)
    provider_ref = models.CharField(_("provider's reference"), max_length=80, blank=True)
    evidence = models.TextField(_("evidence"), max_length=EVIDENCE_MAX_CHARS)

    class Meta:
        verbose_name = _("payout marked by hand")
        verbose_name_plural = _("payouts marked by hand")
        permissions = [
            ("handle_payout", _("Can query, send again, release and refuse payouts")),
            ("decide_payoutmark", _("Can decide on payouts marked by hand")),
        ]
        indexes = [
            models.Index(
                fields=["requested_at"], name="payoutmark_pending", condition=Q(state="pending")
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["payout"], condition=Q(state="pending"), name="payoutmark_one_pending"
            ),
            models.CheckConstraint(
                condition=~Q(state="approved")
                | Q(decided_by__isnull=False) & ~Q(requested_by=F("decided_by")),
                name="payoutmark_two_people",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.payout_id.hex}: {self.outcome}"


class ProviderChange(Decision):
    """Another address or other keys: whoever holds them decides where the money goes."""

    account = models.ForeignKey(
        ProviderAccount, models.PROTECT, related_name="changes", verbose_name=_("provider account")
    )
    base_url = models.CharField(_("address"), max_length=200, blank=True)
    credentials_encrypted = models.TextField(_("credentials (encrypted)"), blank=True)
    # The names of the fields that were typed anew; what is in them is read by nobody.
    replaced = models.JSONField(_("replaced"), default=list)
    reason = models.CharField(_("reason"), max_length=WORDS_MAX_CHARS)

    class Meta:
        verbose_name = _("change of a provider's keys")
        verbose_name_plural = _("changes of providers' keys")
        permissions = [("decide_providerchange", _("Can decide on changes of providers' keys"))]
        constraints = [
            models.UniqueConstraint(
                fields=["account"], condition=Q(state="pending"), name="providerchange_one_pending"
            ),
            models.CheckConstraint(
                condition=~Q(state="approved")
                | Q(decided_by__isnull=False) & ~Q(requested_by=F("decided_by")),
                name="providerchange_two_people",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id}: {self.requested_at}"
