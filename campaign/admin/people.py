"""Django's users and groups, and the log-in's own tables, in the theme.

A group's name in the database is a word for programs; people read its label.
"""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from campaign import people
from engine.lib.adminkit import PlainModelAdmin, ReadOnlyModelAdmin, moment

for _model in (User, Group, AccessAttempt, AccessLog, AccessFailureLog, TOTPDevice):
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, PlainModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "groups_shown", "is_active", "is_superuser", "seen"]
    list_filter = ["is_active", "is_superuser", "groups"]
    search_fields = ["username", "first_name", "last_name", "email"]
    actions = None

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    # Whoever did something once stands in the audit log: people are switched off, not deleted.
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("groups"))
    def groups_shown(self, user: User) -> str:
        return ", ".join(str(label_of(group)) for group in user.groups.all()) or "–"

    @admin.display(description=_("last log-in"), ordering="last_login")
    def seen(self, user: User) -> str:
        return moment(user.last_login)


def label_of(group: Group) -> Any:
    known = {str(one): label for one, label in people.GROUP_LABELS.items()}
    return known.get(group.name, group.name)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, PlainModelAdmin):
    list_display = ["label", "name"]
    actions = None

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("group"))
    def label(self, group: Group) -> Any:
        return label_of(group)


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnlyModelAdmin):
    list_display = ["username", "ip_address", "failures_since_start", "at"]
    search_fields = ["=username", "=ip_address"]
    search_help_text = _("Exact: user name or address")
    ordering = ["-attempt_time"]
    fields = ["username", "ip_address", "user_agent", "failures_since_start", "attempt_time"]

    # Deleting an attempt is how a locked-out person is let in again.
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("axes.delete_accessattempt"))

    @admin.display(description=_("at"), ordering="attempt_time")
    def at(self, attempt: AccessAttempt) -> str:
        return moment(attempt.attempt_time, seconds=True)


@admin.register(TOTPDevice)
class DeviceAdmin(ReadOnlyModelAdmin):
    """Whose second factor is set up; deleting one lets its owner set up another."""

    list_display = ["user", "name", "confirmed", "created"]
    list_filter = ["confirmed"]
    search_fields = ["=user__username"]
    search_help_text = _("Exact user name")
    ordering = ["-id"]
    # Not the secret, which would be the factor itself.
    fields = ["user", "name", "confirmed", "created_at", "last_used_at"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("otp_totp.delete_totpdevice"))

    @admin.display(description=_("created at"), ordering="created_at")
    def created(self, device: TOTPDevice) -> str:
        return moment(device.created_at)
