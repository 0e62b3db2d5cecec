"""The rows of webhooks.

    ClientApp ─< OutboxEvent         what happened; insert-only, written with what it tells of
    ClientApp ─< WebhookEndpoint     an address, what it wants to hear, and the secret that signs
    OutboxEvent ─< WebhookDelivery   one event on its way to one endpoint
    WebhookDelivery ─< WebhookAttempt  each call and what came back; insert-only

All times that decide anything are compared with the database's clock.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

URL_MAX_CHARS = 500
# What of an answer is kept: enough to read an error message.
ANSWER_KEPT_CHARS = 1_000
ERROR_MAX_CHARS = 200


class EventKind(models.TextChoices):
    """The closed set of what we tell. A test event goes to the endpoint that asked for it alone."""

    CLAIM_SETTLED = "claim.settled", _("claim settled")
    REWARD_GRANTED = "reward.granted", _("reward granted")
    CHALLENGE_ASKED = "challenge.asked", _("challenge asked for")
    PAYOUT_PAID = "payout.paid", _("payout paid")
    PAYOUT_FAILED = "payout.failed", _("payout failed")
    CAMPAIGN_LAUNCHED = "campaign.launched", _("campaign launched")
    CAMPAIGN_EXHAUSTED = "campaign.exhausted", _("campaign exhausted")
    CAMPAIGN_ENDED = "campaign.ended", _("campaign ended")
    TEST = "webhook.test", _("test")


# What an endpoint may ask for.
SUBSCRIBABLE = tuple(kind for kind in EventKind if kind is not EventKind.TEST)


class OutboxEvent(models.Model):
    """Something that happened to an app, once. `id` is the `webhook-id` of all its deliveries."""

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4)
    client_app = models.ForeignKey(
        "engine.ClientApp",
        models.PROTECT,
        related_name="events",
        verbose_name=_("client app"),
        db_index=False,  # the unique key below begins with it
    )
    kind = models.CharField(_("kind"), max_length=32, choices=EventKind.choices)
    # The emitter's own name of what happened, so that it is told once.
    key = models.CharField(_("key"), max_length=80)
    payload = models.JSONField(_("data"))
    created_at = models.DateTimeField(_("created at"), db_default=Now())

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        constraints = [
            models.UniqueConstraint(fields=["client_app", "kind", "key"], name="event_once"),
            models.CheckConstraint(
                condition=Q(kind__in=[kind.value for kind in EventKind]), name="event_known_kind"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id.hex}"


class WebhookEndpoint(models.Model):
    """Where an app wants to be called, and for what.

    While `previous_until` lies ahead, calls carry signatures by both secrets.
    """

    class State(models.TextChoices):
        ACTIVE = "active", _("active")
        DISABLED = "disabled", _("disabled")

    client_app = models.ForeignKey(
        "engine.ClientApp",
        models.PROTECT,
        related_name="webhook_endpoints",
        verbose_name=_("client app"),
    )
    url = models.CharField(_("address"), max_length=URL_MAX_CHARS)
    kinds = ArrayField(
        models.CharField(
            max_length=32, choices=[(kind.value, kind.label) for kind in SUBSCRIBABLE]
        ),
        verbose_name=_("events"),
    )
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.ACTIVE)
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    secret_encrypted = models.TextField(_("secret, encrypted"))
    previous_encrypted = models.TextField(_("previous secret, encrypted"), blank=True, default="")
    previous_until = models.DateTimeField(_("previous secret good until"), null=True, blank=True)
    # Since when every call has failed; empty while calls succeed.
    failing_since = models.DateTimeField(_("failing since"), null=True, blank=True)
    # Switched off by us, not by a person, and nobody has looked at it yet.
    disabled_by_us = models.BooleanField(_("disabled by the system"), default=False)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    changed_at = models.DateTimeField(_("changed at"), db_default=Now())

    class Meta:
        verbose_name = _("webhook endpoint")
        verbose_name_plural = _("webhook endpoints")
        ordering = ["client_app", "id"]
        constraints = [
            models.UniqueConstraint(fields=["client_app", "url"], name="endpoint_once"),
            models.CheckConstraint(
                condition=Q(kinds__contained_by=[kind.value for kind in SUBSCRIBABLE])
                & Q(kinds__len__gt=0),
                name="endpoint_known_kinds",
            ),
        ]

    def __str__(self) -> str:
        return self.url


class WebhookDelivery(models.Model):
    """One event on its way to one endpoint.

    Whoever delivers holds a lease: `lease_until` by the database's clock, and a `lease_token` that
    only ever grows, so that whoever was overtaken can't write over what the next one found.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        DELIVERED = "delivered", _("delivered")
        DEAD = "dead", _("given up")

    event = models.ForeignKey(
        OutboxEvent,
        models.PROTECT,
        related_name="deliveries",
        verbose_name=_("event"),
        db_index=False,  # the unique key below begins with it
    )
    endpoint = models.ForeignKey(
        WebhookEndpoint,
        models.PROTECT,
        related_name="deliveries",
        verbose_name=_("endpoint"),
        db_index=False,  # of the endpoint's newest there is an index below
    )
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True, db_default=Now())
    lease_until = models.DateTimeField(_("in progress until"), null=True, blank=True)
    lease_token = models.BigIntegerField(_("lease"), default=0)
    created_at = models.DateTimeField(_("created at"), db_default=Now())
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        indexes = [
            models.Index(
                fields=["endpoint", "next_attempt_at"],
                name="delivery_due",
                condition=Q(state="waiting"),
            ),
            models.Index(
                fields=["endpoint"],
                name="delivery_leased",
                condition=Q(lease_until__isnull=False),
            ),
            models.Index(fields=["endpoint", "-id"], name="delivery_newest"),
            models.Index(
                fields=["endpoint", "finished_at"],
                name="delivery_dead",
                condition=Q(state="dead"),
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event", "endpoint"], name="delivery_once"),
            models.CheckConstraint(
                condition=(
                    Q(state="waiting", next_attempt_at__isnull=False, finished_at=None)
                    | (
                        Q(state__in=["delivered", "dead"], lease_until=None, next_attempt_at=None)
                        & Q(finished_at__isnull=False)
                    )
                ),
                name="delivery_state_fits",
            ),
            # A delivery under a lease is due again when the lease ends, not before.
            models.CheckConstraint(
                condition=Q(lease_until=None) | Q(lease_until=F("next_attempt_at")),
                name="delivery_due_after_lease",
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class WebhookAttempt(models.Model):
    """One call and what came back. `status` is empty where no answer came; `error` says why."""

    delivery = models.ForeignKey(
        WebhookDelivery,
        models.PROTECT,
        related_name="log",
        verbose_name=_("delivery"),
    )
    number = models.PositiveIntegerField(_("attempt"))
    at = models.DateTimeField(_("at"), db_default=Now())
    status = models.PositiveSmallIntegerField(_("status"), null=True, blank=True)
    latency_ms = models.PositiveIntegerField(_("took (ms)"))
    answer = models.CharField(_("answer"), max_length=ANSWER_KEPT_CHARS, blank=True, default="")
    error = models.CharField(_("error"), max_length=ERROR_MAX_CHARS, blank=True, default="")

    class Meta:
        verbose_name = _("webhook attempt")
        verbose_name_plural = _("webhook attempts")

    def __str__(self) -> str:
        return f"#{self.delivery_id}/{self.number}"
