"""Test users in the admin: what an integrator's people hear, set by `engine/forced.py` only."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from engine import forced
from engine.lib.adminkit import PlainModelAdmin, actor_of
from engine.lib.errors import ServiceError
from engine.models import ForcedOutcome


class ForcedOutcomeForm(forms.ModelForm):
    """The service's refusals stand beside their fields."""

    class Meta:
        model = ForcedOutcome
        fields = ["client_app", "subject", "result", "reason", "note"]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return data
        changing = not self.instance._state.adding
        app = self.instance.client_app if changing else data["client_app"]
        subject = self.instance.subject if changing else data["subject"]
        try:
            forced.forced_outcome_check(
                client_app=app, subject=subject, result=data["result"], reason=data["reason"]
            )
        except ServiceError as refusal:
            named = refusal.field if refusal.field in self.fields else None
            self.add_error(named, refusal.message)
        return data


@admin.register(ForcedOutcome)
class ForcedOutcomeAdmin(PlainModelAdmin):
    form = ForcedOutcomeForm
    list_display = ["subject", "client_app", "result", "reason", "note", "created_by", "created_at"]
    list_filter = ["client_app", "result"]
    list_select_related = ["client_app"]
    search_fields = ["subject"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        # Another person is another row.
        return ["client_app", "subject"] if obj else []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = forced.forced_outcome_set(
            client_app_id=obj.client_app_id,
            subject=obj.subject,
            result=obj.result,
            reason=obj.reason,
            note=obj.note,
            actor=actor_of(request),
        )
        obj.pk, obj._state.adding = made.pk, False

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        forced.forced_outcome_delete(forced_outcome_id=obj.pk, actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)
