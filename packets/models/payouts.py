"""Money on its way out of a wallet.

    ProviderAccount   our account at a payout provider: keys, limits, breaker
    Payout            one withdrawal, from the wallet to the provider's last word
    PayoutNumber      a number under which the provider knows it, with the exact request
    PayoutCall        one call to the provider (or from it), written before it is made

What the database itself refuses (a way out of a terminal state, a second live number, another
amount) is written in `packets/sql/payouts.sql`; what an answer means in `packets/payouts/rules.py`.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib.money import CURRENCY, MAX_FEN
from packets.models.ledger import Account

IDEMPOTENCY_KEY_MAX_CHARS = 255


class ProviderAccount(models.Model):
    """Our account at a payout provider. `name` is what the API calls `provider`."""

    class Kind(models.TextChoices):
        SANDBOX = "sandbox", _("sandbox")
        WECHAT = "wechat", _("WeChat Pay")
        ALIPAY = "alipay", _("Alipay")

    class Breaker(models.TextChoices):
        CLOSED = "closed", _("closed: payouts are sent")
        OPEN = "open", _("open: nothing new is sent")

    name = models.SlugField(_("name"), max_length=32, unique=True)
    kind = models.CharField(_("provider"), max_length=16, choices=Kind.choices)
    base_url = models.CharField(_("address"), max_length=200, blank=True)
    credentials_encrypted = models.TextField(_("credentials (encrypted)"), blank=True)
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    client_apps = ArrayField(
        models.BigIntegerField(), verbose_name=_("client apps"), default=list, blank=True
    )
    is_active = models.BooleanField(_("active"), default=True)

    # What may be withdrawn through it. Empty: no limit.
    rate_per_minute = models.PositiveIntegerField(_("payouts a minute"), null=True, blank=True)
    min_fen = models.BigIntegerField(_("smallest payout"), default=1)
    max_fen = models.BigIntegerField(_("largest payout"), null=True, blank=True)
    day_limit_fen = models.BigIntegerField(_("a day, in all"), null=True, blank=True)
    person_day_fen = models.BigIntegerField(_("a day, per person"), null=True, blank=True)
    person_day_count = models.PositiveIntegerField(
        _("payouts a day, per person"), null=True, blank=True
    )
    opens_at = models.TimeField(_("open from"), null=True, blank=True)
    closes_at = models.TimeField(_("open until"), null=True, blank=True)
    timezone = models.CharField(_("time zone"), max_length=64, default="Asia/Shanghai")
    grey_percent = models.PositiveSmallIntegerField(_("open to (percent of people)"), default=100)
    review_above_fen = models.BigIntegerField(_("a person looks above"), null=True, blank=True)
    # Seconds after the last send during which "no such number" may mean "not yet".
    not_found_grace_s = models.PositiveIntegerField(_("not found is believed after"), default=600)
    statement_after = models.TimeField(_("statement of a day is ready at"), null=True, blank=True)

    breaker = models.CharField(
        _("breaker"), max_length=8, choices=Breaker.choices, default=Breaker.CLOSED
    )
    breaker_reason = models.CharField(_("why"), max_length=200, blank=True)
    # While it is open: when one payout may be tried.
    breaker_until = models.DateTimeField(_("tried again at"), null=True, blank=True)
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    # How far the sends that were begun reach into the rate: the next may begin when it has come.
    paced_until = models.DateTimeField(_("paced until"), null=True, blank=True)
    balance_fen = models.BigIntegerField(_("balance"), null=True, blank=True)
    balance_at = models.DateTimeField(_("balance as of"), null=True, blank=True)
    changed_at = models.DateTimeField(_("changed at"), auto_now=True)

    class Meta:
        verbose_name = _("provider account")
        verbose_name_plural = _("provider accounts")
        constraints = [
            models.CheckConstraint(
                condition=Q(min_fen__gte=1) & (Q(max_fen=None) | Q(max_fen__gte=F("min_fen"))),
                name="provideraccount_amounts",
            ),
            models.CheckConstraint(
                condition=Q(grey_percent__lte=100), name="provideraccount_percent"
            ),
            models.CheckConstraint(
                condition=Q(breaker="closed") | Q(breaker_until__isnull=False),
                name="provideraccount_breaker",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Payout(models.Model):
    """One withdrawal. Its money lies in clearing from `created` until a terminal state.

    `next_attempt_at` says when it is due; nothing is due while it is NULL (terminal, or waiting for
    a person). Whoever takes it raises `fence` and holds it until `lease_until`; only the holder of
    the newest fence may write what the provider answered.
    """

    class State(models.TextChoices):
        CREATED = "created", _("waiting to be sent")
        SUBMITTING = "submitting", _("being sent")
        ACCEPTED = "accepted", _("accepted by the provider")
        USER_ACTION = "user_action", _("waiting for the person's confirmation")
        UNKNOWN = "unknown", _("outcome unknown")
        PAID = "paid", _("paid")
        FAILED = "failed", _("failed, money returned")
        CANCELLED = "cancelled", _("cancelled, money returned")

    class Step(models.TextChoices):
        SUBMIT = "submit", _("send")
        QUERY = "query", _("ask")
        CANCEL = "cancel", _("cancel")
        NONE = "none", _("nothing")

    TERMINAL = (State.PAID, State.FAILED, State.CANCELLED)

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4)
    account = models.ForeignKey(
        ProviderAccount, models.PROTECT, related_name="payouts", verbose_name=_("provider account")
    )
    wallet = models.ForeignKey(
        Account, models.PROTECT, related_name="payouts", verbose_name=_("wallet"), db_index=False
    )
    participant = models.BinaryField(_("participant"), max_length=16)
    client_app_id = models.BigIntegerField(_("client app"))
    # The gate whose claims fill this wallet, for the fair share between campaigns; 0: none.
    share = models.BigIntegerField(_("share"), default=0)
    amount_fen = models.BigIntegerField(_("amount"))
    currency = models.CharField(_("currency"), max_length=3, default=CURRENCY)
    payee_encrypted = models.TextField(_("payee (encrypted)"))
    payee_masked = models.CharField(_("payee"), max_length=80)
    payee_hash = models.CharField(_("payee's hash"), max_length=64)
    # The Idempotency-Key that made it, for ever: a key never pays twice.
    key = models.CharField(_("idempotency key"), max_length=IDEMPOTENCY_KEY_MAX_CHARS)

    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.CREATED
    )
    step = models.CharField(_("next step"), max_length=8, choices=Step.choices, default=Step.SUBMIT)
    next_attempt_at = models.DateTimeField(_("due at"), null=True)
    lease_until = models.DateTimeField(_("call under way until"), null=True)
    fence = models.BigIntegerField(_("fence"), default=0)
    submits = models.PositiveIntegerField(_("times sent"), default=0)
    queries = models.PositiveIntegerField(_("times asked since"), default=0)
    first_submitted_at = models.DateTimeField(_("first sent at"), null=True)
    last_submitted_at = models.DateTimeField(_("last sent at"), null=True)
    called_back_at = models.DateTimeField(_("last callback at"), null=True)
    cancel_asked = models.BooleanField(_("to be cancelled"), default=False)

    review_reasons = models.JSONField(_("reasons for review"), default=list, blank=True)
    manual_reason = models.CharField(_("waits for a person"), max_length=32, blank=True)
    manual_at = models.DateTimeField(_("waits for a person since"), null=True)
    user_action = models.JSONField(_("what the person must do"), null=True)
    user_action_until = models.DateTimeField(_("to be done until"), null=True)
    provider_ref = models.CharField(_("provider's reference"), max_length=80, blank=True)
    failure_code = models.CharField(_("failure"), max_length=80, blank=True)
    failure_detail = models.CharField(_("failure in words"), max_length=300, blank=True)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    ended_at = models.DateTimeField(_("ended at"), null=True)

    class Meta:
        verbose_name = _("payout")
        verbose_name_plural = _("payouts")
        indexes = [
            models.Index(
                fields=["account", "share", "created_at"],
                name="payout_to_send",
                condition=Q(step="submit", next_attempt_at__isnull=False),
            ),
            models.Index(
                fields=["next_attempt_at"],
                name="payout_to_ask",
                condition=Q(step__in=["query", "cancel"], next_attempt_at__isnull=False),
            ),
            models.Index(
                fields=["account", "share", "-first_submitted_at"],
                name="payout_served",
                condition=Q(first_submitted_at__isnull=False),
            ),
            models.Index(fields=["participant", "-created_at", "-id"], name="payout_participant"),
            models.Index(fields=["account", "-created_at"], name="payout_account"),
            # By this Postgres looks whether a wallet that is removed with its drill is named.
            models.Index(fields=["wallet"], name="payout_wallet"),
            models.Index(fields=["payee_hash", "-created_at"], name="payout_payee"),
            # A day's statement asks for what was paid since then.
            models.Index(
                fields=["account", "ended_at"], name="payout_paid", condition=Q(state="paid")
            ),
            models.Index(fields=["-created_at", "-id"], name="payout_newest"),
            # What staff search by.
            models.Index(fields=["key"], name="payout_by_key"),
            models.Index(
                fields=["provider_ref"], name="payout_by_reference", condition=~Q(provider_ref="")
            ),
            models.Index(
                fields=["manual_at"], name="payout_manual", condition=~Q(manual_reason="")
            ),
            models.Index(
                fields=["created_at"],
                name="payout_under_way",
                condition=~Q(state__in=["paid", "failed", "cancelled"]),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["participant", "key"], name="payout_key_once"),
            models.CheckConstraint(
                condition=Q(amount_fen__gt=0) & Q(amount_fen__lte=MAX_FEN), name="payout_amount"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["paid", "failed", "cancelled"], step="none")
                & Q(ended_at__isnull=False, next_attempt_at__isnull=True, manual_reason="")
                | ~Q(state__in=["paid", "failed", "cancelled"]) & Q(ended_at__isnull=True),
                name="payout_end",
            ),
            # Nothing is forgotten: what isn't at its end is due some time, or waits for a person.
            models.CheckConstraint(
                condition=Q(state__in=["paid", "failed", "cancelled"])
                | Q(next_attempt_at__isnull=False)
                | ~Q(manual_reason=""),
                name="payout_not_forgotten",
            ),
        ]

    def __str__(self) -> str:
        return self.id.hex

    @property
    def is_terminal(self) -> bool:
        return self.state in self.TERMINAL


class PayoutNumber(models.Model):
    """A number under which the provider knows a payout, and the exact request sent under it.

    Committed before the first call. Sending again sends these bytes; another number exists only
    after this one is finally dead.
    """

    class State(models.TextChoices):
        LIVE = "live", _("live")
        PAID = "paid", _("paid")
        FAILED = "failed", _("finally failed")

    payout = models.ForeignKey(
        Payout, models.PROTECT, related_name="numbers", verbose_name=_("payout")
    )
    number = models.CharField(_("number"), max_length=32, unique=True)
    request_encrypted = models.TextField(_("request (encrypted)"))
    request_sha256 = models.CharField(_("hash of the request"), max_length=64)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.LIVE)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    ended_at = models.DateTimeField(_("ended at"), null=True)

    class Meta:
        verbose_name = _("payout number")
        verbose_name_plural = _("payout numbers")
        constraints = [
            models.UniqueConstraint(
                fields=["payout"], condition=Q(state="live"), name="payoutnumber_one_live"
            ),
            models.UniqueConstraint(
                fields=["payout"], condition=Q(state="paid"), name="payoutnumber_one_paid"
            ),
            models.CheckConstraint(
                condition=Q(state="live", ended_at=None)
                | ~Q(state="live") & Q(ended_at__isnull=False),
                name="payoutnumber_end",
            ),
        ]

    def __str__(self) -> str:
        return self.number


class PayoutCall(models.Model):
    """One call, written before it is made; what came of it is added once.

    A row without an end is a call whose process died, or that is under way: nobody knows what came
    of it. Callbacks of the provider stand here too, complete from the start.
    """

    class Kind(models.TextChoices):
        SUBMIT = "submit", _("sent")
        QUERY = "query", _("asked")
        CANCEL = "cancel", _("cancelled")
        CALLBACK = "callback", _("called back by the provider")

    payout = models.ForeignKey(
        Payout, models.PROTECT, related_name="calls", verbose_name=_("payout"), db_index=False
    )
    number = models.ForeignKey(
        PayoutNumber, models.PROTECT, related_name="calls", verbose_name=_("number")
    )
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    fence = models.BigIntegerField(_("fence"))
    started_at = models.DateTimeField(_("started at"), db_default=Now())
    ended_at = models.DateTimeField(_("ended at"), null=True)
    result = models.CharField(_("result"), max_length=16, blank=True)
    code = models.CharField(_("provider's code"), max_length=80, blank=True)
    detail = models.CharField(_("in words"), max_length=300, blank=True)
    http_status = models.PositiveSmallIntegerField(_("HTTP status"), null=True)
    # A query that found nothing under the number: what must come before it is sent again by hand.
    not_found = models.BooleanField(_("not found"), default=False, db_default=False)

    class Meta:
        verbose_name = _("call to a provider")
        verbose_name_plural = _("calls to providers")
        indexes = [models.Index(fields=["payout", "id"], name="payoutcall_payout")]

    def __str__(self) -> str:
        return f"{self.payout_id.hex}: {self.kind} {self.fence}"
