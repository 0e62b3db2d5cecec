"""Webhooks in the admin: endpoints, what was sent to them, and what they said.

A secret is shown once, in a message to whoever made it. Every act is asked once more on a page of
its own and done by `services.py`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.decorators import action

from engine.lib.adminkit import (
    CheckboxSelectMultiple,
    LocalMomentField,
    MomentFilter,
    PlainModelAdmin,
    ReadOnlyModelAdmin,
    actor_of,
    moment,
    number_of,
    stamp,
    tag,
    uuid_of,
)
from engine.lib.errors import ServiceError
from engine.staff.confirm import ConfirmedAct, Consequence, MoneyForm, ReasonForm, confirm
from engine.webhooks import services
from engine.webhooks.deliveries import FAILING_LIMIT, REASON_FAILING, REASON_GONE, body_of
from engine.webhooks.models import (
    SUBSCRIBABLE,
    OutboxEvent,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
)

RESEND, SEE_LOG = "engine.change_webhookdelivery", "engine.view_webhookdelivery"
# Words for the colours of the theme's tags.
ENDPOINT_COLOURS = {"active": "live", "disabled": "failed"}
DELIVERY_COLOURS = {"waiting": "pending", "delivered": "done", "dead": "failed"}


# --- endpoints ------------------------------------------------------------------------------------


class EndpointForm(forms.ModelForm):  # type: ignore[type-arg]
    """The service's refusals stand beside their fields."""

    kinds = forms.MultipleChoiceField(
        label=_("events"),
        choices=[(kind.value, kind.label) for kind in SUBSCRIBABLE],
        widget=CheckboxSelectMultiple,
    )

    class Meta:
        model = WebhookEndpoint
        fields = ["client_app", "url", "kinds"]
        help_texts = {
            "url": _(
                "Begins with https:// and belongs to the open internet. Redirects are not followed."
            ),
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                services.endpoint_check(url=data["url"], kinds=data["kinds"])
            except ServiceError as refusal:
                self.add_error(refusal.field, refusal.message)
        return data


class OverlapForm(ReasonForm):
    overlap_h = forms.IntegerField(
        label=_("Hours in which both secrets sign"),
        min_value=0,
        max_value=services.MAX_OVERLAP_H,
        initial=services.OVERLAP_H,
        help_text=_("0 if the old secret has become known to somebody: it ends at once."),
    )
    field_order = ("overlap_h", "reason")


class SinceForm(ReasonForm):
    since = LocalMomentField(label=_("Given up since"))
    field_order = ("since", "reason")

    def clean_since(self) -> dt.datetime:
        return LocalMomentField.place(self.cleaned_data["since"], settings.STAFF_TIME_ZONE)


class PlainForm(MoneyForm):
    """Nothing is asked."""


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(PlainModelAdmin):
    form = EndpointForm
    list_display = ["url_shown", "client_app", "kinds_shown", "state_shown", "failing", "why"]
    list_filter = ["client_app", "state"]
    list_select_related = ["client_app"]
    search_fields = ["url"]
    actions = None
    actions_detail = ["enable", "disable", "rotate", "send_test", "resend_failed", "log"]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        typed = ["client_app", "url", "kinds"]
        seen = ["state_shown", "why", "failing", "previous", "made", "changed"]
        return typed if obj is None else typed + seen

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        if obj is None:
            return []
        # Another app's endpoint is another row.
        return ["client_app", *self.get_fields(request, obj)[3:]]

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # switched off instead: its deliveries stay known

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        values = {"url": obj.url, "kinds": form.cleaned_data["kinds"], "actor": actor_of(request)}
        if change:
            services.endpoint_change(endpoint_id=obj.pk, request=request, **values)
            return
        made = services.endpoint_create(client_app=obj.client_app, request=request, **values)
        obj.pk, obj._state.adding = made.endpoint.pk, False
        _show_secret(request, made)

    # --- what a row looks like ---

    @admin.display(description=_("address"), ordering="url")
    def url_shown(self, endpoint: WebhookEndpoint) -> SafeString:
        return _code(services.shown_url(endpoint.url))

    @admin.display(description=_("events"))
    def kinds_shown(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.kinds)

    @admin.display(description=_("reason"))
    def why(self, endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_by_us and endpoint.reason == REASON_GONE:
            return gettext("It answered 410: send no more.")
        if endpoint.disabled_by_us and endpoint.reason == REASON_FAILING:
            return gettext("Every call failed for %(days)d days.") % {"days": FAILING_LIMIT.days}
        return endpoint.reason or "–"

    @admin.display(description=_("created at"), ordering="created_at")
    def made(self, endpoint: WebhookEndpoint) -> SafeString:
        return stamp(endpoint.created_at)

    @admin.display(description=_("changed at"), ordering="changed_at")
    def changed(self, endpoint: WebhookEndpoint) -> SafeString:
        return stamp(endpoint.changed_at)

    @admin.display(description=_("state"), ordering="state")
    def state_shown(self, endpoint: WebhookEndpoint) -> SafeString:
        colour = ENDPOINT_COLOURS[endpoint.state]
        return tag(colour, endpoint.get_state_display())

    @admin.display(description=_("failing since"), ordering="failing_since")
    def failing(self, endpoint: WebhookEndpoint) -> SafeString:
        return stamp(endpoint.failing_since)

    @admin.display(description=_("previous secret good until"))
    def previous(self, endpoint: WebhookEndpoint) -> SafeString:
        return stamp(endpoint.previous_until)

    # --- acts ---

    def has_resend_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(RESEND)

    def has_log_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(SEE_LOG)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """The buttons that make sense: what is on can be switched off, tested, and so on."""
        active = _endpoint(object_id).state == WebhookEndpoint.State.ACTIVE
        hidden = {"enable"} if active else {"disable", "send_test", "resend_failed"}
        shown = super().get_actions_detail(request, object_id)
        return [one for one in shown if one.method.__name__ not in hidden]

    @action(description=_("Switch on"), icon="play_arrow", permissions=["change"])
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = _endpoint(object_id)
        waiting = _count(endpoint, "waiting")
        return _ask(
            request,
            endpoint,
            label=_("Switch on"),
            icon="play_arrow",
            facts=(
                gettext("What waits for this endpoint is sent again from now on."),
                gettext("What happened while it was switched off was not written down for it."),
            ),
            numbers=((gettext("Waiting"), waiting),),
            run=lambda data: services.endpoint_set_active(
                endpoint_id=endpoint.pk,
                active=True,
                reason=data["reason"],
                actor=actor_of(request),
                request=request,
            ),
            done=_("The endpoint is on."),
        )

    @action(description=_("Switch off"), icon="pause", permissions=["change"])
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = _endpoint(object_id)
        return _ask(
            request,
            endpoint,
            label=_("Switch off"),
            icon="pause",
            danger=True,
            facts=(
                gettext("Nothing is sent to it any more; what waits goes on waiting."),
                gettext("What happens from now on is not written down for it."),
            ),
            numbers=((gettext("Waiting"), _count(endpoint, "waiting")),),
            run=lambda data: services.endpoint_set_active(
                endpoint_id=endpoint.pk,
                active=False,
                reason=data["reason"],
                actor=actor_of(request),
                request=request,
            ),
            done=_("The endpoint is off."),
        )

    @action(description=_("New secret"), icon="key", permissions=["change"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = _endpoint(object_id)

        def run(data: dict[str, Any]) -> None:
            made = services.endpoint_rotate(
                endpoint_id=endpoint.pk,
                overlap_h=data["overlap_h"],
                reason=data["reason"],
                actor=actor_of(request),
                request=request,
            )
            _show_secret(request, made)

        return _ask(
            request,
            endpoint,
            label=_("New secret"),
            icon="key",
            form=OverlapForm,
            facts=(
                gettext("The new secret is shown once. Until the old one ends, calls carry both."),
                gettext("A still older secret, from a rotation before, ends now."),
            ),
            run=run,
            done=_("The endpoint has a new secret."),
        )

    @action(description=_("Send a test"), icon="send", permissions=["change"])
    def send_test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = _endpoint(object_id)
        made: list[WebhookDelivery] = []

        def run(data: dict[str, Any]) -> None:
            made.append(
                services.endpoint_test(
                    endpoint_id=endpoint.pk, actor=actor_of(request), request=request
                )
            )

        return _ask(
            request,
            endpoint,
            label=_("Send a test"),
            icon="send",
            form=PlainForm,
            facts=(gettext("An event of the kind webhook.test goes to this endpoint alone."),),
            run=run,
            done=_("The test is on its way; its answer stands below deliveries within seconds."),
        )

    @action(description=_("Send failed ones again"), icon="replay", permissions=["resend"])
    def resend_failed(self, request: HttpRequest, object_id: str) -> HttpResponse:
        endpoint = _endpoint(object_id)

        def run(data: dict[str, Any]) -> None:
            count = services.deliveries_resend_failed(
                endpoint_id=endpoint.pk,
                since=data["since"],
                reason=data["reason"],
                actor=actor_of(request),
                request=request,
            )
            messages.info(request, gettext("Sent again: %(count)d") % {"count": count})

        day_ago = timezone.localtime() - dt.timedelta(days=1)
        return _ask(
            request,
            endpoint,
            label=_("Send failed ones again"),
            icon="replay",
            form=SinceForm,
            initial={"since": day_ago.replace(tzinfo=None)},
            facts=(
                gettext("Whatever was given up since then starts anew, under the same ids."),
                gettext("At most %(most)d, the oldest first; press again for more.")
                % {"most": services.RESEND_MAX},
            ),
            numbers=((gettext("Given up"), _count(endpoint, "dead")),),
            run=run,
            done=_("They are due now."),
        )

    @action(description=_("Deliveries"), icon="list", permissions=["log"])
    def log(self, request: HttpRequest, object_id: str) -> HttpResponse:
        address = reverse("admin:engine_webhookdelivery_changelist")
        return HttpResponseRedirect(f"{address}?endpoint__id__exact={_endpoint(object_id).pk}")


def _endpoint(object_id: Any) -> WebhookEndpoint:
    return get_object_or_404(WebhookEndpoint, pk=number_of(object_id))


def _code(text: str) -> SafeString:
    """Something for programs, in whatever language."""
    return format_html("<code>{}</code>", text)


COUNTED = 10_000  # more are not counted


def _count(endpoint: WebhookEndpoint, state: str) -> str:
    rows = WebhookDelivery.objects.filter(endpoint=endpoint, state=state).order_by()
    count = len(rows.values_list("pk")[: COUNTED + 1])
    return f"> {COUNTED:,}" if count > COUNTED else f"{count:,}"


def _ask(
    request: HttpRequest,
    endpoint: WebhookEndpoint,
    *,
    label: Any,
    run: Callable[[dict[str, Any]], Any],
    done: Any,
    facts: tuple[str, ...],
    icon: str,
    form: type[MoneyForm] = ReasonForm,
    numbers: tuple[tuple[str, str], ...] = (),
    danger: bool = False,
    initial: dict[str, Any] | None = None,
) -> HttpResponse:
    act = ConfirmedAct(
        label=label,
        consequence=Consequence(gettext("No money moves."), facts, numbers),
        run=run,
        done=done,
        icon=icon,
        form=form,
        money=False,
        danger=danger,
        about=services.shown_url(endpoint.url),
        initial=initial or {},
    )
    return confirm(request, act, reverse("admin:engine_webhookendpoint_change", args=[endpoint.pk]))


def _show_secret(request: HttpRequest, made: services.NewSecret) -> None:
    messages.warning(
        request,
        gettext("Copy the secret of %(url)s now, it is not shown again: %(secret)s")
        % {"url": services.shown_url(made.endpoint.url), "secret": made.secret},
    )


# --- deliveries -----------------------------------------------------------------------------------


class KindFilter(admin.SimpleListFilter):
    """By the kind of event; without asking which kinds there are."""

    title = _("event")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(kind, label) for kind, label in OutboxEvent._meta.get_field("kind").choices or ()]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(event__kind=self.value()) if self.value() else queryset


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyModelAdmin):
    list_display = ["id", "kind", "endpoint_shown", "state_shown", "attempts", "made_at"]
    list_filter = ["endpoint", "state", KindFilter, ("created_at", MomentFilter)]
    list_select_related = ["event", "endpoint"]
    search_fields = ["=event__key"]
    search_help_text = _("Exact: the webhook-id, or the id of what it tells of")
    ordering = ["-id"]
    fields = [
        "event_id_shown",
        "kind",
        "endpoint_shown",
        "state_shown",
        "attempts",
        "next_at",
        "finished",
        "body",
        "attempts_log",
    ]
    actions_detail = ["resend"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        wanted = uuid_of(search_term)
        # The id of what an event tells of is often of the same form as the event's own.
        if wanted is not None and (found := queryset.filter(event_id=wanted)).exists():
            return found, False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description=_("webhook-id"))
    def event_id_shown(self, delivery: WebhookDelivery) -> str:
        return delivery.event_id.hex

    @admin.display(description=_("event"), ordering="event__kind")
    def kind(self, delivery: WebhookDelivery) -> str:
        return delivery.event.kind

    @admin.display(description=_("endpoint"))
    def endpoint_shown(self, delivery: WebhookDelivery) -> SafeString:
        return _code(services.shown_url(delivery.endpoint.url))

    @admin.display(description=_("state"), ordering="state")
    def state_shown(self, delivery: WebhookDelivery) -> SafeString:
        return tag(DELIVERY_COLOURS[delivery.state], delivery.get_state_display())

    @admin.display(description=_("next attempt at"), ordering="next_attempt_at")
    def next_at(self, delivery: WebhookDelivery) -> SafeString:
        return stamp(delivery.next_attempt_at)

    @admin.display(description=_("created at"), ordering="id")
    def made_at(self, delivery: WebhookDelivery) -> SafeString:
        return stamp(delivery.created_at)

    @admin.display(description=_("finished at"))
    def finished(self, delivery: WebhookDelivery) -> SafeString:
        return stamp(delivery.finished_at)

    @admin.display(description=_("what is sent"))
    def body(self, delivery: WebhookDelivery) -> SafeString:
        event = delivery.event
        said = json.loads(body_of(event.pk, event.kind, event.created_at, event.payload))
        return format_html(
            '<pre style="overflow-wrap: anywhere; white-space: pre-wrap">{}</pre>',
            json.dumps(said, indent=2, ensure_ascii=False),
        )

    @admin.display(description=_("attempts"))
    def attempts_log(self, delivery: WebhookDelivery) -> SafeString:
        attempts = WebhookAttempt.objects.filter(delivery=delivery).order_by("-id")[:50]
        if not attempts:
            return format_html("<span>{}</span>", gettext("Not tried yet."))
        rows = format_html_join(
            "",
            '<tr><td class="ls-num">{}</td><td>{}</td><td class="ls-num">{}</td>'
            '<td class="ls-num">{}</td><td>{}</td></tr>',
            (
                (
                    one.number,
                    stamp(one.at),
                    one.status if one.status is not None else "–",
                    one.latency_ms,
                    _code(one.error or one.answer[:200]),
                )
                for one in attempts
            ),
        )
        heads = format_html_join(
            "",
            "<th>{}</th>",
            (
                (text,)
                for text in (
                    gettext("attempt"),
                    gettext("at"),
                    gettext("status"),
                    gettext("took (ms)"),
                    gettext("answer"),
                )
            ),
        )
        return format_html(
            '<table class="ls-table"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>',
            heads,
            rows,
        )

    def has_resend_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(RESEND)

    @action(description=_("Send again"), icon="replay", permissions=["resend"])
    def resend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        rows = WebhookDelivery.objects.select_related("event", "endpoint")
        delivery = get_object_or_404(rows, pk=number_of(object_id))
        act = ConfirmedAct(
            label=_("Send again"),
            consequence=Consequence(
                gettext("No money moves."),
                (
                    gettext("The same event goes out under the same id, with all its attempts."),
                    gettext("A receiver that has it already ignores it."),
                ),
                (
                    (gettext("event"), delivery.event.kind),
                    (gettext("created at"), moment(delivery.event.created_at, seconds=True)),
                ),
            ),
            run=lambda data: services.delivery_resend(
                delivery_id=delivery.pk, actor=actor_of(request), request=request
            ),
            done=_("It is due now."),
            icon="replay",
            form=PlainForm,
            money=False,
            about=services.shown_url(delivery.endpoint.url),
        )
        back = reverse("admin:engine_webhookdelivery_change", args=[delivery.pk])
        return confirm(request, act, back)
