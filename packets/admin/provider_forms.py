"""What people type about provider accounts: yuan, times of day, and keys, never repeated."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django import forms
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from engine.lib.adminkit import CheckboxSelectMultiple, YuanField, dress
from engine.lib.money import yuan
from engine.models import ClientApp
from engine.staff.confirm import REASON_MAX_CHARS, MoneyForm
from packets.models import ProviderAccount
from packets.payouts.accounts import Limits
from packets.providers import credential_fields

Row = tuple[forms.BoundField, str, bool]
PAYMENT = ("min_fen", "max_fen", "review_above_fen")
PER_DAY = ("day_limit_fen", "person_day_fen", "person_day_count")
PACE = ("rate_per_minute", "opens_at", "closes_at", "timezone")
WHO = ("grey_percent", "client_apps")
ANSWERS = ("not_found_grace_s", "statement_after")


def _clock(label: Any, help_text: Any = "") -> forms.TimeField:
    widget = forms.TextInput()
    widget.input_type = "time"
    return forms.TimeField(label=label, required=False, widget=widget, help_text=help_text)


def _number(label: Any, least: int, *, required: bool = False, help_text: Any = "") -> Any:
    return forms.IntegerField(label=label, min_value=least, required=required, help_text=help_text)


class LimitsForm(MoneyForm):
    """Empty means no limit. The service judges what fits together."""

    min_fen = YuanField(label=gettext_lazy("Smallest payout"))
    max_fen = YuanField(label=gettext_lazy("Largest payout"), required=False)
    review_above_fen = YuanField(
        label=gettext_lazy("A person looks above"),
        required=False,
        help_text=gettext_lazy("Larger ones wait until finance releases them."),
    )
    day_limit_fen = YuanField(label=gettext_lazy("A day, in all"), required=False)
    person_day_fen = YuanField(label=gettext_lazy("A day, per person"), required=False)
    person_day_count = _number(gettext_lazy("Payouts a day, per person"), 1)
    rate_per_minute = _number(
        gettext_lazy("Payouts a minute"),
        1,
        help_text=gettext_lazy("What the provider allows; sends are spread evenly below it."),
    )
    opens_at = _clock(gettext_lazy("Open from"))
    closes_at = _clock(
        gettext_lazy("Open until"),
        gettext_lazy("Earlier than the beginning: the window goes past midnight."),
    )
    timezone = forms.CharField(
        label=gettext_lazy("Time zone"),
        max_length=64,
        help_text=gettext_lazy("Of the window, and where a day begins at midnight."),
    )
    grey_percent = _number(
        gettext_lazy("Open to (percent of people)"),
        0,
        required=True,
        help_text=gettext_lazy("Always the same people: a rollout can begin with a few."),
    )
    client_apps = forms.ModelMultipleChoiceField(
        ClientApp.objects.none(),
        label=gettext_lazy("Client apps"),
        required=False,
        widget=CheckboxSelectMultiple,
        help_text=gettext_lazy("None chosen: all of them."),
    )
    not_found_grace_s = _number(
        gettext_lazy("“No such number” is believed after (seconds)"),
        0,
        required=True,
        help_text=gettext_lazy("Right after a send a provider may not know the number yet."),
    )
    statement_after = _clock(gettext_lazy("The statement of a day is ready at"))
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        apps: Any = self.fields["client_apps"]
        apps.queryset = ClientApp.objects.order_by("slug")

    def limits(self) -> Limits:
        data = self.cleaned_data
        names = (*PAYMENT, *PER_DAY, *PACE, *ANSWERS, "grey_percent")
        apps = tuple(sorted(app.pk for app in data["client_apps"]))
        return Limits(**{name: data[name] for name in names}, client_apps=apps)

    def sheets(self) -> list[tuple[str, list[Row]]]:
        found = [
            (_("Each payout"), self._row(PAYMENT, "is-4")),
            (_("A day"), self._row(PER_DAY, "is-4")),
            (_("Pace and window"), self._row(PACE, "is-3")),
            (_("Who may withdraw"), self._row(WHO, "is-6")),
            (_("Answers and statements"), self._row(ANSWERS, "is-6")),
        ]
        return [*found, (_("Confirm"), self._row(("reason", "password"), "is-6"))]

    def _row(self, names: tuple[str, ...], width: str) -> list[Row]:
        return [
            (self[name], width, isinstance(self.fields[name], YuanField))
            for name in names
            if name in self.fields
        ]


class AddForm(LimitsForm):
    name = forms.SlugField(
        label=gettext_lazy("Name"),
        max_length=32,
        help_text=gettext_lazy("What apps and callbacks call it; it never changes."),
    )
    kind = forms.ChoiceField(label=gettext_lazy("Provider"), choices=ProviderAccount.Kind.choices)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        blank = ProviderAccount()
        kwargs.setdefault("initial", initial_of(blank))
        super().__init__(*args, **kwargs)

    def sheets(self) -> list[tuple[str, list[Row]]]:
        return [(_("The account"), self._row(("name", "kind"), "is-6")), *super().sheets()]


class KeysForm(MoneyForm):
    """A field for each of the adapter's credentials; what is stored is never put into one."""

    base_url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("Empty: the provider's own."),
    )
    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=REASON_MAX_CHARS)

    def __init__(self, *args: Any, account: ProviderAccount, **kwargs: Any) -> None:
        super().__init__(*args, initial={"base_url": account.base_url}, **kwargs)
        self.names = []
        for field in credential_fields(account.kind):
            widget: forms.Widget = forms.TextInput(attrs={"autocomplete": "off"})
            if field.multiline:
                widget = forms.Textarea(
                    attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}
                )
            elif field.secret:
                widget = forms.PasswordInput(attrs={"autocomplete": "new-password"})
            made = forms.CharField(
                label=capfirst(str(field.label)),
                required=False,
                widget=widget,
                help_text=str(field.help),
            )
            dress(made)
            self.fields[field.name] = made
            self.names.append(field.name)

    def credentials(self) -> dict[str, str]:
        return {name: self.cleaned_data[name] for name in self.names}

    def sheets(self) -> list[tuple[str, list[Row]]]:
        def rows(*names: str) -> list[Row]:
            return [(self[name], "", False) for name in names if name in self.fields]

        return [
            (_("Address and keys"), rows("base_url", *self.names)),
            (_("Confirm"), rows("reason", "password")),
        ]


