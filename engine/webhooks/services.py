"""Writes of webhooks by people: endpoints made, changed, rotated and switched; deliveries again.

Each act is audited. A secret is returned once, by the call that made it. Addresses stand in the
audit log without their query, which may hold somebody's token.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.lib import crypto
from engine.lib.audit import audit_record
from engine.lib.errors import ServiceError, TransitionRefused
from engine.models import ClientApp
from engine.webhooks.addresses import url_check
from engine.webhooks.models import (
    SUBSCRIBABLE,
    EventKind,
    OutboxEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from engine.webhooks.signing import secret_new, secret_text

State = WebhookEndpoint.State
# Every claim of a campaign may be told to each endpoint of an app.
MAX_ENDPOINTS = 10
# Hours in which both secrets sign after a rotation; 0 where the old one has leaked.
OVERLAP_H, MAX_OVERLAP_H = 24, 168
RESEND_MAX = 10_000  # deliveries sent again by one press: one short statement
REASON_MAX_CHARS = 200


@dataclass(frozen=True)
class NewSecret:
    endpoint: WebhookEndpoint
    secret: str  # `whsec_…`, to be copied now


def shown_url(url: str) -> str:
    """The address without its query."""
    return url.partition("?")[0]


def endpoint_check(*, url: str, kinds: Sequence[str]) -> None:
    """Refuse what can't be an endpoint. Raises ServiceError."""
    url_check(url, loopback=settings.WEBHOOK_ALLOW_LOOPBACK)
    if not kinds:
        raise ServiceError("kinds", "blank", _("Choose at least one kind of event."))
    if set(kinds) - {kind.value for kind in SUBSCRIBABLE}:
        raise ServiceError("kinds", "unknown", _("There is no such kind of event."))


def endpoint_create(
    *, client_app: ClientApp, url: str, kinds: Sequence[str], actor: str, request: Any = None
) -> NewSecret:
    endpoint_check(url=url, kinds=kinds)
    secret = secret_new()
    with transaction.atomic():
        # One at a time for an app, so that its limit holds.
        ClientApp.objects.select_for_update(no_key=True).get(pk=client_app.pk)
        if WebhookEndpoint.objects.filter(client_app=client_app).count() >= MAX_ENDPOINTS:
            raise ServiceError(
                "client_app",
                "too_many",
                _("An app has at most %(most)s endpoints."),
                most=MAX_ENDPOINTS,
            )
        _refuse_taken(client_app.pk, url)
        endpoint = WebhookEndpoint.objects.create(
            client_app=client_app,
            url=url,
            kinds=sorted(kinds),
            secret_encrypted=crypto.encrypt(secret),
        )
        _audit(endpoint, "create", actor, request=request, after=_facts(endpoint))
    return NewSecret(endpoint, secret_text(secret))


def endpoint_change(
    *, endpoint_id: int, url: str, kinds: Sequence[str], actor: str, request: Any = None
) -> WebhookEndpoint:
    """Another address or other events, from the next attempt on; the secret stays."""
    endpoint_check(url=url, kinds=kinds)
    with transaction.atomic():
        endpoint = _locked(endpoint_id)
        before = _facts(endpoint)
        if url != endpoint.url:
            _refuse_taken(endpoint.client_app_id, url)
        endpoint.url, endpoint.kinds = url, sorted(kinds)
        endpoint.changed_at = Now()
        endpoint.save(update_fields=["url", "kinds", "changed_at"])
        _audit(endpoint, "change", actor, request=request, before=before, after=_facts(endpoint))
    endpoint.refresh_from_db()
    return endpoint


def endpoint_rotate(
    *,
    endpoint_id: int,
    overlap_h: int = OVERLAP_H,
    actor: str,
    reason: str = "",
    request: Any = None,
) -> NewSecret:
    """A new secret. For `overlap_h` hours both sign; 0 takes the old one out at once."""
    if not 0 <= overlap_h <= MAX_OVERLAP_H:
        raise ServiceError(
            "overlap_h", "out_of_range", _("From 0 to %(most)s hours."), most=MAX_OVERLAP_H
        )
    secret = secret_new()
    with transaction.atomic():
        endpoint = _locked(endpoint_id)
        endpoint.previous_encrypted = endpoint.secret_encrypted if overlap_h else ""
        endpoint.previous_until = Now() + dt.timedelta(hours=overlap_h) if overlap_h else None
        endpoint.secret_encrypted = crypto.encrypt(secret)
        endpoint.changed_at = Now()
        endpoint.save(
            update_fields=[
                "previous_encrypted", "previous_until", "secret_encrypted", "changed_at",
            ]
        )  # fmt: skip
        _audit(
            endpoint, "rotate", actor, request=request, after={"overlap_h": overlap_h},
            reason=reason,
        )  # fmt: skip
    endpoint.refresh_from_db()
    return NewSecret(endpoint, secret_text(secret))


