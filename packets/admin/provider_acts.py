"""What staff do about provider accounts: each act with a reason, most with the password.

Stopping is quick: switching off and stopping to send ask for no password.
"""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from engine.lib.adminkit import actor_of, number_of, require
from engine.lib.errors import ServiceError
from engine.lib.money import yuan
from engine.staff.confirm import ConfirmedAct, Consequence, confirm
from engine.staff.pages import page, user_of
from packets.admin import provider_forms as forms
from packets.admin.deciding import Asked, decide
from packets.admin.payout_desk import breaker_words
from packets.models import ProviderAccount, ProviderChange
from packets.payouts import accounts
from packets.providers import credential_fields

SEE, CHANGE = "packets.view_provideraccount", "packets.change_provideraccount"
DECIDE = "packets.decide_providerchange"
State = ProviderAccount.Breaker


def address_of(account: ProviderAccount) -> str:
    return reverse("admin:packets_provideraccount_change", args=[account.pk])


def account_of(pk: Any) -> ProviderAccount:
    return get_object_or_404(ProviderAccount, pk=number_of(pk))


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
    account = account_of(pk)
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
    account = account_of(pk)
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
    account = account_of(pk)
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
    account = account_of(pk)
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
    account = account_of(pk)
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
