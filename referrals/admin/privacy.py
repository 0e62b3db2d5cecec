"""Acts on one person that no list has a row for: holding what they won, and erasing them."""

from __future__ import annotations

import uuid
from typing import Any

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign.models import Campaign
from engine.lib.adminkit import actor_of, require
from engine.lib.errors import ServiceError
from engine.lib.ids import SUBJECT_MAX_CHARS, subject_is_valid
from engine.lib.money import yuan
from engine.models import ClientApp
from engine.staff.confirm import ConfirmedAct, Consequence, ReasonForm, confirm
from packets.selectors import wallet_balance
from referrals.privacy.erasing import person_erase
from referrals.risk.wallets import holdable_fen, wallet_hold

HOLD = "packets.resolve_hold"  # whoever decides on held money may hold some
ERASE = "referrals.erase_person"


def person_of(text: str) -> bytes:
    """The digest in an address."""
    try:
        person = bytes.fromhex(text)
    except ValueError:
        raise Http404 from None
    if len(person) != 16:
        raise Http404
    return person


def hold(request: HttpRequest, campaign_id: uuid.UUID, person: str) -> HttpResponse:
    """Freeze what is left of a person's winnings of a campaign, for a decision."""
    require(request, HOLD)
    campaign, who = get_object_or_404(Campaign, pk=campaign_id), person_of(person)
    amount_fen = holdable_fen(who, campaign)
    act = ConfirmedAct(
        label=_("Hold what they won here"),
        icon="front_hand",
        danger=True,
        about=person,
        consequence=Consequence(
            _("%(amount)s of the wallet is held until somebody releases or forfeits it.")
            % {"amount": yuan(amount_fen)},
            (
                _("What was won in other campaigns stays free."),
                _("The person sees that money is held and can say something about it, once."),
                _("Forfeited, it goes back to this campaign."),
            ),
            ((_("In the wallet"), yuan(wallet_balance(who).available_fen)),),
        ),
        run=lambda data: wallet_hold(
            participant=who, campaign=campaign, actor=actor_of(request), reason=data["reason"]
        ),
        done=gettext_lazy("Held. It waits among the other holds."),
    )
    return confirm(request, act, back=reverse("admin:referrals_person", args=[campaign_id, person]))


class EraseForm(ReasonForm):
    """Whom, by the names that the app has for them."""

    aliases = {"person": "user"}

    app = forms.ModelChoiceField(ClientApp.objects.all(), label=gettext_lazy("Client app"))
    user = forms.CharField(
        label=gettext_lazy("The app's user id"),
        max_length=SUBJECT_MAX_CHARS,
        strip=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text=gettext_lazy("Exactly as the app has it: upper and lower case count."),
    )
    field_order = ("app", "user", "reason", "password")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].help_text = _("It stays in the audit log: no names.")

    def clean_user(self) -> str:
        user: str = self.cleaned_data["user"]
        if not subject_is_valid(user):
            raise forms.ValidationError(_("A user id is 1 to 128 printable characters."))
        return user


def erase(request: HttpRequest) -> HttpResponse:
    """Everything that says who somebody is goes."""
    require(request, ERASE)
    act = ConfirmedAct(
        label=_("Erase a person"),
        icon="person_remove",
        danger=True,
        form=EraseForm,
        consequence=Consequence(
            _("No money moves; amounts, claims and the ledger stay."),
            (
                _("Their user id, payees, messages, appeals, phones and networks are erased."),
                _("Their share links stop working."),
                _("It is refused while money of theirs is on its way, and says what is left."),
                _("This can't be undone."),
            ),
        ),
        run=lambda data: _erase(data, actor_of(request)),
        done=gettext_lazy("Erased. The audit log says how much, and not who."),
    )
    return confirm(request, act, back=reverse("admin:referrals_erase"))


def _erase(data: dict[str, Any], actor: str) -> None:
    erased = person_erase(
        client_app_id=data["app"].pk, subject=data["user"], actor=actor, reason=data["reason"]
    )
    if not erased:
        raise ServiceError("person", "unknown", _("Nothing that says who they are is kept."))
