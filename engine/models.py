"""The kernel's rows: who may call, what was answered once, and what staff did.

    ClientApp ─< ClientKey    an app whose people claim, and the keys that sign their tokens
    ClientApp ─< ApiKey       its back end's keys, stored as hashes only
    ClientApp ─< ForcedOutcome people of its own whose claims answer what it asked for
    IdempotencyRecord         one POST's answer, replayed for a day
    AuditEvent ── AuditHead   the append-only log; each row carries the hash of the one before
    OutboxEvent, WebhookEndpoint, …  what client apps are told; see engine/webhooks/models.py

A secret that must be read again (an HMAC key) is encrypted; one that must only be recognised (an
API key) is hashed. `engine/sql/audit.sql` chains the audit log and refuses its UPDATE and DELETE.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django_otp.plugins.otp_totp.models import TOTPDevice

from engine.webhooks.models import (  # noqa: F401  (Django looks for an app's models here)
    EventKind,
    OutboxEvent,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)

HASH_HEX_CHARS = 64  # SHA-256 in hexadecimal


class ClientApp(models.Model):
    """An application whose users are our participants: (client app, `sub`) is one person."""

    slug = models.SlugField(_("slug"), max_length=64, unique=True)
    name = models.CharField(_("name"), max_length=128)
    active = models.BooleanField(
        _("active"), default=True, help_text=_("An inactive app's tokens and keys are refused.")
    )
    test_users_allowed = models.BooleanField(
        _("test users allowed"),
        default=False,
        help_text=_("Whether people of this app may be given forced outcomes, for integration."),
    )
    # Its people are those of a peak drill. Said when the app is made, and never changed after it
    # (engine/sql/drills.sql): what bears this mark may be removed, and nothing else.
    is_drill = models.BooleanField(_("of a drill"), default=False, db_default=False, editable=False)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("client app")
        verbose_name_plural = _("client apps")
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ClientKey(models.Model):
    """A key that signs an app's client tokens. The algorithm belongs to the key, not to a token."""

    class Algorithm(models.TextChoices):
        HS256 = "HS256", _("HS256 (shared secret)")
        EDDSA = "EdDSA", _("EdDSA (Ed25519, we hold the public half)")

    kid = models.CharField(
        _("key id"),
        max_length=64,
        unique=True,
        validators=[RegexValidator(r"\A[A-Za-z0-9._-]{1,64}\Z")],
    )
    client_app = models.ForeignKey(
        ClientApp, on_delete=models.PROTECT, related_name="keys", verbose_name=_("client app")
    )
    alg = models.CharField(_("algorithm"), max_length=8, choices=Algorithm.choices)
    secret_encrypted = models.TextField(_("secret, encrypted"), blank=True, default="")
    public_key = models.TextField(_("public key (PEM)"), blank=True, default="")
    label = models.CharField(_("label"), max_length=128, blank=True, default="")
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)

    class Meta:
        verbose_name = _("client key")
        verbose_name_plural = _("client keys")
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=(Q(alg="HS256") & ~Q(secret_encrypted="") & Q(public_key=""))
                | (Q(alg="EdDSA") & Q(secret_encrypted="") & ~Q(public_key="")),
                name="clientkey_material_fits_alg",
            )
        ]

    def __str__(self) -> str:
        return self.kid


