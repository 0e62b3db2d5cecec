"""Provider accounts: what may be withdrawn through them, their keys, breaker and balance.

Who sees one needs `view_provideraccount`; whoever changes anything `change_provideraccount`, the
password and a reason. Keys are typed, never shown, and used once a second person has agreed.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from engine.lib.adminkit import (
    PlainModelAdmin,
    actor_of,
    moment,
    money,
    require,
    stamp,
    tag,
)
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.models import AuditEvent
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from engine.staff.pages import page, user_of
from packets.admin import provider_forms as forms
from packets.admin import sandbox
from packets.admin.deciding import Asked, decide
from packets.admin.payout_desk import breaker_words
from packets.admin.payout_story import database_now, span
from packets.models import ProviderAccount, ProviderChange
from packets.payouts import accounts
from packets.providers import credential_fields, credentials_of

EVENTS_SHOWN = 20
SEE, CHANGE = "packets.view_provideraccount", "packets.change_provideraccount"
DECIDE = "packets.decide_providerchange"
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
        return add(request)

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
            path("<int:pk>/edit/", view(edit), name=name("edit")),
            path("<int:pk>/keys/", view(keys), name=name("keys")),
            path("<int:pk>/switch/", view(switch), name=name("switch")),
            path("<int:pk>/breaker/", view(breaker), name=name("breaker")),
            path("<int:pk>/test/", view(test), name=name("test")),
            path("change/<int:pk>/", view(change), name=name("change")),
        ]
        return [*ours, *sandbox.urls(view), *super().get_urls()]


def address_of(account: ProviderAccount) -> str:
    return reverse("admin:packets_provideraccount_change", args=[account.pk])


def _account(pk: Any) -> ProviderAccount:
    return get_object_or_404(ProviderAccount, pk=pk)


# --- one account ----------------------------------------------------------------------------------


def detail(request: HttpRequest, object_id: str) -> HttpResponse:
    require(request, SEE)
    account = _account(object_id)
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


# --- acts -----------------------------------------------------------------------------------------


def add(request: HttpRequest) -> HttpResponse:
    require(request, "packets.add_provideraccount")
    form = forms.AddForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        try:
            made = accounts.provider_account_create(
                name=form.cleaned_data["name"],
                kind=form.cleaned_data["kind"],
                limits=form.limits(),
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("Made, and switched off until it has keys."))
            return HttpResponseRedirect(address_of(made))
    return page(
        request,
        "packets/provider_form.html",
        _("New provider account"),
        status=422 if form.is_bound else 200,
        form=form,
        sheets=form.sheets(),
        note=_("No money moves. Nothing is sent before it has keys and is switched on."),
        button=_("Make it"),
        back=reverse("admin:packets_provideraccount_changelist"),
    )


def edit(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, CHANGE)
    account = _account(pk)
    form = forms.LimitsForm(
        request.POST or None, request=request, initial=forms.initial_of(account)
    )
    if request.method == "POST" and form.is_valid():
        try:
            accounts.provider_account_set(
                account_id=account.pk,
                limits=form.limits(),
                actor=actor_of(request),
                reason=form.cleaned_data["reason"],
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("The limits stand from now on."))
            return HttpResponseRedirect(address_of(account))
    return page(
        request,
        "packets/provider_form.html",
        _("Limits of %(name)s") % {"name": account.name},
        status=422 if form.is_bound else 200,
        form=form,
        sheets=form.sheets(),
        note=_("New withdrawals are judged by these limits; what was taken on before goes on."),
        button=_("Change limits"),
        back=address_of(account),
    )


def keys(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, CHANGE)
    account = _account(pk)
    form = forms.KeysForm(request.POST or None, request=request, account=account)
    if request.method == "POST" and form.is_valid():
        try:
            accounts.provider_change_ask(
                account_id=account.pk,
                base_url=form.cleaned_data["base_url"],
                credentials=form.credentials(),
                by=user_of(request),
                reason=form.cleaned_data["reason"],
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("Asked for. Somebody else has to agree."))
            return HttpResponseRedirect(address_of(account))
    return page(
        request,
        "packets/provider_form.html",
        _("Keys of %(name)s") % {"name": account.name},
        status=422 if form.is_bound else 200,
        form=form,
        sheets=form.sheets(),
        note=_(
            "Whoever holds these decides where the money goes: they are used once a second person "
            "has agreed. What is left empty stays as it is."
        ),
        button=_("Ask for it"),
        back=address_of(account),
    )


def change(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, SEE)
    asked = get_object_or_404(
        ProviderChange.objects.select_related("account", "requested_by", "decided_by"), pk=pk
    )
    user, account = user_of(request), asked.account
    labels = {field.name: field.label for field in credential_fields(account.kind)}
    labels["base_url"] = _("Address")
    return decide(
        request,
        Asked(
            row=asked,
            about=account.name,
            title=_("Other keys for %(name)s") % {"name": account.name},
            consequence=Consequence(
                _("From the next call on these keys sign for our money."),
                (_("Ask whoever typed them over another channel whether it was them."),),
                (
                    (_("Replaced"), ", ".join(str(labels.get(one, one)) for one in asked.replaced)),
                    (_("Address"), asked.base_url or _("the provider's own")),
                    (_("Reason"), asked.reason),
                ),
            ),
            permission=DECIDE,
            approve=lambda: accounts.provider_change_approve(change_id=asked.pk, by=user),
            reject=lambda why: accounts.provider_change_reject(
                change_id=asked.pk, by=user, reason=why
            ),
            withdraw=lambda: accounts.provider_change_withdraw(change_id=asked.pk, by=user),
            back=address_of(account),
        ),
    )


def switch(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, CHANGE)
    account = _account(pk)
    on = not account.is_active
    said = (
        _("People can withdraw through %(name)s at once.")
        if on
        else _("Nobody can ask for a withdrawal through %(name)s any more.")
    )
    act = ConfirmedAct(
        label=_("Switch on") if on else _("Switch off"),
        icon="power_settings_new",
        consequence=Consequence(
            said % {"name": account.name},
            (
                _("Questions about payouts that are out go on in either case."),
                _("What waits to be sent is sent.") if on else _("What waits to be sent waits."),
            ),
        ),
        run=lambda data: accounts.provider_account_switch(
            account_id=account.pk, on=on, actor=actor_of(request), reason=data["reason"]
        ),
        done=_("Switched on.") if on else _("Switched off."),
        money=on,  # stopping must be quick
        danger=not on,
        about=account.name,
    )
    return confirm(request, act, address_of(account))


def breaker(request: HttpRequest, pk: int) -> HttpResponse:
    """Stops sending, or lets it go on."""
    require(request, CHANGE)
    account = _account(pk)
    stopped = account.breaker != State.CLOSED
    service = accounts.provider_breaker_close if stopped else accounts.provider_breaker_stop
    if stopped:
        consequence = Consequence(
            _("Waiting payouts are sent through %(name)s again at once.") % {"name": account.name},
            (
                _("If the provider still fails, it opens again after the next failures."),
                _("If the account was short of money, put money in first."),
            ),
            ((_("Why it is open"), breaker_words(account.breaker_reason)),),
        )
    else:
        consequence = Consequence(
            _("Nothing new is sent through %(name)s until somebody closes it again.")
            % {"name": account.name},
            (_("People can still ask for withdrawals; they wait. What is out is asked about."),),
        )
    act = ConfirmedAct(
        label=_("Close the breaker") if stopped else _("Stop sending"),
        icon="electrical_services" if stopped else "front_hand",
        consequence=consequence,
        run=lambda data: service(
            account_id=account.pk, actor=actor_of(request), reason=data["reason"]
        ),
        done=_("The breaker is closed.") if stopped else _("Nothing new is sent."),
        money=stopped,  # stopping must be quick
        danger=not stopped,
        about=account.name,
    )
    return confirm(request, act, address_of(account))


@require_POST
def test(request: HttpRequest, pk: int) -> HttpResponse:
    require(request, CHANGE)
    account = _account(pk)
    try:
        found = accounts.provider_account_test(account_id=account.pk, actor=actor_of(request))
    except ServiceError as refusal:
        messages.error(request, refusal.message)
        return HttpResponseRedirect(address_of(account))
    if found.balance_fen is not None:
        messages.success(
            request, _("The balance was read: %(sum)s.") % {"sum": yuan(found.balance_fen)}
        )
    else:
        messages.error(
            request, _("The balance could not be read: %(why)s") % {"why": found.balance_trouble}
        )
    if found.query_trouble:
        messages.error(
            request,
            _("A query of a number that doesn't exist was not answered as it should be: %(why)s")
            % {"why": found.query_trouble},
        )
    else:
        messages.success(
            request, _("A query was answered: address, keys and signatures are right.")
        )
    return HttpResponseRedirect(address_of(account))