def endpoint_set_active(
    *, endpoint_id: int, active: bool, reason: str, actor: str, request: Any = None
) -> WebhookEndpoint:
    """Switch it on or off. What waits for it goes on when it is on again. TransitionRefused."""
    if not active and not reason.strip():
        raise ServiceError("reason", "blank", _("Say why, for whoever finds it switched off."))
    source, target = (State.DISABLED, State.ACTIVE) if active else (State.ACTIVE, State.DISABLED)
    with transaction.atomic():
        changed = WebhookEndpoint.objects.filter(pk=endpoint_id, state=source).update(
            state=target,
            reason="" if active else reason.strip()[:REASON_MAX_CHARS],
            failing_since=None,
            disabled_by_us=False,
            changed_at=Now(),
        )
        endpoint = _locked(endpoint_id)
        if changed != 1:
            raise TransitionRefused(
                shown_url(endpoint.url), endpoint.state, (source,), dict(State.choices)
            )
        _audit(
            endpoint,
            "enable" if active else "disable",
            actor,
            request=request,
            before={"state": source},
            after={"state": target},
            reason=reason,
        )
    return endpoint


def endpoint_test(*, endpoint_id: int, actor: str, request: Any = None) -> WebhookDelivery:
    """A test event for this endpoint alone; it goes the way of every other."""
    with transaction.atomic():
        endpoint = _locked(endpoint_id)
        _require_active(endpoint)
        event_id = uuid.uuid4()
        event = OutboxEvent.objects.create(
            id=event_id,
            client_app_id=endpoint.client_app_id,
            kind=EventKind.TEST,
            key=event_id.hex,
            payload={"message": "A test, asked for by the people of Laisee."},
        )
        delivery = WebhookDelivery.objects.create(event=event, endpoint=endpoint)
        _audit(endpoint, "test", actor, request=request, after={"event": event_id.hex})
    return delivery


def delivery_resend(*, delivery_id: int, actor: str, request: Any = None) -> WebhookDelivery:
    """Once more from the start of the schedule, under the same id; one that waits is due now."""
    with transaction.atomic():
        delivery = WebhookDelivery.objects.select_for_update(no_key=True).get(pk=delivery_id)
        endpoint = WebhookEndpoint.objects.get(pk=delivery.endpoint_id)
        _require_active(endpoint)
        before = delivery.state
        changed = WebhookDelivery.objects.filter(pk=delivery_id, lease_until=None).update(
            state=WebhookDelivery.State.WAITING,
            attempts=0,
            next_attempt_at=Now(),
            finished_at=None,
        )
        if changed != 1:
            raise ServiceError("", "in_progress", _("It is being delivered at this moment."))
        audit_record(
            actor=actor,
            action="webhook_delivery.resend",
            object_type="webhook_delivery",
            object_id=delivery_id,
            before={"state": before},
            after={"event": delivery.event_id.hex, "url": shown_url(endpoint.url)},
            request=request,
        )
    delivery.refresh_from_db()
    return delivery


_RESEND_FAILED = """
UPDATE engine_webhookdelivery
   SET state = 'waiting', attempts = 0, next_attempt_at = statement_timestamp(), finished_at = NULL
 WHERE id IN (
       SELECT dead.id FROM engine_webhookdelivery AS dead
        WHERE dead.endpoint_id = %s AND dead.state = 'dead' AND dead.finished_at >= %s
        ORDER BY dead.finished_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED)
   AND state = 'dead'
"""


def deliveries_resend_failed(
    *, endpoint_id: int, since: dt.datetime, actor: str, reason: str = "", request: Any = None
) -> int:
    """All that were given up since then, the oldest first, at most RESEND_MAX; their number."""
    with transaction.atomic():
        endpoint = _locked(endpoint_id)
        _require_active(endpoint)
        with connection.cursor() as cursor:
            cursor.execute(_RESEND_FAILED, [endpoint_id, since, RESEND_MAX])
            count = int(cursor.rowcount)
        _audit(
            endpoint,
            "resend_failed",
            actor,
            request=request,
            after={"since": since.isoformat(), "count": count},
            reason=reason,
        )
    return count


def _locked(endpoint_id: int) -> WebhookEndpoint:
    return WebhookEndpoint.objects.select_for_update(no_key=True).get(pk=endpoint_id)


def _require_active(endpoint: WebhookEndpoint) -> None:
    if endpoint.state != State.ACTIVE:
        raise ServiceError("", "disabled", _("The endpoint is switched off; switch it on first."))


def _refuse_taken(client_app_id: int, url: str) -> None:
    if WebhookEndpoint.objects.filter(client_app_id=client_app_id, url=url).exists():
        raise ServiceError("url", "taken", _("The app has this address already."))


def _facts(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "client_app": endpoint.client_app_id,
        "url": shown_url(endpoint.url),
        "kinds": list(endpoint.kinds),
    }


def _audit(
    endpoint: WebhookEndpoint,
    verb: str,
    actor: str,
    *,
    request: Any,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    audit_record(
        actor=actor,
        action=f"webhook_endpoint.{verb}",
        object_type="webhook_endpoint",
        object_id=endpoint.pk,
        before=before,
        after=after,
        reason=reason,
        request=request,
    )
