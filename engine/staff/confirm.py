"""One act of staff, asked once more: what it does in words and numbers, then the form, then done.

    return confirm(request, act=Act(...), back="/admin/…", title=str(payout))

The page shows what would happen. With the form filled in, the service runs; its refusal stands at
the field that it is about, and changes nothing. What moves money asks for the password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from engine.lib.adminkit import dress
from engine.lib.errors import ServiceError
from engine.staff.pages import page
from engine.staff.reauth import password_is_fresh, password_refusal

REASON_MAX_CHARS = 200


class DressedForm(forms.Form):
    """A form in the theme's clothes whose fields can carry a service's refusal."""

    # The services' names of arguments, where the form's differ.
    aliases: dict[str, str] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for one in self.fields.values():
            dress(one)

    def refuse(self, refusal: ServiceError) -> None:
        """Put a refusal beside the field that it is about."""
        name = self.aliases.get(refusal.field, refusal.field)
        # `tiers[2].quantity` is about the field `tiers`.
        name = re.split(r"[.\[]", name)[0]
        # A hidden field has no place for words: they stand above the form.
        seen = name in self.fields and not self.fields[name].widget.is_hidden
        known = name if seen else None
        # What a user may not see twice: the same words from two checks.
        if known is None or str(refusal.message) not in map(str, self.errors.get(known, [])):
            self.add_error(known, forms.ValidationError(refusal.message, refusal.code))


class MoneyForm(DressedForm):
    """A form that moves money: it asks for the password where it wasn't typed just now."""

    password = forms.CharField(
        label=_("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        help_text=_("Money moves: make sure that it is you."),
    )

    def __init__(self, *args: Any, request: HttpRequest, money: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        if not money or password_is_fresh(request):
            del self.fields["password"]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        # Asked last: a mistyped name must not cost a try of the password.
        if "password" in self.fields and not self.errors:
            refusal = password_refusal(self.request, data["password"])
            if refusal:
                self.add_error("password", refusal)
        return data


class ReasonForm(MoneyForm):
    """Why, and the password where money moves. Acts with more to ask have a form of their own."""

    reason = forms.CharField(
        label=_("Reason"), max_length=REASON_MAX_CHARS, widget=forms.Textarea(attrs={"rows": 2})
    )
    field_order: tuple[str, ...] = ("reason", "password")


@dataclass(frozen=True)
class Consequence:
    """What an act does: one sentence about the money, further facts, and lines of numbers."""

    money: str
    facts: tuple[str, ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ConfirmedAct:
    """An act's page: its words, what it asks for, and the service behind it.

    `run` gets the form's cleaned data and raises ServiceError to refuse. `about` and `tag` name the
    object at the top of the page; `done` is said when it has happened.
    """

    label: str | Promise
    consequence: Consequence
    run: Callable[[dict[str, Any]], Any]
    done: str | Promise
    icon: str = "check"
    form: type[MoneyForm] = ReasonForm
    money: bool = True  # asks for the password
    danger: bool = False
    about: str = ""
    initial: dict[str, Any] = field(default_factory=dict)


def confirm(request: HttpRequest, act: ConfirmedAct, back: str) -> HttpResponse:
    """Show the page, or do the act and go `back`. The caller has asked for the right already."""
    form = act.form(
        request.POST if request.method == "POST" else None,
        request.FILES if request.method == "POST" else None,
        request=request,
        money=act.money,
        initial=act.initial,
    )
    if request.method == "POST" and form.is_valid():
        try:
            act.run(form.cleaned_data)
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, str(act.done))
            return HttpResponseRedirect(back)
    return page(
        request,
        "staff/confirm.html",
        act.label,
        status=422 if form.is_bound else 200,
        form=form,
        act=act,
        back=back,
    )