class ApiKey(models.Model):
    """A back end's key: its prefix finds the row, its SHA-256 proves it."""

    class Scope(models.TextChoices):
        TOKENS = "tokens", _("mint client tokens")
        EVENTS = "events", _("send events")
        TICKETS = "tickets", _("issue tickets")
        OPS = "ops", _("read operations data")

    client_app = models.ForeignKey(
        ClientApp, on_delete=models.PROTECT, related_name="api_keys", verbose_name=_("client app")
    )
    prefix = models.CharField(_("prefix"), max_length=16, unique=True)
    hash = models.CharField(_("SHA-256"), max_length=HASH_HEX_CHARS)
    scopes = ArrayField(
        models.CharField(max_length=16, choices=Scope.choices), verbose_name=_("scopes")
    )
    name = models.CharField(_("name"), max_length=128)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=["tokens", "events", "tickets", "ops"]),
                name="apikey_known_scopes",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class ForcedOutcome(models.Model):
    """A person of an app whose claims all answer one result, so that integrators can see each.

    Nothing of it touches stock or money; the answer says that it is a test. Works only while the
    app allows test users.
    """

    class Result(models.TextChoices):
        WON = "won", _("won (a sample, no money)")
        SOLD_OUT = "sold_out", _("sold out")
        NOT_STARTED = "not_started", _("not started")
        ENDED = "ended", _("ended")
        PAUSED = "paused", _("paused")
        NOT_ELIGIBLE = "not_eligible", _("not eligible")
        TICKET_REQUIRED = "ticket_required", _("ticket required")
        TICKET_USED = "ticket_used", _("ticket used")
        WRONG_PASSWORD = "wrong_password", _("wrong pass phrase")
        BLOCKED = "blocked", _("blocked")
        BUSY = "busy", _("busy")

    class Reason(models.TextChoices):
        NOT_NEW = "not_new", _("not new to the app")
        NOT_IN_GROUP = "not_in_group", _("not in the group")
        NOT_TARGETED = "not_targeted", _("not on the list")
        TOO_YOUNG_ACCOUNT = "too_young_account", _("the account is too young")
        REGION = "region", _("the region")

    client_app = models.ForeignKey(
        ClientApp,
        on_delete=models.CASCADE,
        related_name="forced_outcomes",
        verbose_name=_("client app"),
    )
    subject = models.CharField(_("the app's user id"), max_length=128)
    result = models.CharField(_("result"), max_length=16, choices=Result.choices)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason.choices, blank=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    created_by = models.CharField(_("created by"), max_length=150)
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)

    class Meta:
        verbose_name = _("test user")
        verbose_name_plural = _("test users")
        ordering = ["client_app", "subject"]
        constraints = [
            models.UniqueConstraint(fields=["client_app", "subject"], name="forced_one_each"),
            models.CheckConstraint(
                condition=(Q(result="not_eligible") & ~Q(reason=""))
                | (~Q(result="not_eligible") & Q(reason="")),
                name="forced_reason_fits",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.client_app_id}/{self.subject}"


class IdempotencyRecord(models.Model):
    """What one principal's Idempotency-Key was answered. `status` is NULL while it is running."""

    principal = models.CharField(_("principal"), max_length=64)
    key = models.CharField(_("key"), max_length=255)
    route = models.CharField(_("route"), max_length=200)
    fingerprint = models.CharField(_("fingerprint of the body"), max_length=HASH_HEX_CHARS)
    status = models.PositiveSmallIntegerField(_("status"), null=True, blank=True)
    response = models.BinaryField(_("response"), default=b"")
    content_type = models.CharField(_("content type"), max_length=100, blank=True, default="")
    # Names one run, so that a run whose lease was taken over can't store its answer over another's.
    run = models.UUIDField(_("run"))
    lease_until = models.DateTimeField(_("lease until"))
    created_at = models.DateTimeField(_("created at"))

    class Meta:
        verbose_name = _("idempotency record")
        verbose_name_plural = _("idempotency records")
        constraints = [
            models.UniqueConstraint(fields=["principal", "key"], name="idempotency_one_each")
        ]
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return f"{self.principal}:{self.key}"


class AuditEvent(models.Model):
    """One thing somebody did. Id, time and hashes are set by the database; see audit.sql."""

    at = models.DateTimeField(_("at"), auto_now_add=True, db_index=True)
    actor = models.CharField(_("actor"), max_length=150)
    action = models.CharField(_("action"), max_length=64)
    object_type = models.CharField(_("object type"), max_length=64)
    object_id = models.CharField(_("object id"), max_length=128)
    before = models.JSONField(_("before"), null=True, blank=True)
    after = models.JSONField(_("after"), null=True, blank=True)
    reason = models.TextField(_("reason"), blank=True, default="")
    request_id = models.CharField(_("request id"), max_length=64, blank=True, default="")
    # The network (/24, /56) only: this log can never be erased.
    ip = models.CharField(_("network"), max_length=45, blank=True, default="")
    prev_hash = models.CharField(_("previous hash"), max_length=HASH_HEX_CHARS, default="")
    hash = models.CharField(_("hash"), max_length=HASH_HEX_CHARS, default="")

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ["-id"]
        indexes = [models.Index(fields=["object_type", "object_id"], name="audit_object")]

    def __str__(self) -> str:
        return f"{self.id} {self.action} {self.object_type} {self.object_id}"


class AuditHead(models.Model):
    """The end of the audit chain: one row that each new event locks, so that it is one line."""

    id = models.SmallIntegerField(primary_key=True)
    last_id = models.BigIntegerField()
    hash = models.CharField(max_length=HASH_HEX_CHARS)

    class Meta:
        verbose_name = _("end of the audit log")
        verbose_name_plural = _("ends of the audit log")
        constraints = [models.CheckConstraint(condition=Q(id=1), name="audithead_only_one")]

    def __str__(self) -> str:
        return f"{self.last_id} {self.hash}"


class SecondFactor(TOTPDevice):
    """The library's device under a name of ours, which it leaves untranslated."""

    class Meta:
        proxy = True
        verbose_name = _("second factor")
        verbose_name_plural = _("second factors")

    def __str__(self) -> str:
        return str(self.user)