def initial_of(account: ProviderAccount) -> dict[str, Any]:
    names = (*PAYMENT, *PER_DAY, *PACE, *ANSWERS, "grey_percent")
    found = {name: getattr(account, name) for name in names}
    for name in ("opens_at", "closes_at", "statement_after"):
        found[name] = f"{found[name]:%H:%M}" if isinstance(found[name], dt.time) else ""
    return {**found, "client_apps": account.client_apps}


def limits_in_words(account: ProviderAccount) -> list[tuple[str, str]]:
    """The limits as a list of label and value."""

    def sum_or_none(amount_fen: int | None) -> str:
        return _("no limit") if amount_fen is None else yuan(amount_fen)

    def count_or_none(number: int | None) -> str:
        return _("no limit") if number is None else f"{number:,}"

    window = _("all day")
    if account.opens_at and account.closes_at:
        window = f"{account.opens_at:%H:%M} – {account.closes_at:%H:%M} {account.timezone}"
    apps = list(ClientApp.objects.filter(pk__in=account.client_apps).order_by("slug"))
    review = account.review_above_fen
    return [
        (_("Each payout"), f"{yuan(account.min_fen)} – {sum_or_none(account.max_fen)}"),
        (_("A person looks above"), _("nobody looks") if review is None else yuan(review)),
        (_("A day, in all"), sum_or_none(account.day_limit_fen)),
        (_("A day, per person"), sum_or_none(account.person_day_fen)),
        (_("Payouts a day, per person"), count_or_none(account.person_day_count)),
        (_("Payouts a minute"), count_or_none(account.rate_per_minute)),
        (_("Window"), window),
        (_("Open to"), _("%(percent)s%% of people") % {"percent": account.grey_percent}),
        (_("Client apps"), ", ".join(app.slug for app in apps) if apps else _("all of them")),
        (
            _("“No such number” is believed after"),
            _("%(seconds)s s") % {"seconds": account.not_found_grace_s},
        ),
    ]
