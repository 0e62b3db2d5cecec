"""Django's users and groups, and the log-in's own tables, in the theme.

A group's name in the database is a word for programs; people read its label.
"""

from __future__ import annotations

from typing import Any

from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_otp.plugins.otp_totp.models import TOTPDevice
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from campaign import people
from engine.lib.adminkit import PlainModelAdmin, ReadOnlyModelAdmin, moment
from engine.models import SecondFactor

for _model in (User, Group, AccessAttempt, AccessLog, AccessFailureLog, TOTPDevice):
    if admin.site.is_registered(_model):
        admin.site.unregister(_model)


# Django writes these four down in English; the rest are ours (`Meta.permissions`).
VERBS = {
    "add": _("Can add %(thing)s"),
    "change": _("Can change %(thing)s"),
    "delete": _("Can delete %(thing)s"),
    "view": _("Can view %(thing)s"),
}


# Tables of libraries that no screen shows: there is nothing to have a right to.
UNSEEN_APPS = ("admin", "contenttypes", "sessions", "otp_totp")


def label_of(group: Group) -> Any:
    known = {str(one): label for one, label in people.GROUP_LABELS.items()}
    return known.get(group.name, group.name)


def permission_label(permission: Permission) -> str:
    """`Campaigns · Can launch an approved campaign`, in the reader's language."""
    model = permission.content_type.model_class()
    if model is None:
        return permission.codename
    verb, _dash, name = permission.codename.partition("_")
    if verb in VERBS and name == model._meta.model_name:
        text = str(VERBS[verb]) % {"thing": model._meta.verbose_name}
    else:
        text = gettext(permission.name)
    return f"{model._meta.app_config.verbose_name} · {text}"


class LabelledAdmin(PlainModelAdmin):
    """Groups and rights are chosen by what they are called, not by their words for programs."""

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, **kwargs)
        if field is not None and db_field.related_model is Group:
            field.label_from_instance = label_of
        if field is not None and db_field.related_model is Permission:
            field.label_from_instance = permission_label
            field.queryset = field.queryset.exclude(content_type__app_label__in=UNSEEN_APPS)
        return field


class GroupFilter(admin.SimpleListFilter):
    title = _("groups")
    parameter_name = "group"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(group.pk), label_of(group)) for group in Group.objects.order_by("name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        wanted = str(self.value() or "")
        return queryset.filter(groups=int(wanted)) if wanted.isdecimal() else queryset


@admin.register(User)
class UserAdmin(DjangoUserAdmin, LabelledAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ["username", "groups_shown", "is_active", "is_superuser", "seen"]
    list_filter = ["is_active", "is_superuser", GroupFilter]
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


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, LabelledAdmin):
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


@admin.register(SecondFactor)
class SecondFactorAdmin(ReadOnlyModelAdmin):
    """Whose second factor is set up; deleting one lets its owner set up another."""

    list_display = ["whose", "is_set_up", "created", "used"]
    search_fields = ["=user__username"]
    search_help_text = _("Exact user name")
    ordering = ["-id"]
    list_select_related = ["user"]
    # Not the secret, which would be the factor itself.
    fields = ["whose", "is_set_up", "created", "used"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("engine.delete_secondfactor"))

    @admin.display(description=_("user"), ordering="user__username")
    def whose(self, device: SecondFactor) -> str:
        return str(device.user)

    @admin.display(description=_("set up"), boolean=True)
    def is_set_up(self, device: SecondFactor) -> bool:
        return bool(device.confirmed)

    @admin.display(description=_("created at"), ordering="created_at")
    def created(self, device: SecondFactor) -> str:
        return moment(device.created_at)

    @admin.display(description=_("last used at"), ordering="last_used_at")
    def used(self, device: SecondFactor) -> str:
        return moment(device.last_used_at)
