"""Transfers, payouts and differences as files: what and which days, then the download."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from campaign.money_exports import WORDS, Period, columns_of, money_export
from engine.lib import clock
from engine.lib.adminkit import actor_of, require, zone_label
from engine.lib.errors import ServiceError
from engine.staff.confirm import MoneyForm
from engine.staff.pages import page

TAKE = "packets.export_money"
TAKE_WHOLE = "packets.export_payees"


class ExportForm(MoneyForm):
    """The password is asked for only where people's accounts leave the house whole."""

    what = forms.ChoiceField(
        label=gettext_lazy("What"), choices=[(one.value, words) for one, words in WORDS.items()]
    )
    first = forms.DateField(
        label=gettext_lazy("First day"), widget=forms.DateInput(attrs={"type": "date"})
    )
    last = forms.DateField(
        label=gettext_lazy("Last day"), widget=forms.DateInput(attrs={"type": "date"})
    )
    whole = forms.BooleanField(
        label=gettext_lazy("Whole payee accounts and names"),
        required=False,
        help_text=gettext_lazy("Otherwise they are masked. Asks for your password."),
    )
    field_order = ("what", "first", "last", "whole", "password")

    def __init__(self, *args: Any, may_take_whole: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not may_take_whole:
            del self.fields["whole"]
            self.fields.pop("password", None)
        elif "password" in self.fields:
            self.fields["password"].required = False
            self.fields["password"].help_text = _("Only for whole accounts and names.")

    def clean(self) -> dict[str, Any]:
        data = self.cleaned_data
        if not data.get("whole"):
            return data
        if "password" in self.fields and not data.get("password"):
            self.add_error("password", _("Whole accounts and names need your password."))
            return data
        return super().clean()


def export(request: HttpRequest) -> HttpResponseBase:
    require(request, TAKE)
    today = clock.now().astimezone(ZoneInfo(settings.STAFF_TIME_ZONE)).date()
    month = today.replace(day=1)
    bound = request.method == "POST"
    form = ExportForm(
        request.POST if bound else None,
        request=request,
        may_take_whole=request.user.has_perm(TAKE_WHOLE),
        initial={
            "first": (month - dt.timedelta(days=1)).replace(day=1),
            "last": month - dt.timedelta(days=1),
        },
    )
    if bound and form.is_valid():
        data = form.cleaned_data
        whole = bool(data.get("whole"))
        if whole and not request.user.has_perm(TAKE_WHOLE):
            raise PermissionDenied
        try:
            pieces = money_export(
                what=data["what"],
                period=Period(data["first"], data["last"]),
                whole=whole,
                actor=actor_of(request),
                request=request,
            )
        except ServiceError as refusal:
            form.refuse(refusal)
        else:
            name = f"laisee-{data['what']}-{data['first']}-{data['last']}.csv"
            answer = StreamingHttpResponse(pieces, content_type="text/csv; charset=utf-8")
            answer["Content-Disposition"] = f'attachment; filename="{name}"'
            answer["Cache-Control"] = "no-store"
            return answer
    return page(
        request,
        "campaign/money_export.html",
        _("Files for finance"),
        status=422 if bound else 200,
        form=form,
        zone=zone_label(settings.STAFF_TIME_ZONE),
        files=[
            (
                words,
                ", ".join(columns_of(one)).replace("{zone}", settings.STAFF_TIME_ZONE),
            )
            for one, words in WORDS.items()
        ],
    )
