"""The kernel in the admin: client apps and their keys, and the audit log to read.

Keys are made, rotated and revoked by `engine.services`; a new secret is shown once, in a message to
whoever made it. The audit log and the idempotency records can't be changed by anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from engine import forced, services
from engine import forced_admin as forced_admin  # registers the admin of test users
from engine.lib.adminkit import (
    CheckboxSelectMultiple,
    MomentFilter,
    PlainModelAdmin,
    ReadOnlyModelAdmin,
    actor_of,
    exact_filter,
    stamp,
)
from engine.lib.errors import ServiceError
from engine.models import ApiKey, AuditEvent, ClientApp, ClientKey, IdempotencyRecord
from engine.webhooks import admin as webhooks_admin  # noqa: F401  (registers theirs)


class UndeletableAdmin(PlainModelAdmin):
    """What others refer to is switched off, never deleted."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(ClientApp)
class ClientAppAdmin(UndeletableAdmin):
    list_display = ["slug", "name", "active", "test_users_allowed", "created_at"]
    list_filter = ["active"]
    search_fields = ["slug", "name"]
    fields = ["slug", "name", "active", "test_users_allowed"]
    readonly_fields = ["active", "test_users_allowed"]
    actions = ["activate", "deactivate", "allow_test_users", "forbid_test_users"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        # The slug stands in key ids and in the audit log.
        return [*self.readonly_fields, *(["slug"] if obj else [])]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        made = services.client_app_create(
            slug=obj.slug, name=obj.name, actor=actor_of(request), request=request
        )
        obj.pk, obj._state.adding = made.pk, False

    @admin.action(description=_("Let the selected apps' callers in"), permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[ClientApp]) -> None:
        self._set(request, queryset, True)

    @admin.action(description=_("Keep the selected apps' callers out"), permissions=["change"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[ClientApp]) -> None:
        self._set(request, queryset, False)

    @admin.action(description=_("Allow test users for the selected apps"), permissions=["change"])
    def allow_test_users(self, request: HttpRequest, queryset: QuerySet[ClientApp]) -> None:
        self._test_users(request, queryset, True)

    @admin.action(description=_("Forbid test users for the selected apps"), permissions=["change"])
    def forbid_test_users(self, request: HttpRequest, queryset: QuerySet[ClientApp]) -> None:
        self._test_users(request, queryset, False)

    def _test_users(
        self, request: HttpRequest, queryset: QuerySet[ClientApp], allowed: bool
    ) -> None:
        for app in queryset:
            forced.app_test_users_set(
                client_app_id=app.pk, allowed=allowed, actor=actor_of(request)
            )
        self.message_user(request, _("%(count)d changed.") % {"count": len(queryset)})

    def _set(self, request: HttpRequest, queryset: QuerySet[ClientApp], active: bool) -> None:
        changed = sum(
            services.client_app_set_active(
                client_app=app, active=active, actor=actor_of(request), request=request
            )
            for app in queryset
        )
        self.message_user(request, _("%(count)d changed.") % {"count": changed})


class ClientKeyForm(forms.ModelForm):
    class Meta:
        model = ClientKey
        fields = ["client_app", "label", "public_key"]
        help_texts = {
            "public_key": _(
                "Leave empty for an HS256 key, whose secret is then shown once. "
                "Paste an Ed25519 public key (PEM) for EdDSA."
            )
        }

    def clean_public_key(self) -> str:
        pem: str = self.cleaned_data["public_key"].strip()
        if pem:
            try:
                services.public_key_check(pem)
            except ServiceError as error:
                raise forms.ValidationError(error.message) from None
        return pem


class ApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        label=_("scopes"),
        choices=ApiKey.Scope.choices,
        widget=CheckboxSelectMultiple,
    )

    class Meta:
        model = ApiKey
        fields = ["client_app", "name", "scopes", "expires_at"]


class KeyAdmin(UndeletableAdmin):
    """What client keys and API keys share: made once, then only rotated or revoked."""

    actions = ["rotate", "revoke"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # A key is never edited; the permission still governs the actions below.
        return obj is None and super().has_change_permission(request, obj)

    def show_secret(self, request: HttpRequest, name: str, secret: str) -> None:
        self.message_user(
            request,
            _("Key %(name)s. Copy its secret now, it is not shown again: %(secret)s")
            % {"name": name, "secret": secret},
            messages.WARNING,
        )

    def each(self, request: HttpRequest, queryset: QuerySet[Any], do: Callable[[Any], Any]) -> int:
        """Apply a service to each row; a refusal is a message and does not stop the others."""
        done = 0
        for row in queryset:
            try:
                done += bool(do(row))
            except ServiceError as error:
                self.message_user(request, f"{row}: {error.message}", messages.ERROR)
        return done


@admin.register(ClientKey)
class ClientKeyAdmin(KeyAdmin):
    form = ClientKeyForm
    list_display = ["kid", "client_app", "alg", "label", "created_at", "revoked_at"]
    list_filter = ["alg", "client_app"]
    list_select_related = ["client_app"]
    search_fields = ["kid", "label"]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        if obj is None:
            return ["client_app", "label", "public_key"]
        return ["kid", "client_app", "alg", "public_key", "label", "created_at", "revoked_at"]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = services.client_key_create(
            client_app=obj.client_app,
            label=obj.label,
            public_key=obj.public_key,
            actor=actor_of(request),
            request=request,
        )
        obj.pk, obj.kid, obj._state.adding = made.key.pk, made.key.kid, False
        if made.secret:
            self.show_secret(request, made.key.kid, made.secret)

    @admin.action(description=_("Make a successor (the old key stays good)"), permissions=["add"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        def one(key: ClientKey) -> bool:
            made = services.client_key_rotate(key=key, actor=actor_of(request), request=request)
            self.show_secret(request, made.key.kid, made.secret)
            return True

        self.each(request, queryset.select_related("client_app"), one)

    @admin.action(description=_("Revoke (its tokens are refused at once)"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        count = self.each(
            request,
            queryset,
            lambda key: services.client_key_revoke(
                key=key, actor=actor_of(request), request=request
            ),
        )
        self.message_user(request, _("%(count)d revoked.") % {"count": count})


@admin.register(ApiKey)
class ApiKeyAdmin(KeyAdmin):
    form = ApiKeyForm
    list_display = [
        "name",
        "prefix",
        "client_app",
        "scopes",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    ]
    list_filter = ["client_app"]
    list_select_related = ["client_app"]
    search_fields = ["name", "prefix"]

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[Any]:
        if obj is None:
            return ["client_app", "name", "scopes", "expires_at"]
        return [*self.list_display]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = services.api_key_create(
            client_app=obj.client_app,
            scopes=form.cleaned_data["scopes"],
            name=obj.name,
            expires_at=obj.expires_at,
            actor=actor_of(request),
            request=request,
        )
        obj.pk, obj.prefix, obj._state.adding = made.key.pk, made.key.prefix, False
        self.show_secret(request, str(made.key), made.secret)

    @admin.action(
        description=_("Make a successor (the old key expires in a day)"), permissions=["add"]
    )
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        def one(key: ApiKey) -> bool:
            made = services.api_key_rotate(key=key, actor=actor_of(request), request=request)
            self.show_secret(request, str(made.key), made.secret)
            return True

        self.each(request, queryset.select_related("client_app"), one)

    @admin.action(description=_("Revoke (refused at once)"), permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        count = self.each(
            request,
            queryset,
            lambda key: services.api_key_revoke(key=key, actor=actor_of(request), request=request),
        )
        self.message_user(request, _("%(count)d revoked.") % {"count": count})


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyModelAdmin):
    list_display = ["id", "when", "actor", "action", "object_type", "object_id", "reason"]
    list_filter = [
        ("at", MomentFilter),
        exact_filter("action", _("action")),
        exact_filter("object_type", _("object type")),
    ]
    search_fields = ["=actor", "=object_id", "=request_id"]
    search_help_text = _("Exact: who, the object's id, or a request id")

    @admin.display(description=_("at"), ordering="id")
    def when(self, event: AuditEvent) -> SafeString:
        return stamp(event.at)


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyModelAdmin):
    list_display = ["principal", "key", "route", "status", "created_at"]
    search_fields = ["=principal", "=key"]
    search_help_text = _("Exact: principal or key")
    ordering = ["-created_at"]
    fields = ["principal", "key", "route", "status", "lease_until", "created_at"]
