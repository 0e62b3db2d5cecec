"""Provider accounts: what may be withdrawn through them, their keys, breaker and balance.

Who sees one needs `view_provideraccount`; whoever changes anything `change_provideraccount`, the
password and a reason. Keys are typed, never shown, and used once a second person has agreed.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import (
    PlainModelAdmin,
    moment,
    money,
    require,
    stamp,
    tag,
)
from engine.lib.money import yuan
from engine.models import AuditEvent
from engine.staff.pages import page, user_of
from packets.admin import provider_acts, sandbox
from packets.admin import provider_forms as forms
from packets.admin.payout_desk import breaker_words
from packets.admin.payout_story import database_now, span
from packets.admin.provider_acts import CHANGE, SEE, account_of
from packets.models import ProviderAccount, ProviderChange
from packets.payouts import accounts
from packets.providers import credential_fields, credentials_of

EVENTS_SHOWN = 20
State = ProviderAccount.Breaker


@admin.register(ProviderAccount)
class ProviderAccountAdmin(PlainModelAdmin):
    list_display = ["name", "kind", "state", "breaker_shown", "balance", "balance_age", "pace"]
    ordering = ["name"]
    actions = None

    def has_delete_permission(
        self, request: HttpRequest, obj: ProviderAccount | None = None
    ) -> bool:
        return False  # switched off instead: its payouts have a history

    @admin.display(description=gettext_lazy("state"), ordering="is_active")
    def state(self, account: ProviderAccount) -> SafeString:
        on = account.is_active
        return tag("live" if on else "paused", _("switched on") if on else _("switched off"))

    @admin.display(description=gettext_lazy("breaker"), ordering="breaker")
    def breaker_shown(self, account: ProviderAccount) -> SafeString:
        tone = "done" if account.breaker == State.CLOSED else "failed"
        return tag(tone, account.get_breaker_display())

    @admin.display(description=gettext_lazy("balance"))
    def balance(self, account: ProviderAccount) -> SafeString:
        return money(account.balance_fen)

    @admin.display(description=gettext_lazy("balance as of"))
    def balance_age(self, account: ProviderAccount) -> SafeString:
        return stamp(account.balance_at)

    @admin.display(description=gettext_lazy("payouts a minute"))
    def pace(self, account: ProviderAccount) -> str:
        return f"{account.rate_per_minute:,}" if account.rate_per_minute else _("no limit")

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return provider_acts.add(request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return detail(request, object_id)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        account = get_object_or_404(ProviderAccount, pk=object_id)
        return HttpResponseRedirect(
            f"{reverse('admin:engine_auditevent_changelist')}?q={account.name}"
        )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        name = "packets_provider_{}".format
        ours = [
            path("<int:pk>/edit/", view(provider_acts.edit), name=name("edit")),
            path("<int:pk>/keys/", view(provider_acts.keys), name=name("keys")),
            path("<int:pk>/switch/", view(provider_acts.switch), name=name("switch")),
            path("<int:pk>/breaker/", view(provider_acts.breaker), name=name("breaker")),
            path("<int:pk>/test/", view(provider_acts.test), name=name("test")),
            path("change/<int:pk>/", view(provider_acts.change), name=name("change")),
        ]
        return [*ours, *sandbox.urls(view), *super().get_urls()]


# --- one account ----------------------------------------------------------------------------------


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    account = account_of(object_id)
    now = database_now()
    waiting = account.changes.filter(state=ProviderChange.State.PENDING).first()
    events = AuditEvent.objects.filter(object_type="provider", object_id=account.name)
    age = _("Not asked for yet.")
    if account.balance_at is not None:
        age = _("as it was %(time)s ago") % {
            "time": span((now - account.balance_at).total_seconds())
        }
    return page(
        request,
        "packets/provider.html",
        _("Provider account: %(name)s") % {"name": account.name},
        account=account,
        breaker_words=_breaker_words(account),
        change=waiting,
        change_address=reverse("admin:packets_provider_change", args=[waiting.pk])
        if waiting
        else "",
        buttons=_buttons(request, account) if user_of(request).has_perm(CHANGE) else [],
        limits=forms.limits_in_words(account),
        balance=yuan(account.balance_fen) if account.balance_fen is not None else "–",
        balance_age=age,
        keys=_keys(account),
        events=[
            {
                "event": event,
                "words": _EVENTS.get(event.action, event.action),
                "at": stamp(event.at),
            }
            for event in events.order_by("-id")[:EVENTS_SHOWN]
        ],
    )


_EVENTS = {
    "provider.create": gettext_lazy("made the account"),
    "provider.set": gettext_lazy("changed its limits"),
    "provider.switch_on": gettext_lazy("switched it on"),
    "provider.switch_off": gettext_lazy("switched it off"),
    "provider.test": gettext_lazy("tested the connection"),
    "provider.change_ask": gettext_lazy("asked for other keys"),
    "provider.change_approve": gettext_lazy("agreed to other keys"),
    "provider.change_reject": gettext_lazy("refused other keys"),
    "provider.change_withdraw": gettext_lazy("withdrew other keys"),
    "provider.breaker_stop": gettext_lazy("stopped sending"),
    "provider.breaker_close": gettext_lazy("closed the breaker"),
    "sandbox.set": gettext_lazy("set the sandbox's faults"),
    "sandbox.confirm": gettext_lazy("confirmed an order in the sandbox"),
}


def _breaker_words(account: ProviderAccount) -> list[str]:
    if account.breaker == State.CLOSED:
        return []
    return [
        _("Nothing new is sent through this account."),
        breaker_words(account.breaker_reason),
        _("One payout may be tried at %(at)s.")
        % {"at": moment(account.breaker_until, seconds=True)},
    ]


def _buttons(request: HttpRequest, account: ProviderAccount) -> list[dict[str, Any]]:
    def button(name: str, label: str, icon: str, **more: Any) -> dict[str, Any]:
        address = reverse(f"admin:packets_provider_{name}", args=[account.pk])
        return {"act": name, "label": label, "icon": icon, "address": address, **more}

    on = account.is_active
    found = [
        button("test", _("Test the connection"), "cable", post=True),
        button("edit", _("Change limits"), "tune"),
        button("keys", _("Replace keys"), "key"),
        button(
            "switch",
            _("Switch off") if on else _("Switch on"),
            "power_settings_new",
            danger=on,
            main=not on,
        ),
    ]
    if account.kind == ProviderAccount.Kind.SANDBOX:
        found.append(button("sandbox", _("What the sandbox does wrong"), "bug_report"))
    if account.breaker != State.CLOSED:
        label, icon = _("Close the breaker"), "electrical_services"
    else:
        label, icon = _("Stop sending"), "front_hand"
    return [*found, button("breaker", label, icon, main=account.breaker != State.CLOSED)]


def _keys(account: ProviderAccount) -> list[dict[str, Any]]:
    """Which keys there are; of what is in them only what isn't secret."""
    held = credentials_of(account)
    rows: list[dict[str, Any]] = [
        {"label": _("Address"), "shown": account.base_url or _("the provider's own")}
    ]
    for field in credential_fields(account.kind):
        value = held.get(field.name, "")
        shown: Any = _("not set")
        if value and field.secret:
            shown = format_html('<span translate="no">{}</span>', accounts.MASK)
        elif value:
            shown = format_html('<span class="ls-mono" translate="no">{}</span>', value)
        rows.append({"label": field.label, "shown": shown})
    if account.credentials_encrypted:
        key_id = accounts.key_id_of(account.credentials_encrypted)
        shown = format_html('<span class="ls-mono" translate="no">{}</span>', key_id)
        rows.append({"label": _("Encrypted under the key"), "shown": shown})
    return rows
